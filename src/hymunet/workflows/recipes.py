"""The recipes behind the shipped weights; docs/experiments/isic2018.md says how they were found.

Imports nothing heavy, so that `hymunet reproduce --help` answers at once.
"""

from dataclasses import replace

from hymunet.training.options import TrainOptions

_TINY = TrainOptions(
    preset="tiny",
    image_size=128,
    batch_size=16,
    learning_rate=2e-3,
    epochs=40,
    precision="bfloat16",
    select="last",
    hairs=0.2,
    jpeg=0.15,
    workers=0,
)

RECIPES: dict[str, TrainOptions] = {
    "tiny": _TINY,
    "small": replace(_TINY, preset="small", learning_rate=1e-3, drop_path=0.2),
}
