"""Commands in processes of their own, that can be killed, and what they leave behind."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
START = "import sys; from hymunet.cli import main; sys.exit(main(sys.argv[1:]))"

needs_cluster = pytest.mark.skipif(
    not all(map(find_spec, ("ray", "pyarrow", "pandas", "fsspec"))),
    reason='THE ENGINE RAY IS NOT TESTED: pip install "hymunet[cluster]"',
)


def command(*arguments, more_path=()):
    """`hymunet predict --engine ray ...` with two workers, and the environment it runs in."""
    path = [*map(str, more_path), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    environment |= {"OMP_NUM_THREADS": "1"}
    arguments = ["predict", *map(str, arguments), "--engine", "ray", "--workers", "2"]
    return [sys.executable, "-c", START, *arguments], environment


def run(*arguments, more_path=()):
    """The command's exit code and what it said."""
    words, environment = command(*arguments, more_path=more_path)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stderr


def manifest(output):
    """All lines of a manifest, in order."""
    return [
        json.loads(line)
        for part in sorted((output / "manifest").glob("*.jsonl"))
        for line in part.read_text().splitlines()
    ]


def masks(output):
    """Name -> bytes of each mask."""
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*.png")}


def tables(output):
    """All rows of the measurements."""
    import pyarrow.dataset

    return pyarrow.dataset.dataset(output / "measurements.parquet").to_table().to_pylist()
