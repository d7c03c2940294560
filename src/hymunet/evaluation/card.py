"""`hymunet card`: what a model is, may be used for, can do and cannot, as Markdown.

Every figure comes from the model file and from result files; nothing is written by hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.evaluation.card_numbers import card_numbers, check_model, read_results
from hymunet.evaluation.card_results import known_failures, results
from hymunet.files import write_text
from hymunet.inference.describe import forbids_commerce
from hymunet.network.hub import model_name
from hymunet.network.pretrained import headline_scores, score_text
from hymunet.network.promise import described_threshold, postprocess_text
from hymunet.wording import plural


def card(
    model: Path,
    *evaluations: Path,
    robustness: Path | None = None,
    calibration: Path | None = None,
    output: Path | None = None,
    write: bool = False,
) -> str:
    """Writes a model's card: data, licence, recipe, scores with intervals, known failures.

    Without EVALUATIONS the card is made of the figures that the model file holds.

    Args:
        model: A model file, a run folder or a packaged model's name.
        evaluations: Folders that `hymunet evaluate --output` wrote (or their metrics.json), the
            most important first.
        robustness: Folder that `hymunet robustness --output` wrote, or its robustness.json.
        calibration: Folder that `hymunet calibrate --output` wrote, or its calibration.json.
        output: The Markdown file; without it the card is printed.
        write: Put the figures into the model file too, beside the weights.

    Returns:
        The Markdown text.

    Raises:
        HyMUNetError: If a result file is missing or was measured with another model.
    """
    from rich.console import Console

    from hymunet.console import say
    from hymunet.network.model_file import find_model, model_identity, read_info, replace_info

    path, info = find_model(model), read_info(model)
    name = model_name(path)
    console = Console(stderr=True)
    if (robustness or calibration or write) and not evaluations:
        raise HyMUNetError(
            "a card's figures begin with an evaluation: give the folder that `hymunet evaluate "
            f"{model} DATA --output FOLDER` wrote"
        )
    if evaluations:
        tables = [(one, read_results(one, "metrics.json", "evaluate")) for one in evaluations]
        others: dict[str, dict[str, Any] | None] = {"robustness": None, "calibration": None}
        for kind, verb, given in (
            ("robustness", "robustness", robustness),
            ("calibration", "calibrate", calibration),
        ):
            if given is not None:
                others[kind] = read_results(given, f"{kind}.json", verb)
                tables.append((given, others[kind] or {}))
        identity = model_identity(path)
        for where, content in tables:
            if note := check_model(content, str(where), identity):
                say(console, f"note: {note}")
        measured = [content for _, content in tables[: len(evaluations)]]
        info["card"] = card_numbers(measured, name=name, **others)
    if write:
        replace_info(path, info)
        say(console, f"figures written into {path}")
    text = model_card(name, info, path.stat().st_size)
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
        say(console, f"card: {output}")
    return text


def model_card(name: str, info: Mapping[str, Any], size_bytes: int) -> str:
    """The card as Markdown.

    Args:
        name: What the model is called.
        info: The model file's metadata; `card` holds its figures (`card_numbers`).
        size_bytes: Of the file.
    """
    numbers = info.get("card") or {"evaluations": []}
    lines = [f"# {name}", "", *_summary(info), "", *_table(_facts(info, size_bytes)), ""]
    lines += ["## Data and licence", "", *_data(info), ""]
    lines += ["## Recipe", "", *_recipe(info), ""]
    lines += [*results(numbers), ""]
    lines += ["## Known failures", "", *known_failures(numbers), ""]
    lines += ["## How to repeat it", "", *_repeat(info, numbers), ""]
    lines += ["## Not a medical device", "", *_device(info)]
    return "\n".join(lines) + "\n"


def _summary(info: Mapping[str, Any]) -> list[str]:
    domain = info.get("domain") or "what it is for is not stated in its file"
    return [f"A HyM-UNet model. Domain: {domain}.", "", f"**{_use(info)}.**"]


def _use(info: Mapping[str, Any]) -> str:
    text = info.get("not_a_medical_device")
    text = text if isinstance(text, str) else "research use only; not a medical device"
    return text[:1].upper() + text[1:]


def _facts(info: Mapping[str, Any], size_bytes: int) -> list[tuple[str, str]]:
    sizes, training = info["architecture"], info.get("training") or {}
    preprocess = info.get("preprocess") or {}
    network = f"stages {sizes.get('stages')}, channels {_listed(sizes.get('dims', []))}, "
    network += f"blocks {_listed(sizes.get('depths', []))}, skips {sizes.get('skip')}"
    if parameters := training.get("parameters"):
        network = f"{parameters:,} parameters; {network}"
    seen = " x ".join(map(str, preprocess.get("image_size") or ())) or "any size"
    size = f"{size_bytes / 1e6:.2f} MB"
    facts = [("network", network), ("file", size)]
    if preprocess:
        facts.append(("the network sees", f"{seen} px ({preprocess.get('resize')}); masks come "
                      "back at the image's own size"))  # fmt: skip
        facts.append(("intensities", f"{preprocess.get('normalisation')}: mean "
                      f"{_listed(preprocess.get('mean', []))}, standard deviation "
                      f"{_listed(preprocess.get('std', []))}"))  # fmt: skip
    facts.append(("finds", _listed(info.get("classes") or [])))
    threshold = described_threshold(info)
    if chose := info.get("calibration"):
        part = f", part {chose['split']}" if chose.get("split") else ""
        threshold += (
            f", best for {chose['metric']} on {plural(chose['n'], 'case')} of {chose['data']}{part}"
        )
    several = sizes.get("activation") == "softmax"
    facts.append(("cut at", "the most probable class" if several else threshold))
    if done := postprocess_text(info.get("postprocess")):
        facts.append(("post-processing", done))
    for score in headline_scores(dict(info))[:1]:
        facts += [(f"per-image {label}", f"{score_text(score, key)}, see A below")
                  for label, key in (("Dice", "dice"), ("IoU", "iou"))]  # fmt: skip
    return facts


def _data(info: Mapping[str, Any]) -> Iterator[str]:
    training, licence = info.get("training") or {}, info.get("licence")
    counts = {part: len(cases) for part, cases in (info.get("cases") or {}).items()}
    yield (
        f"Trained on {counts.get('train', 'an unknown number of')} cases of "
        f"{training.get('data', 'data that the file does not name')}; "
        f"{plural(counts.get('val', 0), 'case')} validated, "
        f"{plural(counts.get('test', 0), 'was', 'were')} held out. SHA-256 of the split: "
        f"`{training.get('split_sha256', 'not stated')}`. The file holds a fingerprint of every "
        "case, and `hymunet evaluate` refuses those that were trained on."
    )
    if start := training.get("init"):
        yield from ("", f"Its training started from {start['name']} ({start.get('cases')} cases of "
                    f"{start.get('data')}, licence {start.get('licence')}).")  # fmt: skip
    yield ""
    url = f" ({info['licence_url']})" if info.get("licence_url") else ""
    if licence is None:
        yield "Licence of the weights: not stated; that of the training data applies."
    elif forbids_commerce(licence):
        yield (
            f"Licence of the weights: **{licence}**{url}, which is that of the images they were "
            "trained on. Research and teaching are allowed where they are not commercial, with "
            "attribution; commercial use is not. The software is under Apache-2.0."
        )
    else:
        yield f"Licence of the weights: **{licence}**{url}. The software is under Apache-2.0."
    if sources := info.get("sources"):
        yield from ("", "To cite the data:", "", *(f"- {source}" for source in sources))


def _recipe(info: Mapping[str, Any]) -> Iterator[str]:
    training = info.get("training") or {}
    machine, seconds = training.get("machine") or {}, training.get("training_seconds")
    where = ", ".join(f"{machine[key]}" for key in ("device", "system") if machine.get(key))
    if machine.get("threads"):
        where += f", {machine['threads']} threads"
    words = [f"{seconds / 60:.1f} minutes of training" if seconds is not None else ""]
    words += [plural(training["epochs"], "epoch") if "epochs" in training else "", where]
    words += [f"{name} {version}" for name, version in (info.get("versions") or {}).items()]
    yield (", ".join(filter(None, words)) or "Machine and duration are not stated") + "."
    if options := training.get("options"):
        import yaml

        text = yaml.safe_dump(dict(options), sort_keys=True).rstrip()
        yield from ("", "```yaml", *text.splitlines(), "```")


def _repeat(info: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[str]:
    commands = []
    if info.get("reproduce"):
        commands += ["# training, evaluation and the table in one", info["reproduce"]]
    elif (info.get("training") or {}).get("options"):
        commands += ["# recipe.yaml: the recipe above",
                     "hymunet train DATA --config recipe.yaml --output RUN"]  # fmt: skip
    measured = [*numbers["evaluations"], numbers.get("robustness"), numbers.get("calibration")]
    for entry in filter(None, measured):
        if command := entry.get("command"):
            folder = f"DATA is {entry['folder']}" if entry.get("folder") else ""
            seconds = f"{entry['seconds']:g} s" if "seconds" in entry else ""
            told = (entry.get("date"), seconds, entry.get("machine"), folder)
            commands += [f"# {', '.join(filter(None, told))}", command]
    yield from (("```", *commands, "```") if commands else ("The file does not say.",))


def _device(info: Mapping[str, Any]) -> list[str]:
    return [
        f"{_use(info)}. It was trained and measured on the data named above; on other cameras, "
        "clinics, skin or diseases it may fail without a sign, and its scores say nothing of that."
    ]


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {label} | {text} |" for label, text in rows)]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
