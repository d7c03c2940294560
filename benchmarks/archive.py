"""An archive through `predict --engine ray`, its driver killed halfway: what is left, and memory.

    python -m benchmarks.archive [--images 2000] [--few 200] [--size 96] [--workers 2] [--json F]

Drawn pictures. The plain engine segments them first; then the engine ray does, is killed with -9
when the manifest holds half of them, and the same command is given again. Counted are masks, lines
of the manifest and rows of the measurements, and every mask is compared, byte for byte. Resident
memory is that of a run over few and one over all, looked at twice a second: the driver's, the
largest worker's, and all of Ray's processes together.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks import common
from hymunet.console import run_script, say
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.machine import machine
from hymunet.wording import memory_text

_START = "import sys; from hymunet.cli import main; sys.exit(main(sys.argv[1:]))"
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def draw(folder: Path, count: int, size: int) -> None:
    """PNG files in subfolders of a hundred."""
    for number in range(count):
        place = folder / f"{number // 100:03d}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.moveaxis(draw_lesion(number, (size, size)).image, 0, -1)
        Image.fromarray(pixels).save(place / f"{number:05d}.png")


def started(inputs: list[Path], output: Path, *options: str) -> "subprocess.Popen[bytes]":
    """`hymunet predict` in a process of its own."""
    source = str(Path(__file__).resolve().parents[1] / "src")
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    words = [*map(str, inputs), "--output", str(output), *options]
    return subprocess.Popen(
        [sys.executable, "-c", _START, "predict", *words],
        env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE,
    )  # fmt: skip


def lines(output: Path) -> list[dict[str, Any]]:
    """Of the manifest."""
    parts = sorted((output / "manifest").glob("*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def digests(output: Path) -> dict[str, str]:
    """Name of each mask and the SHA-256 of its bytes."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("*.png")
    }


def resident(driver: int) -> dict[str, int]:
    """Bytes of the driver, of the largest worker that segments, and of all that it has started."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    workers: set[int] = set()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            after_name = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(after_name[1])
            sizes[int(place.name)] = int((place / "statm").read_text().split()[1]) * _PAGE
            if b"ray::" in (place / "cmdline").read_bytes()[:5]:
                workers.add(int(place.name))
        except OSError:  # it has ended
            continue

    def is_below(process: int) -> bool:
        while process in parents and process != driver:
            process = parents[process]
        return process == driver

    family = [process for process in sizes if is_below(process)]
    of_workers = [sizes[process] for process in family if process in workers]
    return {
        "driver": sizes.get(driver, 0),
        "largest worker": max(of_workers, default=0),
        "all together": sum(sizes[process] for process in family),
    }


def watched(process: "subprocess.Popen[bytes]") -> tuple[dict[str, int], float]:
    """The most memory that was seen until it ended, and the seconds."""
    begun = time.perf_counter()
    most: Counter[str] = Counter()
    while process.poll() is None:
        most |= Counter(resident(process.pid))
        time.sleep(0.5)
    if process.returncode != 0:
        said = process.stderr.read().decode() if process.stderr else ""
        raise HyMUNetError(f"predict ended with {process.returncode}: {said[-2000:]}")
    return dict(most), time.perf_counter() - begun


def kill_halfway(process: "subprocess.Popen[bytes]", output: Path, half: int) -> int:
    """Kills the driver when so many images are in its manifest; how many there were."""
    while process.poll() is None:
        if len(lines(output)) >= half:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return len(lines(output))
        time.sleep(0.3)
    said = process.stderr.read().decode() if process.stderr else ""
    raise HyMUNetError(f"the command ended before half of the images were done: {said[-2000:]}")


def main(
    *,
    images: int = 2000,
    few: int = 200,
    size: int = 96,
    workers: int = 2,
    model: str = "isic2018-tiny",
    json: Path | None = None,
) -> None:
    """Kills an archive's driver and counts what is left.

    Args:
        images: How many pictures are drawn.
        few: How many of them the first look at the memory takes.
        size: Their height and width.
        workers: Of Ray.
        model: What segments them.
        json: Where the figures are written.
    """
    common.check_at_least(1, few=few, size=size, workers=workers)
    common.check_at_least(few, images=images)
    console = Console()
    facts = machine("ray", "pyarrow")
    common.introduce(console, facts)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        inputs = root / "images"
        draw(inputs, images, size)
        options = ("--model", model)
        ray = (*options, "--engine", "ray", "--workers", str(workers))
        _, plain_s = watched(started([inputs], root / "plain", *options))
        expected = digests(root / "plain")

        chosen = sorted(inputs.rglob("*.png"))[:few]
        memory_few, _ = watched(started(chosen, root / "few", *ray))
        memory_all, ray_s = watched(started([inputs], root / "all", *ray))
        show_memory(console, memory_few, few, memory_all, images)
        seconds = sum(line["seconds"] for line in lines(root / "all")) / images
        say(console, f"plain {plain_s:.1f} s, ray {ray_s:.1f} s; {1e3 * seconds:.1f} ms an image")

        output = root / "killed"
        before = kill_halfway(started([inputs], output, *ray), output, images // 2)
        watched(started([inputs], output, *ray))
        found, written = lines(output), digests(output)
        result = {
            "images": images,
            "done when killed": before,
            "masks": len(written),
            "lines of the manifest": len(found),
            "different masks in it": len({line["mask"] for line in found}),
            "rows of measurements": _rows(output),
            "masks equal to the plain engine's": sum(
                written.get(name) == digest for name, digest in expected.items()
            ),
        }
    for name, value in result.items():
        say(console, f"{name}: {value:,}")
    exact = [value for name, value in result.items() if name != "done when killed"]
    say(console, f"each image exactly once: {common.outcome(set(exact) == {images})}")
    if json is not None:
        memory = {"few": memory_few, "all": memory_all}
        whole = {"machine": facts, "counts": result, "memory": memory, "ms_an_image": 1e3 * seconds,
                 "plain_s": plain_s, "ray_s": ray_s}  # fmt: skip
        common.write_json(json, "archive", whole, console)


def show_memory(
    console: Console, less: dict[str, int], few: int, more: dict[str, int], many: int
) -> None:
    """A line for each of the processes that are looked at."""
    for name, least in less.items():
        say(
            console,
            f"resident, {name}: {memory_text(least)} with {few:,} images, "
            f"{memory_text(more[name])} with {many:,} ({more[name] / max(least, 1) - 1:+.1%})",
        )


def _rows(output: Path) -> int:
    """Rows of the Parquet files, of different images."""
    import pyarrow.dataset

    names = pyarrow.dataset.dataset(output / "measurements.parquet").to_table(["image"])["image"]
    if len(names.unique()) != len(names):
        raise HyMUNetError("an image has been measured twice")
    return len(names)


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.archive")
