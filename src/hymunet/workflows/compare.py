"""`hymunet compare`: several networks on the same footing, and how surely they differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hymunet.experiments.compare.outcome import Comparison
from hymunet.training.options import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hymunet.experiments.compare.entrants import Entrant

_SEVERAL = Parameter(consume_multiple=True)

MODELS = (
    "CCMM",
    "CCCC",
    "MMMM",
    "CCAA",
    "unet",
    "unet-small",
    "attention-unet",
    "unet++",
    "segresnet",
    "unetr",
    "swin-unetr",
)


def compare(
    data: Path,
    *,
    models: Annotated[tuple[str, ...], _SEVERAL] = MODELS,
    seeds: Annotated[tuple[int, ...], _SEVERAL] = (0,),
    output: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    options: TrainOptions | None = None,
    json: bool = False,
) -> Comparison:
    """Trains several networks on the same footing and says how surely they differ.

    All have the same split, preprocessing, augmentation (of equal seeds: the same pictures in the
    same order), loss, optimiser, batch, weight averaging and budget: `--epochs 40`, or `--budget
    12m` for each, measured. They are judged on the test part, on the original pixels, without
    post-processing. The table gives scores with intervals, parameters, multiply-adds, latency and
    memory at batch 1, and training throughput; the first model is the one that the others are
    compared with, case by case.

    Each model by each seed is a run folder in OUTPUT, which `predict` and the rest read if the
    network is ours. The same command goes on where it stopped; models and seeds may be added by
    further calls. A model that fails is recorded with its reason and tried again by the next call.

    Args:
        data: A data set as for `train`.
        models: Four letters of C, M and A, a stage each: CCMM is HyM-UNet, CCCC, MMMM and CCAA
            stand on the same skeleton; tiny, small, base: HyM-UNet of that size; unet, unet-small,
            attention-unet, unet++, segresnet, unetr, swin-unetr: MONAI's; or module:function of
            your own, called with in_channels and num_classes (and spatial_dims, image_size if it
            takes them), which returns an nn.Module with logits of the image's size; an attribute
            `stride` of the function says what sides must be multiples of (else 32).
        seeds: Of the trainings; --seed draws the split.
        output: The folder; default: `runs/<data>-compare`.
        images: Folder of images, when it has no usual name.
        masks: Folder of masks, when it has no usual name.
        split_file: Which case is in which part, as for `train`.
        options: All other settings, the same for each.
        json: Print the figures as JSON instead of a table.

    Returns:
        Figures of all models, and where the report lies.

    Raises:
        HyMUNetError: If data, options or models cannot be used, or no model could be trained.
    """
    from hymunet.extras import require

    require("train", "training", "monai", "lightning", "matplotlib", "jinja2")
    from hymunet.experiments.compare.entrants import find_entrant

    entrants = [find_entrant(word) for word in dict.fromkeys(models)]
    named = {"models": models}
    return run(
        data, entrants, named, seeds, output, "compare", images, masks, split_file, options, json
    )


def run(
    data: Path,
    entrants: "list[Entrant]",
    named: "Mapping[str, Sequence[str]]",
    seeds: tuple[int, ...],
    output: Path | None,
    verb: str,
    images: Path | None,
    masks: Path | None,
    split_file: Path | None,
    options: TrainOptions | None,
    json: bool,
) -> Comparison:
    """What `compare` and `ablate` have in common: settle, train and judge, figures, table, page.

    Args:
        data: As in `compare`, and so are those that are not named here.
        entrants: Who takes part, the one that the others are compared with first.
        named: The option that says who they are, and its words.
        seeds: As in `compare`.
        output: As in `compare`; the default ends in the verb.
        verb: compare or ablate.
        images: As in `compare`.
        masks: As in `compare`.
        split_file: As in `compare`.
        options: As in `compare`.
        json: As in `compare`.
    """
    import time

    from rich.console import Console

    from hymunet.console import say
    from hymunet.errors import HyMUNetError
    from hymunet.evaluation.provenance import command_line
    from hymunet.evaluation.tables import as_json
    from hymunet.experiments.compare.comparison import run_cells, summarise
    from hymunet.experiments.compare.page import write_page
    from hymunet.experiments.compare.settle import settle_all
    from hymunet.experiments.compare.tables import markdown, print_tables
    from hymunet.files import write_text
    from hymunet.training.run_config import changed_options

    started = time.perf_counter()
    if not entrants or not seeds or min(seeds) < 0:
        raise HyMUNetError("at least one model and one seed, 0 or more, are needed")
    data, options = Path(data), options or TrainOptions()
    images, masks, split_file = (
        None if path is None else Path(path) for path in (images, masks, split_file)
    )
    name = data.resolve().stem if data.is_file() else data.resolve().name
    output = Path(output or f"runs/{name}-{verb}")
    console = Console(stderr=True)
    shared = settle_all(output, data, options, entrants, verb, console, images, masks, split_file)
    seeds = tuple(dict.fromkeys(seeds))
    run_cells(shared, entrants, seeds, console)
    words = {
        **named, "seeds": seeds, "images": images, "masks": masks, "split_file": split_file,
        "output": output, **changed_options(options),
    }  # fmt: skip
    asked = {(entrant.name, seed) for entrant in entrants for seed in seeds}
    summary = summarise(shared, asked, command_line(verb, [str(data)], words), started, console)
    title = "Comparison" if verb == "compare" else "Ablation"
    result = Comparison(output, summary, output / "report.html")
    write_text(output / "table.md", markdown(summary, f"{title}: {name}"))
    write_page(result.report, summary, f"{title}: {name}")
    if json:
        print(as_json(summary), end="")
    else:
        print_tables(summary, f"{title}: {name}")
    say(console, f"report: {result.report}")
    return result
