"""The parts of our network and of its training, taken away or changed one at a time."""

from collections.abc import Sequence
from dataclasses import replace

from hymunet.errors import HyMUNetError
from hymunet.experiments.compare.entrants import Entrant

BASE = Entrant("hymunet", "HyM-UNet as the options say: CCMM, all directions of the scan")

FACTORS: dict[str, tuple[Entrant, ...]] = {
    "skip": (
        Entrant("skip-concat", "skips concatenated, as in U-Net", {"skip": "concat"}),
        Entrant("skip-attention", "additive attention gates on the skips", {"skip": "attention"}),
    ),
    "stages": tuple(
        Entrant(f"stages-{word}", f"{what}: {word}", {"stages": word})
        for word, what in (
            ("CCCC", "convolutions alone"),
            ("CCCM", "Mamba in the deepest stage alone"),
            ("CMMM", "Mamba in three stages"),
            ("MMMM", "Mamba alone"),
        )
    ),
    "loss": (
        Entrant("loss-no-cross-entropy", "without cross-entropy", {"cross_entropy_weight": 0.0}),
        Entrant("loss-no-dice", "without the Dice term", {"dice_weight": 0.0}),
        Entrant("loss-no-boundary", "without the boundary term", {"boundary_weight": 0.0}),
    ),
    "depth": (
        Entrant("depth-1", "one block a stage", sizes={"depths": (1, 1, 1, 1)}),
        Entrant("depth-4", "four blocks a stage", sizes={"depths": (4, 4, 4, 4)}),
    ),
    "directions": (
        Entrant("directions-1", "the scan reads rows forwards only", sizes={"directions": 1}),
        Entrant("directions-2", "the scan reads rows, both ways", sizes={"directions": 2}),
    ),
}


def variants(factors: Sequence[str]) -> list[Entrant]:
    """The base and what is changed in it, by factor.

    Raises:
        HyMUNetError: If there is no such factor, or none is named.
    """
    unknown = [factor for factor in factors if factor not in FACTORS]
    if unknown or not factors:
        raise HyMUNetError(
            f"there is no factor {', '.join(unknown) or '(none was named)'}; expected some of "
            f"{', '.join(FACTORS)}"
        )
    chosen = []
    for factor in dict.fromkeys(factors):
        chosen += [replace(one, factor=factor) for one in FACTORS[factor]]
    return [BASE, *chosen]
