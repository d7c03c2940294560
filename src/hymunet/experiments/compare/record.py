"""compare.json: what was asked of a comparison, what was settled, and who took part.

Models and seeds may be added to a folder, nothing else may change.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.files import strangers, write_text
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.run_config import differing

RECORD = "compare.json"


def read_record(folder: Path) -> dict[str, Any]:
    """compare.json; empty where there is none.

    Raises:
        HyMUNetError: If it is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HyMUNetError(
            f"{path} is damaged ({error}); bring it back, or start anew in another --output"
        ) from error


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """compare.json, whole or not at all."""
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def check_folder(folder: Path, record: dict[str, Any], asked: dict[str, Any], verb: str) -> None:
    """Refuses a folder that holds something else, or a comparison with other settings.

    Raises:
        HyMUNetError: Naming what is there.
    """
    if not record:
        if others := strangers(folder):
            raise HyMUNetError(
                f"the output folder {folder} is not empty and holds no comparison "
                f"({listed(others)}; {RECORD} is missing); choose a new folder"
            )
        return
    if record["verb"] != verb:
        raise HyMUNetError(
            f"{folder} holds the results of `hymunet {record['verb']}`, which compares other "
            f"models; give `hymunet {verb}` another --output"
        )
    if differ := differing(record["asked"], asked):
        raise HyMUNetError(
            f"the comparison in {folder} was begun with other settings: {'; '.join(differ)}. "
            "Models and seeds may be added, all else must be the same; give the same settings, or "
            "another --output"
        )


def plain_options(options: TrainOptions) -> dict[str, Any]:
    """What was settled of the options that may be left open, as JSON holds it."""
    values = {name: getattr(options, name) for name in OPEN}
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items() if v is not None}


def known_options(settled: dict[str, Any]) -> dict[str, Any]:
    """`plain_options` read back; what this version does not know is left out."""
    names = {f.name for f in fields(TrainOptions)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settled.items()
        if name in names
    }
