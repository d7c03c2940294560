"""`hymunet train`: a data set in, a run folder with the best weights and a report out."""

from dataclasses import dataclass
from pathlib import Path

from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions
from hymunet.training.run_config import PLACES, read_options


@dataclass(frozen=True)
class TrainResult:
    """Where the run is and how good it became.

    Args:
        folder: The run folder.
        model: Its best.safetensors; of a cross-validation the folder, whose folds predict together.
        report: Its report.html.
        dice: Per-image mean Dice on the part that was evaluated, on the images' own grid; of a
            process of torchrun or srun that is not the first, the best epoch's in validation.
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
    folds: int | None = None,
    fold: int | None = None,
) -> TrainResult:
    """Trains on a data set, evaluates, and writes a report.

    DATA is a folder with images/ and masks/ (paired by file name), a CSV with the columns image and
    mask, or a data set of ISIC 2018, the Medical Segmentation Decathlon, nnU-Net, BraTS or DRIVE as
    it was unpacked; pictures or volumes. What no option says is decided from the data (`hymunet
    plan` shows how). A split.csv (case,split) beside the data is used; else cases are split
    70/15/15, near-duplicates and patients kept together, lesion sizes balanced. The same command
    on the same output folder resumes where it stopped. `--config run/config.yaml` repeats a run.
    `--init MODEL` starts from a trained model instead of random weights.

    `--folds 5` cross-validates: five networks in OUTPUT/fold-0 to fold-4, each case scored by the
    one that did not see it. A test part that the data or the split file name is left untouched.

    `--devices 4` trains by four processes on this machine; docs/cluster-training.md has torchrun
    and SLURM.

    Args:
        data: The data set.
        output: The run folder; default: `runs/<data>-seed<seed>`, with the preset or
            `from-<model>` of --init between where they are given, and with `-folds<folds>` behind
            it with --folds.
        images: Folder of images, when it has no usual name.
        masks: Folder of masks, when it has no usual name.
        split_file: Which case is in which part, instead of the data's own split: a CSV table with
            the columns case and split, or the split.json of another run. Cases that it leaves
            out are not used.
        options: All other settings.
        config: The config.yaml of a run: its values stand behind what is given here.
        folds: Cross-validate in so many folds, instead of training one network.
        fold: Of --folds, train this one only (0 is the first), for machines side by side; the
            command without it completes and joins them.
    """
    from rich.console import Console

    from hymunet.console import say
    from hymunet.extras import require

    require("train", "training", "monai", "lightning", "matplotlib", "jinja2", "filelock")
    from hymunet.evaluation.evaluate import evaluate
    from hymunet.evaluation.summary import headline_means
    from hymunet.training.fit import fit
    from hymunet.workflows.after_training import choose_after_training

    if config is not None:
        values = read_options(Path(config))
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
    last = None if folds is None else f"folds{folds}"
    words = (name, options.start, f"seed{options.seed}", last)
    output = Path(output or f"runs/{'-'.join(filter(None, words))}")
    console = Console(stderr=True)
    from hymunet.training.ranks import started_ranks

    ranks = started_ranks(options)
    if folds is not None or fold is not None:
        if ranks is not None:
            raise HyMUNetError(
                "--folds is not for processes that torchrun or srun has started: start one command "
                "a fold (--folds 5 --fold 0), each on one machine with its --devices"
            )
        from hymunet.workflows.cross_validation import cross_validate

        return cross_validate(
            data, output, options, folds, fold, images, masks, split_file, console
        )
    finished = fit(data, output, options, images, masks, split_file, console)
    if ranks is not None and not ranks.first:  # the first process judges
        folder = finished.folder
        return TrainResult(output, folder.best, output / "report.html", finished.best_dice)
    choose_after_training(finished, options, console)
    part = "test" if finished.split.test else "val"
    evaluation = evaluate(
        finished.folder.path,
        data,
        images=images,
        masks=masks,
        split=part,
        output=output,
        groups=options.groups,
    )
    say(console, f"model:  {finished.folder.best}")
    say(console, f"report: {output / 'report.html'}")
    dice = headline_means(evaluation.summary)["dice"]["mean"]
    return TrainResult(output, finished.folder.best, output / "report.html", dice)
