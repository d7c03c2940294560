"""`hymunet train`: a data set in, a run folder with the best weights and a report out."""

from dataclasses import dataclass
from pathlib import Path

from hymunet.training.options import TrainOptions
from hymunet.training.run_config import PLACES, read_config


@dataclass(frozen=True)
class TrainResult:
    """Where the run is and how good it became.

    Args:
        folder: The run folder.
        model: Its best.safetensors.
        report: Its report.html.
        dice: Per-image mean Dice on the part that was evaluated, on the images' own grid.
    """

    folder: Path
    model: Path
    report: Path
    dice: float


def train(
    data: Path,
    *,
    output: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    options: TrainOptions | None = None,
    config: Path | None = None,
) -> TrainResult:
    """Trains on a data set, evaluates, and writes a report.

    DATA is a folder with images/ and masks/ (paired by file name), an ISIC 2018 folder, or a CSV
    with the columns image and mask. A split.csv (case,split) beside the data is used; else cases
    are split 70/15/15, near-duplicates kept together, lesion sizes balanced. The same command on
    the same output folder resumes where it stopped. `--config run/config.yaml` repeats a run.
    `--init MODEL` starts from a trained model instead of random weights.

    Args:
        data: The data set.
        output: The run folder; default: `runs/<data>-seed<seed>`, with the preset or
            `from-<model>` of --init between where they are given.
        images: Folder of images, when it has no usual name.
        masks: Folder of masks, when it has no usual name.
        split_file: Which case is in which part, instead of the data's own split: a CSV table with
            the columns case and split, or the split.json of another run. Cases that it leaves
            out are not used.
        options: All other settings.
        config: The config.yaml of a run: its values stand behind what is given here.
    """
    from rich.console import Console

    from hymunet.console import say
    from hymunet.extras import require

    require("train", "training", "monai", "lightning", "matplotlib", "jinja2")
    from hymunet.evaluation.evaluate import evaluate
    from hymunet.evaluation.summary import headline_means
    from hymunet.training.fit import fit

    if config is not None:
        values = read_config(Path(config))
        places = {name: values.pop(name, None) for name in PLACES}
        images, masks = images or places["images"], masks or places["masks"]
        split_file = split_file or places["split_file"]
        options = options or TrainOptions(**values)
    options = options or TrainOptions()
    data = Path(data)  # notebooks pass strings
    images, masks, split_file = (
        None if path is None else Path(path) for path in (images, masks, split_file)
    )
    name = data.resolve().stem if data.is_file() else data.resolve().name
    words = (name, options.start, f"seed{options.seed}")
    output = Path(output or f"runs/{'-'.join(filter(None, words))}")
    console = Console(stderr=True)
    finished = fit(data, output, options, images, masks, split_file, console)
    part = "test" if finished.split.test else "val"
    evaluation = evaluate(
        finished.folder.path, data, images=images, masks=masks, split=part, output=output
    )
    say(console, f"model:  {finished.folder.best}")
    say(console, f"report: {output / 'report.html'}")
    dice = headline_means(evaluation.summary)["dice"]["mean"]
    return TrainResult(output, finished.folder.best, output / "report.html", dice)
