"""Rules on intensities: by what they are scaled, and which are told apart."""

import numpy as np

from hymunet.training.planning.look import Look

CUT_AWAY = 0.25  # share of exact zeros from which a volume's surroundings count as removed


def normalisation(look: Look) -> tuple[str, str]:
    """Policy of `PreprocessConfig`."""
    read = None if look.origin is None else look.origin.preprocess
    if (
        look.origin is not None
        and read is not None
        and (read.normalisation != "dataset" or read.clip is not None)
    ):
        return read.normalisation, f"as {look.origin.name} was trained"
    if look.rows[0].kind == "2-D integer":
        return "dataset", "8- and 16-bit pictures have one scale: the training images' own"
    if is_ct(look):
        return "dataset", "CT numbers mean the same in every image"
    zeros = float(np.median([row.zeros for row in look.rows]))
    if look.dims == 3 and look["resize"] == "window" and zeros > CUT_AWAY:
        return "nonzero", f"{zeros:.0%} of a volume are exactly 0: cut away, not measured"
    return "image", "intensities in arbitrary units: each image by its own mean and deviation"


def intensity_range(look: Look) -> tuple[tuple[float, float] | None, str]:
    """A CT window."""
    if look.origin is not None and look.origin.preprocess is not None:
        return look.origin.preprocess.clip, f"as {look.origin.name} was trained"
    if not is_ct(look):
        return None, "all are told apart"
    inside = [channel for row in look.rows for channel in row.inside]
    if not inside:
        return None, "no structure to take a CT window from"
    low = float(np.percentile([one.low for one in inside], 5))
    high = float(np.percentile([one.high for one in inside], 95))
    return (float(round(low)), float(max(round(high), round(low) + 1))), (
        "CT window: what occurs inside the structures"
    )


def is_ct(look: Look) -> bool:
    """Whether the data say that they are CT; where they say nothing, whether there is air."""
    names = " ".join(look.dataset.channel_names or ()).lower().replace("-", " ").split()
    if names:
        return "ct" in names
    air = np.median([row.image[0].low for row in look.rows])
    return look.dims == 3 and bool(-2100 < air < -500)
