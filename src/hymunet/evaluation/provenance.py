"""How an evaluation came about, and how the model in it was trained: what a reader can repeat."""

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hymunet.machine import versions
from hymunet.wording import plural


def record(
    prediction: str,
    truth: Path,
    options: Mapping[str, str | Path | int | None],
    seconds: float,
    verb: str = "evaluate",
) -> dict[str, Any]:
    """Command, date, duration, machine and versions of an evaluation, for report and metrics.json.

    Args:
        prediction: First argument of the command.
        truth: Second argument.
        options: Options by their Python names; True is a flag, None and False were not given.
        seconds: How long it took.
        verb: The command that was called.
    """
    return {
        "command": command_line(verb, [prediction, str(truth)], options),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 1),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": versions("numpy", "scipy", "torch"),
    }


def command_line(verb: str, arguments: Sequence[str], options: Mapping[str, Any]) -> str:
    """The command as it can be typed into a POSIX shell.

    Args:
        verb: Such as evaluate.
        arguments: What stands before the options.
        options: By their Python names; True is a flag, None and False were not given, and a list
            or tuple is several words.
    """
    words = ["hymunet", verb, *arguments]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += map(str, value if isinstance(value, list | tuple) else [value])
    return shlex.join(words)


def how_made(summary: Mapping[str, Any], run: Path | None) -> list[dict[str, Any]]:
    """Tables of (name, text): this evaluation, then what the run folder tells of the training."""
    made = summary["made"]
    tables = [
        {
            "title": "This evaluation",
            "rows": [
                ("command", made["command"]),
                ("model or masks", summary["prediction"]),
                ("data", f"{summary['data']}, {summary['truth']}"),
                ("part", summary["split"] or "all cases"),
                ("date", made["date"]),
                ("duration", _duration(made["seconds"])),
                ("machine", made["machine"]),
                ("versions", _text(made["versions"])),
                ("intervals", f"{summary['interval']}, {plural(summary['groups'], 'group')}"),
            ],
            "open": True,
        }
    ]
    if run is None:
        return tables
    provenance = _read(run / "provenance.json")
    settings = _read(run / "config.yaml")
    if "seed" in settings:
        provenance = {"seed": settings["seed"]} | provenance
    training = [
        (name.removesuffix("seconds").replace("_", " ") + "duration", _duration(value))
        if name.endswith("seconds") and isinstance(value, int | float)
        else (name.replace("_", " "), _text(value))
        for name, value in provenance.items()
    ]
    if (run / "split.json").is_file() and "split_sha256" not in provenance:
        digest = hashlib.sha256((run / "split.json").read_bytes()).hexdigest()
        training.append(("split.json (SHA-256)", digest[:16]))
    if training:
        tables.append({"title": "Training", "rows": training, "open": True})
    decided = _read(run / "plan.json")
    warnings = [f for f in decided.get("findings", []) if f["level"] == "warning"]
    if warnings:
        rows = [(f["check"], f["message"]) for f in warnings]
        tables.append({"title": "The data: warnings of verify", "rows": rows, "open": True})
    if decided.get("plan"):
        rows = [
            (name.replace("_", " "), f"{_text(choice['value'])}: {choice['reason']}")
            for name, choice in decided["plan"].items()
        ]
        tables.append({"title": "The plan", "rows": rows, "open": False})
    if settings:
        tables.append({"title": "Training settings", "rows": _flat(settings), "open": False})
    return tables


def _read(path: Path) -> dict[str, Any]:
    """A JSON or YAML file's mapping; empty when there is no such file or nothing legible in it."""
    import yaml

    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        return {path.name: f"not legible: {error}"}
    return content if isinstance(content, dict) else {path.name: content}


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _text(value)))
    return rows


def _text(value: Any, longest: int = 400) -> str:
    """A value in words, cut at `longest` characters."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_text(inner) for inner in value)
    else:
        text = "–" if value is None else str(value)
    return text if len(text) <= longest else text[:longest] + "…"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
