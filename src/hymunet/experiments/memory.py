"""Peak memory of a forward pass on the CPU, which only a process of its own can tell.

`peak_bytes` starts `python -m hymunet.experiments.memory`, which reads questions (entrant,
settings, image) as JSON and answers each with a line: weights, and the most that the process held
beside them. Linux only, where a process can ask for its peak since a moment of its choice.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hymunet.experiments.entrants import Entrant
    from hymunet.training.planning.plan import Settings

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# glibc hands large blocks back at once instead of keeping them for later
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_PATIENCE_S = 600  # for a network


def question(
    entrant: "Entrant", settings: "Settings", channels: int, size: tuple[int, ...]
) -> dict[str, Any]:
    """What `peak_bytes` is asked: who builds the network, by which settings, for which image."""
    return {
        "entrant": asdict(entrant),
        "settings": asdict(settings),
        "channels": channels,
        "size": list(size),
    }


def peak_bytes(questions: Mapping[str, Mapping[str, Any]]) -> dict[str, int | str]:
    """Bytes that each network and a forward pass of one image take, by name.

    A network whose process dies does not lose the others: a new process goes on behind it.

    Args:
        questions: As `question` makes them, by name.

    Returns:
        Bytes, or in words why they are not known.
    """
    if not _REFS.exists():
        return dict.fromkeys(questions, "this system does not tell a process's peak memory")
    found: dict[str, int | str] = {}
    while left := {name: one for name, one in questions.items() if name not in found}:
        before = len(found)
        last = _ask(left, found)
        if len(found) < len(questions) and len(found) - before < len(left):
            dead = next(name for name in left if name not in found)
            found[dead] = last
    return found


def _ask(questions: Mapping[str, Mapping[str, Any]], found: dict[str, int | str]) -> str:
    """One process: fills in the answers it gives, and returns how it ended."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "hymunet.experiments.memory"],
            input=json.dumps(dict(questions)),
            env=os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S * len(questions),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the process that measures failed: {error}"
    for line in child.stdout.splitlines():
        if line.startswith('{"name"'):  # networks may print as well
            answer = json.loads(line)
            found[answer["name"]] = answer["answer"]
    said = child.stderr.strip().splitlines() or ["nothing"]
    return (
        f"the process that measures ended with {child.returncode} (negative: killed, perhaps for "
        f"want of memory); its last words: {said[-1]}"
    )


def answer(asked: Mapping[str, Any]) -> int:
    """Builds the network and measures, in this process."""
    import torch

    from hymunet.experiments.entrants import Entrant
    from hymunet.training.planning.plan import Settings

    settings, size = Settings(**asked["settings"]), tuple(asked["size"])
    torch.manual_seed(0)
    network = Entrant(**asked["entrant"]).make(settings, asked["channels"], len(size)).eval()
    image = torch.randn(1, asked["channels"], *size)
    weights = sum(p.nbytes for p in (*network.parameters(), *network.buffers()))
    with torch.inference_mode():
        network(image)  # what is compiled, loaded and chosen once
        gc.collect()
        before = _kib("VmRSS")
        _REFS.write_text("5")  # the peak from here on
        network(image)
    return weights + max(0, _kib("VmHWM") - before) * 1024


def _kib(name: str) -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1])


def main() -> None:
    """Answers the questions on standard input, a line each."""
    for name, asked in json.load(sys.stdin).items():
        said: int | str
        try:
            said = answer(asked)
        except Exception as error:  # of one network; the others are still to be asked
            said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        print(json.dumps({"name": name, "answer": said}), flush=True)


if __name__ == "__main__":
    main()
