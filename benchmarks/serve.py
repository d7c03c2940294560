"""Times `hymunet serve` under load beside the bare predictor: file in, mask out.

    python -m benchmarks.serve [--model isic2018-tiny] [--images FOLDER] [--clients 8] [--json F]

The bare predictor runs in this process: it reads a file's bytes, decodes, segments, measures, and
makes the mask's PNG. The server runs in a process of its own and gets the same files over HTTP.
Each round times all of them one after the other, so that a machine that slows down slows all, and
the table holds medians over the rounds; the masks are compared before anything is timed.
Measured too: whether several pictures in one pass of the network cost less than one by one.
"""

import base64
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import common
from hymunet.console import run_script, say
from hymunet.data.mask_writing import mask_bytes
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.inference.predictor import Predictor
from hymunet.machine import machine

BLOCK = 10  # requests of a turn of the bare predictor, and of one client
OVERHEAD = 0.15  # what one client may wait beyond the bare predictor's time
_START = "import sys; from hymunet.cli import main; sys.exit(main(sys.argv[1:]))"


def drawn(count: int, size: tuple[int, int]) -> list[bytes]:
    """Lesions as JPEG files."""
    files = []
    for seed in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.moveaxis(draw_lesion(seed, size).image, 0, -1)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return files


def bare(predictor: Predictor, file: Path) -> bytes:
    """File in, mask out, as `predict` does it."""
    prediction = predictor(file)
    return mask_bytes(Path("m.png"), prediction.mask, prediction.image, predictor.config.num_labels)


