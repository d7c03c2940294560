"""Rules on how much work a training is: batches, patches, passes."""

import math

import numpy as np

from hymunet.training.planning.look import Look
from hymunet.wording import plural

STEPS = 3000  # optimisation steps of a training from scratch when nobody says how long
STEPS_FROM_MODEL = 1000
MANY_CASES, SMALL_SIDE = 500, 160


def batch_size(look: Look) -> tuple[int, str]:
    """Cases or patches a step; what does not fit into memory is halved by whoever measures it."""
    if look.dims == 3:
        return (4, "volumes, on a GPU") if look.on_gpu else (2, "volumes")
    side = look["image_size"]
    if side is not None and side <= SMALL_SIDE and look.training_cases() >= MANY_CASES:
        return 16, f"many pictures of {side} px"
    return 8, "few cases, or large ones: more steps a pass"


def patches(look: Look) -> tuple[int, str]:
    """Of a case, an epoch."""
    patch = look["patch_size"]
    if patch is None:
        return 1, "whole images"
    share = float(np.prod(look.median_size()) / np.prod(patch))
    count = int(min(8, max(1, round(share))))
    return (
        count,
        f"an image holds {share:.1f} windows" if share > 1.05 else "an image holds 1 window",
    )


def epochs(look: Look) -> tuple[int, str]:
    """Passes over the training cases."""
    samples = look.training_cases() * int(look["patches"])
    return passes(samples, int(look["batch_size"]), look.origin is not None)


def passes(samples: int, batch_size: int, from_model: bool) -> tuple[int, str]:
    """As many as make a training of the usual number of steps."""
    wanted = STEPS_FROM_MODEL if from_model else STEPS
    steps = max(1, samples // batch_size)
    count = int(min(500, max(10, math.ceil(wanted / steps))))
    return count, f"{plural(count, 'pass')} of {plural(steps, 'step')}, {count * steps} in all"
