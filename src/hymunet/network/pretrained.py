"""Weights that come with the package: a name stands for a file in `hymunet/weights`."""

import json as json_library
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.wording import plural

# a plain folder, whether the package is installed from a wheel or as an editable one
WEIGHTS = Path(str(files("hymunet").joinpath("weights")))


def pretrained_names() -> list[str]:
    """Names of the models that come with the package, for `HyMUNet.from_pretrained`, `Predictor`
    and wherever a command takes a model."""
    return sorted(path.stem for path in WEIGHTS.glob("[!.]*.safetensors"))


def pretrained_file(name: str | Path) -> Path | None:
    """The file of the packaged model called `name`; None when there is none of that name."""
    return WEIGHTS / f"{name}.safetensors" if str(name) in pretrained_names() else None


def no_such_model(model: str | Path) -> HyMUNetError:
    """The error for a model that is neither a path nor a name, naming the nearest one there is."""
    names = pretrained_names()
    hint, give = "", "give"
    if Path(model).parent == Path():  # a path with folders was not meant as a name
        near = get_close_matches(Path(model).name.lower(), names, n=1)
        hint, give = (f"did you mean {near[0]}? ", "Give") if near else (hint, give)
    return HyMUNetError(
        f"there is no model file or run folder {model}; {hint}{give} one, such as runs/mine or "
        "runs/mine/best.safetensors, hf://owner/name of the Hugging Face Hub, or the name of a "
        f"packaged model: {', '.join(names) or 'there are none in this installation'}"
    )


def models(*, json: bool = False) -> list[dict[str, Any]]:
    """Lists the models that come with the package: what for, how good, under which licence.

    Args:
        json: Print JSON instead of a table.

    Returns:
        A row a model: `name`, `parameters`, `megabytes`, `domain`, `data`, `licence`, `scores`
        (see `headline_scores`), `threshold` and `promise` (the miss rate that it keeps; None where
        it keeps none).
    """
    from hymunet.network.model_file import read_info
    from hymunet.network.promise import promise_of_file

    rows = []
    for name in pretrained_names():
        path, info = WEIGHTS / f"{name}.safetensors", read_info(name)
        training = info.get("training") or {}
        rows.append(
            {
                "name": name,
                "parameters": training.get("parameters"),
                "megabytes": round(path.stat().st_size / 1e6, 2),
                "domain": info.get("domain"),
                "data": training.get("data"),
                "licence": info.get("licence"),
                "scores": headline_scores(info),
                "threshold": info.get("threshold", 0.5),
                "promise": promise_of_file(info),
            }
        )
    if json:
        print(json_library.dumps(rows, indent=2))
    else:
        _print(rows)
    return rows


def headline_scores(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Dice and IoU of the evaluations in a model card: per-image means with their intervals.

    Args:
        info: Metadata of a model file; `card` is what `hymunet.evaluation.card` wrote.

    Returns:
        An entry an evaluation, the card's first one first: `data`, `split`, `n`, `tta`, and `dice`
        and `iou`, each with `mean`, `low` and `high`. Empty without a card.
    """
    scores = []
    for evaluation in (info.get("card") or {}).get("evaluations", []):
        # several structures: the mean over them
        classes = evaluation["classes"]
        means = evaluation.get("mean_of_classes") or next(iter(classes.values()))["per_image"]
        entry = {name: evaluation.get(name) for name in ("data", "split", "n", "tta")}
        scores.append(entry | {name: means[name] for name in ("dice", "iou")})
    return scores


def score_text(score: dict[str, Any], metric: str) -> str:
    """`0.893 (0.881 to 0.905)`, or the mean alone where there is no interval."""
    value = score[metric]
    if value["low"] is None:
        return f"{value['mean']:.4f}"
    return f"{value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def scored_on(score: dict[str, Any]) -> str:
    """`val, 399 cases, test-time augmentation`."""
    words = (
        score["split"],
        f"{plural(score['n'], 'case')}",
        "test-time augmentation" if score["tta"] else "",
    )
    return ", ".join(filter(None, words))


def _print(rows: list[dict[str, Any]]) -> None:
    """A block a model rather than a row: a table of them needs more than 80 columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not rows:
        console.print(f"there are no packaged models in {WEIGHTS}", highlight=False)
        return
    for row in rows:
        parameters = f"{row['parameters'] / 1e6:.2f} M parameters, " if row["parameters"] else ""
        console.print(
            Text(row["name"], style="bold") + Text(f"  {parameters}{row['megabytes']:.1f} MB")
        )
        facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        facts.add_column(no_wrap=True)
        facts.add_column()
        shown = [
            ("for", row["domain"]),
            ("trained on", row["data"]),
            ("licence", row["licence"]),
            ("threshold", row["promise"]),
        ]
        for number, score in enumerate(row["scores"]):
            label = "" if number else "per-image Dice"
            shown.append((label, f"{score_text(score, 'dice')}, {scored_on(score)}"))
        for label, text in shown:
            if text:
                facts.add_row(f"  {label}", Text(text))
        console.print(facts)
        console.print()
    console.print(
        "Research use, not a medical device. hymunet predict PHOTOS/ --model "
        f"{rows[0]['name']} --output masks/; hymunet info {rows[0]['name']} tells more",
        highlight=False,
        soft_wrap=True,
    )
