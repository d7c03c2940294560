"""The folders of a cross-validation, `fold-0`, `fold-1`, ...: found without loading a model."""

import json
import re
from pathlib import Path

BEST = "best.safetensors"
_FOLD = re.compile(r"fold-(0|[1-9]\d{0,3})")


def find_folds(folder: Path) -> list[Path]:
    """The folders fold-0, fold-1, ... of a cross-validation (`train --folds`), those that are still
    to be trained included; none where `folder` is another, or a model of its own."""
    if not folder.is_dir() or (folder / BEST).is_file():
        return []
    there = {int(m[1]) for path in folder.iterdir() if (m := _FOLD.fullmatch(path.name))}
    try:
        planned = len(json.loads((folder / "folds.json").read_bytes())["folds"])
    except (OSError, ValueError, TypeError, KeyError):
        planned = 0
    numbers = sorted(there | set(range(planned))) if there else []
    return [folder / f"fold-{number}" for number in numbers]