@contextmanager
def served(model: str, threads: int) -> Iterator[tuple[int, int]]:
    """A server's port and process."""
    source = str(Path(__file__).resolve().parents[1] / "src")
    environment = os.environ | {"PYTHONPATH": source}
    options = ["--port", "0", "--queue", "64", "--threads", str(threads)]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, "serve", model, *options],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    port = None
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"serving at http://127\.0\.0\.1:(\d+)", line):
            port = int(found[1])
            break
    if port is None:
        raise HyMUNetError(f"the server did not start: {''.join(said)}")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def ask(connection: http.client.HTTPConnection, content: bytes) -> dict[str, Any]:
    """The server's answer to one file."""
    connection.request("POST", "/v1/segment", content, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    if answer.status != 200:
        raise HyMUNetError(f"the server answered {answer.status}: {found['error']['message']}")
    return found


def load(port: int, contents: list[bytes], requests: int, clients: int) -> dict[str, Any]:
    """Latencies of `requests` requests that so many clients share, and how long all took."""
    seconds: list[float] = []
    failures: list[str] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                break
            begun = time.perf_counter()
            try:
                ask(connection, contents[number % len(contents)])
            except (HyMUNetError, OSError, http.client.HTTPException) as error:
                failures.append(str(error))
                continue
            seconds.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": seconds, "wall_s": time.perf_counter() - begun, "failures": failures}


def in_one_pass(predictor: Predictor, file: Path, counts: list[int], repeats: int) -> Any:
    """Seconds a picture of the network alone, for each number of pictures in a pass."""
    member = predictor.members[0]
    image = predictor.decode(file)
    with torch.inference_mode():
        one = member.preprocess(torch.from_numpy(image.pixels.copy())[None], image.spacing_mm)
        batches = {count: one.repeat(count, 1, 1, 1) for count in counts}

        def call(count: int) -> object:
            return predictor.network_probability(member.network, batches[count])

        times = common.in_turns({n: lambda n=n: call(n) for n in counts}, repeats)
    return {count: [t / count for t in seconds] for count, seconds in times.items()}


def main(
    *,
    model: str = "isic2018-tiny",
    images: Path | None = None,
    size: tuple[int, int] = (450, 600),
    clients: list[int] | None = None,
    requests: int = 200,
    repeats: int = 3,
    threads: int | None = None,
    json: Path | None = None,
) -> None:
    """Measures the server against the bare predictor.

    Args:
        model: What is served.
        images: Folder of JPEG files; default: drawn lesions of `size`.
        size: Height and width of drawn pictures.
        clients: How many at once, besides one; default: 8.
        requests: Requests of all clients together, in all rounds together.
        repeats: Rounds.
        threads: Of torch, in both processes; default: torch's own choice.
        json: Where every single time is written.
    """
    common.check_at_least(1, requests=requests, repeats=repeats)
    console = Console()
    if threads is not None:
        torch.set_num_threads(threads)
    threads = torch.get_num_threads()
    clients = clients or [8]
    predictor = Predictor(model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        if images is None:
            files = [Path(folder) / f"{number}.jpg" for number in range(16)]
            for file, content in zip(files, drawn(16, size), strict=True):
                file.write_bytes(content)
        else:
            files = sorted(images.glob("*.jpg"))[:16]
        if not files:
            raise HyMUNetError(f"{images} holds no *.jpg")
        contents = [file.read_bytes() for file in files]
        facts = machine()
        common.introduce(console, facts)
        with served(model, threads) as (port, _):
            rounds = measured(predictor, files, contents, port, clients, requests, repeats)
        passes = in_one_pass(predictor, files[0], [1, 2, 4, 8], 3 * repeats)
    show(console, rounds, passes)
    if json is not None:
        result = {"machine": facts, "model": model, "rounds": rounds, "passes": passes}
        common.write_json(json, "serve", result, console)


def measured(
    predictor: Predictor,
    files: list[Path],
    contents: list[bytes],
    port: int,
    clients: list[int],
    requests: int,
    repeats: int,
) -> dict[str, list[dict[str, Any]]]:
    """The rounds of everybody, after a comparison of the masks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    for file, content in zip(files, contents, strict=True):
        if base64.b64decode(ask(connection, content)["mask_png"]) != bare(predictor, file):
            raise HyMUNetError(f"the server's mask of {file.name} is not the predictor's")
    connection.close()
    each = max(1, requests // repeats)
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        turns: dict[str, list[dict[str, Any]]] = {}
        for first in range(0, each, BLOCK):  # short turns: other programs slow all alike
            numbers = range(first, min(first + BLOCK, each))
            turns.setdefault("the bare predictor", []).append(alone(predictor, files, numbers))
            turns.setdefault("served, 1 client", []).append(load(port, contents, len(numbers), 1))
        for name, parts in turns.items():
            rounds.setdefault(name, []).append(
                {
                    "seconds": [second for part in parts for second in part["seconds"]],
                    "wall_s": sum(part["wall_s"] for part in parts),
                    "failures": [failure for part in parts for failure in part["failures"]],
                }
            )
        for count in clients:
            rounds.setdefault(f"served, {count} clients", []).append(
                load(port, contents, each, count)
            )
    return rounds


def alone(predictor: Predictor, files: list[Path], numbers: range) -> dict[str, Any]:
    """The bare predictor's times, as `load` gives them."""
    seconds = []
    for number in numbers:
        begun = time.perf_counter()
        bare(predictor, files[number % len(files)])
        seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "wall_s": sum(seconds), "failures": []}


def show(
    console: Console, rounds: dict[str, list[dict[str, Any]]], passes: dict[int, list[float]]
) -> None:
    """Two tables, and whether the overhead is within its target."""
    table = Table(box=None)
    for column in ("", "p50", "p99", "pictures / s", "answered"):
        table.add_column(column, justify="left" if not column else "right")
    middle: dict[str, float] = {}
    for name, turns in rounds.items():
        every = [second for turn in turns for second in turn["seconds"]]
        lost = sum(len(turn["failures"]) for turn in turns)
        middle[name] = statistics.median(statistics.median(turn["seconds"]) for turn in turns)
        rate = statistics.median(len(turn["seconds"]) / turn["wall_s"] for turn in turns)
        table.add_row(
            name,
            common.milliseconds(middle[name]),
            common.milliseconds(float(np.percentile(every, 99))),
            f"{rate:.1f}",
            f"{len(every)} of {len(every) + lost}",
        )
    console.print(table)
    if "served, 1 client" in middle:
        over = middle["served, 1 client"] / middle["the bare predictor"] - 1
        kept = common.outcome(over <= OVERHEAD)
        say(console, f"overhead with one client: {over:.1%} (target {OVERHEAD:.0%}: {kept})")
    table = Table(box=None)
    table.add_column("pictures in one pass of the network")
    table.add_column("a picture", justify="right")
    for count, seconds in passes.items():
        table.add_row(str(count), common.milliseconds(statistics.median(seconds)))
    console.print(table)


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.serve")
