"""`hymunet ablate`: what each part of the network and of its training is worth."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hymunet.experiments.compare.outcome import Comparison
from hymunet.training.options import TrainOptions

_SEVERAL = Parameter(consume_multiple=True)
Factor = Literal["skip", "stages", "loss", "depth", "directions"]


def ablate(
    data: Path,
    *,
    factors: Annotated[tuple[Factor, ...], _SEVERAL] = ("skip", "stages"),
    seeds: Annotated[tuple[int, ...], _SEVERAL] = (0, 1, 2),
    output: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    options: TrainOptions | None = None,
    json: bool = False,
) -> Comparison:
    """Takes parts of the network and of its training away, one at a time, and measures the effect.

    Each variant differs from HyM-UNet in one thing and is trained and judged like it, as `compare`
    does. The effect is the difference of scores on the same cases, with its interval and a
    corrected p: an interval that holds 0 says that nothing was shown, not that there is nothing.

    Args:
        data: A data set as for `train`.
        factors: skip (concat, attention instead of mgf), stages (CCCC, CCCM, CMMM, MMMM), loss
            (without cross-entropy, Dice, boundary term), depth (1, 4 blocks a stage), directions
            (1, 2 orders of the scan instead of all).
        seeds: Of the trainings; --seed draws the split.
        output: The folder; default: `runs/<data>-ablate`. Factors and seeds may be added.
        images: Folder of images, when it has no usual name.
        masks: Folder of masks, when it has no usual name.
        split_file: Which case is in which part, as for `train`.
        options: All other settings, the same for each.
        json: Print the figures as JSON instead of a table.

    Returns:
        Figures of all variants, and where the report lies.

    Raises:
        HyMUNetError: As `compare`.
    """
    from hymunet.extras import require

    require("train", "training", "monai", "lightning", "matplotlib", "jinja2")
    from hymunet.experiments.compare.ablations import variants
    from hymunet.workflows.compare import run

    chosen, named = variants(factors), {"factors": factors}
    return run(
        data, chosen, named, seeds, output, "ablate", images, masks, split_file, options, json
    )
