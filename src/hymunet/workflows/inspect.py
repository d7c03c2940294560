"""`hymunet inspect`: what a model sees, lets through and remembers, measured on images."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import SUFFIXES, Image, read_image, stem_of
from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.evaluate import score_case
from hymunet.evaluation.held_out import held_out, image_of, limited, refuse_masks
from hymunet.evaluation.provenance import record
from hymunet.evaluation.seen import known_cases
from hymunet.evaluation.sources import postprocess_notes
from hymunet.evaluation.structures import structures_of_model
from hymunet.evaluation.summary import few_groups_notes, mean_over_classes, summarise
from hymunet.evaluation.truth import Truth, find_cases, read_truth
from hymunet.extras import require
from hymunet.files import make_folder, write_text
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.experiments.inspect.inspector import Inspector
    from hymunet.experiments.inspect.view import Example, View
    from hymunet.inference.predictor import Predictor

FIELD_CASES = {2: 24, 3: 4}  # by dimensions: cases of which gradients are taken
OWN_MASK = (
    "no reference mask: where gates are compared, and sizes, are by the model's own prediction"
)


@dataclass
class Inspection:
    """What was found.

    Args:
        summary: What `inspect.json` holds; see docs/metrics.md.
        notes: What a reader has to know to judge the numbers.
        cases: Rows as `hymunet evaluate` has them; empty for an image without a reference.
        gates: A row a case and gated skip: `hymunet.experiments.inspect.gates.gate_numbers`.
        report: Where the page lies; None when no output folder was given.
        inspector: The maps behind the numbers.
    """

    summary: dict[str, Any]
    notes: list[str]
    cases: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    report: Path | None = None
    inspector: "Inspector | None" = field(default=None, repr=False)


def inspect(
    model: str | Path,
    data: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    limit: int | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    force: bool = False,
    device: str | None = None,
    json: bool = False,
) -> Inspection:
    """Looks inside a model: what it sees, what its skips let through, how far its scans remember.

    Receptive fields against the sizes of structures; the background's energy before and after the
    gates of the skips; the memory of Mamba stages and what a token hears of the others;
    checkerboards in the output; Dice by kind of case. With --output a page with the maps.

    Args:
        model: A model file, a run folder (its best.safetensors) or a packaged model's name.
        data: An image, or a data set in any layout that training takes.
        output: Folder for inspect.html, inspect.json, gates.csv and cases.csv; without it nothing
            is written.
        split: Only this part of the data: train, val or test.
        split_file: Says which case is in which part, as for `evaluate`.
        limit: At most so many cases, evenly spread over the list.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        force: Look at cases the model was trained on as well; the notes say so.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        json: Print the numbers as JSON instead of a table.

    Returns:
        Numbers, notes, rows, and where the page lies.

    Raises:
        HyMUNetError: If model and data do not belong together, or cases were trained on.
    """
    from hymunet.experiments.inspect.inspector import Inspector
    from hymunet.inference.predictor import Predictor
    from hymunet.network.hymunet import HyMUNet
    from hymunet.network.model_file import find_model, model_identity

    started = time.perf_counter()
    if output is not None:
        require("train", "a page (--output)", "matplotlib", "jinja2")
    refuse_masks(str(model), "inspect")
    path = find_model(model)
    predictor = Predictor(path, device=device)
    assert isinstance(predictor.network, HyMUNet)  # a file builds no other
    if output is not None:
        make_folder(Path(output))
    inspector = Inspector(predictor.network)
    data, notes, rows = Path(data), [], []
    scores: dict[str, Any] | None = None
    sources: dict[str, Case] = {}
    if _is_image(data):
        if split or split_file or limit or images or masks or force:
            raise HyMUNetError(
                f"{data} is one image; --split, --split-file, --limit, --images, --masks and "
                "--force choose among the cases of a data set: leave them out"
            )
        name, groups = "one image", 1
        example = _unlabelled(data, predictor)
        inspector.add(example.view, example.case, None, True)
        notes = [OWN_MASK]
        if example.truth.image is not None:
            notes += example.truth.image.notes
        if known_cases(predictor.info).part_of(example.truth.image) == "train":
            notes.append("the model was trained on this image")
        examples = [example]
    else:
        dataset, cases, notes = find_cases(data, str(model), split, images, masks, split_file)
        cases, limit_notes = limited(cases, limit)
        nested = predictor.config.activation == "sigmoid" and len(predictor.classes) > 1
        structures = structures_of_model(predictor.classes, nested, dataset)
        known = known_cases(predictor.info)
        deep = _evenly(len(cases), FIELD_CASES[predictor.config.spatial_dims])
        seen: dict[str, str] = {}
        channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
        walk = held_out(
            cases,
            channels,
            num_labels,
            known,
            seen,
            force,
            f"looking at {plural(len(cases), 'case')}",
        )
        for index, (case, truth) in enumerate(walk):
            predicted = predictor(image_of(case, truth)).mask
            rows += score_case(
                case, truth, predicted, predictor.classes, seen[case.id], nested,
                structures.regions,
            )  # fmt: skip
            inspector.add(_view(truth, predictor), case.id, case.group, index in deep)
        name, sources = dataset.name, {case.id: case for case in cases}
        median = (predictor.info.get("training") or {}).get("contrast_median")
        scores, score_notes = summarise(rows, median, known.val_chose)
        groups = scores["groups"]
        notes = [*notes, *limit_notes, *structures.notes, *known.notes(seen), *score_notes]
        if len(deep) < len(cases):
            notes.append(
                f"fields, influence and memory are of {len(deep)} cases, evenly spread over the "
                "list; everything else is of all"
            )
        examples = list(_examples(rows, sources, predictor)) if output is not None else []
    inspector.add_noise()
    notes = [*notes, *predictor.notes, *postprocess_notes(predictor), *_notes(inspector)]
    options: dict[str, str | Path | int | None] = {
        "images": images, "masks": masks, "split": split, "split_file": split_file,
        "limit": limit, "force": force, "device": device, "output": output,
    }  # fmt: skip
    summary = {
        "prediction": str(path),
        "truth": str(data),
        "data": name,
        "split": split,
        "n": len(inspector.groups),
        "groups": groups,
        "interval": "95 % bootstrap over groups",
        "model": model_identity(path),
        **inspector.summary(),
        "scores": scores,
        "made": record(str(model), data, options, time.perf_counter() - started, "inspect"),
    }
    if scores is None:
        notes += few_groups_notes(groups)
    result = Inspection(summary, notes, rows, inspector.gate_rows, None, inspector)
    if output is not None:
        _write(Path(output), result, predictor, examples)
    if json:
        print(as_json(result), end="")
    else:
        from hymunet.experiments.inspect.terminal import print_table

        print_table(result.summary, result.notes, result.report)
    return result


def as_json(result: Inspection) -> str:
    """The numbers and the notes as JSON."""
    return tables.as_json(result.summary | {"notes": result.notes})


def _is_image(data: Path) -> bool:
    """Whether it is a picture or a volume itself, not a table or a folder of cases."""
    return data.is_file() and data.name.lower().endswith(SUFFIXES)


def _unlabelled(path: Path, predictor: "Predictor") -> "Example":
    image = read_image(path, predictor.config.in_channels)
    mask = predictor(image).mask
    return _example(
        stem_of(path), Truth(image, mask, None, image.spacing_mm), mask, None, predictor
    )


def _example(
    case: str, truth: Truth, predicted: np.ndarray, dice: float | None, predictor: "Predictor"
) -> "Example":
    from hymunet.experiments.inspect.view import Example

    return Example(case, truth, predicted, dice, _view(truth, predictor))


def _view(truth: Truth, predictor: "Predictor") -> "View":
    from hymunet.experiments.inspect.view import view_of

    assert isinstance(truth.image, Image)  # `held_out` and `image_of` have seen to it
    preprocess = predictor.members[0].preprocess
    labels = predictor.config.num_labels
    return view_of(truth.image, truth.labels, truth.valid, preprocess, labels, predictor.device)


def _evenly(count: int, most: int) -> set[int]:
    return set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())


def _examples(
    rows: list[dict[str, Any]], sources: Mapping[str, Case], predictor: "Predictor"
) -> "Iterator[Example]":
    """The cases of best, median and lowest Dice, read and predicted again."""
    ranked = sorted(mean_over_classes(rows, "dice"), key=lambda row: -row["dice"])
    places = dict.fromkeys([len(ranked) // 2, 0, len(ranked) - 1])
    for row in (ranked[place] for place in places):
        case = sources[row["case"]]
        truth = read_truth(case, predictor.config.in_channels, predictor.config.num_labels)
        predicted = predictor(image_of(case, truth)).mask
        yield _example(case.id, truth, predicted, row["dice"], predictor)


def _notes(inspector: "Inspector") -> list[str]:
    config, notes = inspector.config, []
    if config.skip == "concat":
        notes.append("the skips concatenate: there is no gate to look at")
    elif lost := len(inspector.groups) - len({row["case"] for row in inspector.gate_rows}):
        notes.append(
            f"{plural(lost, 'case holds', 'cases hold')} no structure or no background: gates were "
            "not compared"
        )
    if config.conv_norm != "batch":
        notes.append(
            f"{config.conv_norm} norms take statistics of the whole image, so a little of every "
            "field lies beyond the theoretical one"
        )
    return notes


def _write(
    folder: Path, result: Inspection, predictor: "Predictor", examples: "list[Example]"
) -> None:
    # the page is the only user of jinja2 and matplotlib here: loaded when it is wanted
    from hymunet.experiments.inspect.page import write_page

    if result.cases:
        write_text(folder / "cases.csv", tables.as_csv(result.cases))
    if result.gates:
        write_text(folder / "gates.csv", tables.as_csv(result.gates))
    write_text(folder / "inspect.json", as_json(result))
    result.report = folder / "inspect.html"
    assert result.inspector is not None
    write_page(result.report, result.summary, result.notes, result.inspector, examples)
