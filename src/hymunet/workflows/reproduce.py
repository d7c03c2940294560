"""`hymunet reproduce`: from raw data to the table of results, by the shipped weights' recipe."""

import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hymunet.wording import plural
from hymunet.workflows.protocols import PROTOCOLS, Protocol, ProtocolName

if TYPE_CHECKING:
    from rich.console import Console

    from hymunet.training.options import TrainOptions

SIZES = ("tiny", "small")
OF_WEIGHTS = "the packaged weights, judged on the validation part that their own file names"


@dataclass
class Reproduction:
    """What `reproduce` measured.

    Args:
        folder: Where everything lies: runs, evaluations, table.md and table.json.
        rows: A row a model, without and with test-time augmentation; see `result_row`.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)


def reproduce(
    dataset: Literal["isic2018"],
    data: Path,
    *,
    model: Literal["tiny", "small", "both"] = "both",
    protocol: ProtocolName = "shipped",
    weights: bool = False,
    output: Path | None = None,
    seed: int = 0,
    epochs: int | None = None,
    json: bool = False,
) -> Reproduction:
    """Repeats the published results: raw data to table in one command.

    Trains by the exact recipe behind the shipped weights, scores the held-out cases without and
    with test-time augmentation, and writes table.md, table.json and a report for each model.
    `--weights` takes the shipped weights and trains nothing: minutes instead of hours. The same
    command goes on where it stopped.

    Protocols: `shipped`, the data's own split (without a split.csv one is drawn 80/20,
    near-duplicates kept together); `dev`, 15 % of the training part held out, where the recipe was
    chosen; `paper`, 7:1:2 at random, as arXiv 2511.17988 may have done; `vm-unet`, 7:3 at random,
    whose papers print pooled values. The last two are for comparison only: their splits put
    near-duplicates on both sides, which flatters.

    Args:
        dataset: Which results; isic2018 is the only one so far.
        data: The challenge's folders (ISIC2018_Task1-2_Training_Input and
            ISIC2018_Task1_Training_GroundTruth inside), images of any size.
        model: Which network; both is one after the other.
        protocol: How cases are divided.
        weights: Judge the weights that come with the package, on the cases they never met.
        output: Folder for runs, reports and the table; default: `runs/reproduce-isic2018-PROTOCOL`.
        seed: Of training and, in `paper` and `vm-unet`, of the split.
        epochs: Other than the recipe's, to see that all works; the table says so.
        json: Print the table as JSON.

    Raises:
        HyMUNetError: If the data cannot be used, or options contradict each other.
    """
    from rich.console import Console

    from hymunet.console import say
    from hymunet.errors import HyMUNetError
    from hymunet.evaluation.evaluate import evaluate
    from hymunet.extras import require
    from hymunet.files import make_folder
    from hymunet.network.pretrained import pretrained_file
    from hymunet.workflows.result_table import print_table, result_row, write_table

    require("train", "reproducing results", "monai", "lightning", "matplotlib", "jinja2")
    if weights and (protocol != "shipped" or epochs is not None or seed):
        raise HyMUNetError(
            "--weights judges the shipped weights on the cases they never met: leave --protocol, "
            "--epochs and --seed out, or leave --weights out to train"
        )
    console = Console(stderr=True)
    data, chosen, started = Path(data), PROTOCOLS[protocol], time.monotonic()
    output = make_folder(Path(output or f"runs/reproduce-{dataset}-{protocol}"))
    result = Reproduction(output)
    about = OF_WEIGHTS if weights else chosen.about
    sizes: tuple[str, ...] = SIZES if model == "both" else (model,)
    if weights and model == "both":
        sizes = tuple(size for size in SIZES if pretrained_file(f"{dataset}-{size}"))
    for size in sizes:
        name = f"{size}-weights" if weights else f"{size}-seed{seed}"
        if weights:
            judged = f"{dataset}-{size}"
            split_file = _split_of_weights(output / f"split-{name}.json", judged)
        else:
            split_file = output / f"split-seed{seed}.json"
            if not split_file.exists():
                _draw(split_file, data, protocol, seed, console)
            judged = str(output / name)
            _train(data, output / name, _options(size, chosen, seed, epochs), split_file)
        for tta in (False, True):
            say(console, f"scoring {judged}{' with test-time augmentation' if tta else ''}")
            with redirect_stdout(sys.stderr):  # the table at the end is the result
                evaluation = evaluate(
                    judged,
                    data,
                    split=chosen.judged,
                    split_file=split_file,
                    tta=tta,
                    output=output / f"evaluation-{name}{'-tta' if tta else ''}",
                )
            result.rows.append(result_row(name, tta, evaluation.summary))
            write_table(output, result.rows, about)
    print_table(result.rows, about, json)
    minutes = (time.monotonic() - started) / 60
    say(console, f"{minutes:.1f} minutes; tables and reports are in {output}")
    return result


def _options(size: str, protocol: Protocol, seed: int, epochs: int | None) -> "TrainOptions":
    from hymunet.workflows.recipes import RECIPES

    recipe = RECIPES[size]
    return replace(recipe, select=protocol.select, seed=seed, epochs=epochs or recipe.epochs)


def _train(data: Path, run: Path, options: "TrainOptions", split_file: Path) -> None:
    from hymunet.training.fit import fit

    fit(data, run, options, split_file=split_file)


def _draw(path: Path, data: Path, protocol: str, seed: int, console: "Console") -> None:
    """Writes the split that the protocol asks for."""
    from rich.progress import track

    from hymunet.console import say
    from hymunet.data.formats import find_dataset
    from hymunet.data.mask_reading import read_mask
    from hymunet.data.splits import save_split
    from hymunet.training.loading import case_groups
    from hymunet.workflows.protocols import protocol_split

    found = find_dataset(data)
    say(console, f"{found.name}: {plural(len(found.cases), 'case')}; drawing the split")
    by_id = {case.id: case for case in found.cases}

    def look_at(ids: Sequence[str]) -> tuple[list[str], list[float]]:
        cases = [by_id[id_] for id_ in ids]
        masks = [case.label for case in cases if case.label is not None]
        shown = track(masks, "reading masks", console=console, transient=True)
        return case_groups(cases), [float((read_mask(mask, 2).labels > 0).mean()) for mask in shown]

    save_split(path, protocol_split(protocol, list(by_id), look_at, found.split, seed))


def _split_of_weights(path: Path, name: str) -> Path:
    """Writes the split that packaged weights were trained by, from their own file: images are
    known by their ids, whatever size they have here."""
    from hymunet.data.splits import PARTS, Split, save_split
    from hymunet.errors import HyMUNetError
    from hymunet.network.model_file import read_info

    cases = read_info(name).get("cases") or {}
    if not isinstance(cases.get("val"), dict):
        raise HyMUNetError(
            f"the packaged weights {name} do not say which cases they were held out from; "
            "evaluate them on a data set of your own: hymunet evaluate"
        )
    train, val, test = (tuple(sorted(cases.get(part) or ())) for part in PARTS)
    save_split(path, Split(train, val, test, notes=(f"of the packaged weights {name}",)))
    return path
