"""Progressive resizing: small images first, full size at the end, for more epochs in the same time.

An image of half the side costs a quarter of the time, and what is coarse can be learnt on it
(Tan & Le 2021, EfficientNetV2, https://arxiv.org/abs/2104.00298).
"""

from dataclasses import replace

from hymunet.data.preprocess import Preprocess
from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions

# fraction of the epochs after which the second and the third (full) size begin
SECOND, THIRD = 0.6, 0.8


class Growth:
    """How training images are prepared in each epoch.

    The first 60 % of the epochs at `grow_from`, the next 20 % halfway, the last 20 % at
    `image_size`; sides are multiples of the network's stride. A function of the epoch alone, so a
    resumed run prepares what an uninterrupted one would.

    Args:
        options: `grow_from` (0: full size throughout) and `epochs`.
        preprocess: At full size.

    Raises:
        HyMUNetError: If volumes, which are used at their native size, are to grow.
    """

    def __init__(self, options: TrainOptions, preprocess: Preprocess) -> None:
        full = preprocess.config.image_size
        self.preprocess = preprocess
        self.sizes: list[tuple[int, Preprocess]] = []
        if options.grow_from and full is None:
            raise HyMUNetError(
                "--grow-from is for pictures; volumes are used at their native size: leave it out"
            )
        if options.grow_from and full is not None:
            multiple = preprocess.config.multiple
            halfway = round((options.grow_from + full[0]) / 2 / multiple) * multiple
            self.sizes = [
                (round(until * options.epochs), self._at(side))
                for until, side in ((SECOND, options.grow_from), (THIRD, halfway))
            ]

    def at(self, epoch: int) -> Preprocess:
        """What prepares the images of `epoch`, counted from 0."""
        for until, preprocess in self.sizes:
            if epoch < until:
                return preprocess
        return self.preprocess

    def _at(self, side: int) -> Preprocess:
        return Preprocess(replace(self.preprocess.config, image_size=(side, side)))
