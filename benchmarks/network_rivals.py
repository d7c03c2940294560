"""The networks that the presets are timed against, by the names of the tables.

`U-Net` is the yardstick of the budgets; the others show where the presets stand among what people
use. Each takes 3 channels and gives 1 logit a pixel, in 2-D;
`hymunet.experiments.compare.rivals` builds them.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from hymunet.experiments.compare.rivals import attention_unet, segresnet, swin_unetr, unet

YARDSTICK, SWIN = "U-Net", "SwinUNETR"

RIVALS: dict[str, Callable[[], nn.Module]] = {
    YARDSTICK: partial(unet, 3, 1),
    "AttentionUnet": partial(attention_unet, 3, 1),
    "SegResNet": partial(segresnet, 3, 1),
    SWIN: partial(swin_unetr, 3, 1),
}
