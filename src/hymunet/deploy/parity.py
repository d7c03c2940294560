"""Whether an exported file says what the model says, and what fewer bits cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hymunet.data.image_io import Image
from hymunet.errors import HyMUNetError
from hymunet.inference.onnx_runtime import ExportedNetwork
from hymunet.inference.predictor import Predictor
from hymunet.metrics.overlap import count, dice
from hymunet.wording import plural

# share of all pixels in which the masks of file and model may differ
MOST_DIFFERING = 1e-4
# spatial dimensions -> drawn images that a file is checked on where no data are given
DRAWN = {2: 16, 3: 4}
# sides of drawn pictures: smaller and larger than a network's input, odd, and of every shape
_SIZES = ((96, 128), (151, 113), (256, 256), (64, 203), (333, 250), (480, 640))
_VOLUMES = ((24, 20, 28), (17, 33, 21))


@dataclass
class Agreement:
    """Masks of file and model, image by image.

    Args:
        data: What the images are.
        images: How many.
        pixels: Of all of them.
        differing: Pixels in which the masks differ.
        largest: The largest difference of a probability.
        same: Dice of the file's structures against the model's, a mean an image.
        file: Dice of the file's structures against the reference, a mean an image; empty where
            there is none.
        model: The same of the model.
    """

    data: str
    images: int = 0
    pixels: int = 0
    differing: int = 0
    largest: float = 0.0
    same: list[float] = field(default_factory=list)
    file: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """How much Dice the file loses: against the reference; without one, 1 - Dice of its masks
        against the model's."""
        if self.model:
            return float(np.mean(self.model) - np.mean(self.file))
        return 1.0 - float(np.mean(self.same)) if self.same else 0.0

    def describe(self) -> str:
        """One line with the numbers."""
        agree = 100 * (1 - self.differing / max(1, self.pixels))
        text = f"{plural(self.images, 'image')} ({self.data}): masks agree in {agree:.4f} % of "
        text += f"{self.pixels:,} pixels, probabilities within {self.largest:.1e}; Dice "
        if self.model:
            text += f"{np.mean(self.file):.4f} against the reference, the model's "
            return text + f"{np.mean(self.model):.4f} (change {0.0 - round(self.loss, 4):+.4f})"
        return text + f"{np.mean(self.same):.5f} between the masks"

    def to_dict(self) -> dict[str, Any]:
        """For the file's metadata."""
        numbers = {
            "data": self.data,
            "images": self.images,
            "pixels": self.pixels,
            "differing": self.differing,
            "largest_difference": self.largest,
            "dice_between": round(float(np.mean(self.same)), 6),
        }
        if self.model:
            numbers["dice"] = round(float(np.mean(self.file)), 6)
            numbers["dice_of_model"] = round(float(np.mean(self.model)), 6)
        return numbers


Sample = tuple[Image, np.ndarray | None]


def compare(
    model: Predictor,
    file: Predictor,
    samples: Iterator[Sample],
    data: str,
    done: Callable[[], None],
) -> Agreement:
    """Both predictors on the same images; masks as the network cuts them, without post-processing,
    which would hide differences or enlarge them."""
    found = Agreement(data)
    nested = model.config.activation == "sigmoid"
    for image, truth in samples:
        expected = model(image)
        probability, mask = seen_by(file, image)
        found.images += 1
        found.pixels += mask.size
        found.differing += int((expected.mask != mask).sum())
        apart = np.abs(expected.probability - probability).max()
        found.largest = max(found.largest, float(apart))
        found.same.append(_mean_dice(mask, expected.mask, model.config.num_labels, nested))
        if truth is not None:
            for scores, of in ((found.file, mask), (found.model, expected.mask)):
                scores.append(_mean_dice(of, truth, model.config.num_labels, nested))
        done()
    return found


def seen_by(file: Predictor, image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Probability (structures, *spatial), and the file's own mask as class indices where it makes
    one, else the one that `Predictor` cuts."""
    network = file.members[0].network
    if not (isinstance(network, ExportedNetwork) and network.takes_pictures):
        prediction = file(image)
        return prediction.probability, prediction.mask
    if image.pixels.dtype != np.uint8:
        raise HyMUNetError(
            "the file is compared on pictures of 8 bits, which it is made for, and one of "
            f"{image.pixels.dtype} is among them; leave it out of --check"
        )
    fed = np.ascontiguousarray(np.moveaxis(image.pixels, 0, -1))[None]
    probability, stored = network.run(fed)
    index = np.full(256, 255, np.uint8)  # a value that is none of them agrees with nothing
    index[network.info["mask_values"]] = np.arange(network.config.num_labels)
    return probability[0], index[stored[0]]


def _mean_dice(mask: np.ndarray, truth: np.ndarray, num_labels: int, nested: bool) -> float:
    scores = []
    for k in range(1, num_labels):
        one, other = (mask >= k, truth >= k) if nested else (mask == k, truth == k)
        scores.append(dice(count(one, other)))
    return float(np.mean(scores))


def drawn(predictor: Predictor, images: int) -> Iterator[Sample]:
    """Drawn images of the model's channels, of several sizes; without a reference, since no model
    is made for them."""
    from hymunet.data.phantoms import draw_lesion, draw_volume

    config = predictor.config
    preprocess = predictor.members[0].preprocess.config
    for seed in range(images):
        if config.spatial_dims == 2:
            pixels = draw_lesion(seed, _SIZES[seed % len(_SIZES)]).image
            repeats = -(-config.in_channels // len(pixels))
            pixels = np.concatenate([pixels] * repeats)[: config.in_channels]
            if preprocess.clip is not None or max(map(abs, preprocess.mean)) > 1:
                low, high = preprocess.clip or (0.0, 2 * max(preprocess.mean))
                pixels = (low + (high - low) * pixels / 255.0).astype(np.float32)
        else:
            size = _VOLUMES[seed % len(_VOLUMES)]
            pixels = draw_volume(seed, size, config.in_channels, 2)[0].astype(np.float32)
        yield Image(pixels, preprocess.spacing_mm, None, ()), None


def read(data: Path, limit: int) -> tuple[Sequence[Any], str]:
    """Up to `limit` cases of a data set, evenly spread over the held-out parts where its split
    names them.

    Raises:
        HyMUNetError: If there is no data set, or it has no cases.
    """
    from hymunet.data.formats import find_dataset

    dataset = find_dataset(data)
    cases = list(dataset.cases)
    split = dataset.split or {}
    held_out = [case for case in cases if split.get(case.id) in ("val", "test")]
    cases = held_out or cases
    if not cases:
        raise HyMUNetError(f"{data} holds no cases to check the file on; give another --check")
    picked = [
        cases[i * len(cases) // min(limit, len(cases))] for i in range(min(limit, len(cases)))
    ]
    what = "held out by its split" if held_out else "no split"
    return picked, f"{dataset.name}, {what}"


def samples_of(cases: Sequence[Any], predictor: Predictor) -> Iterator[Sample]:
    """Image and reference of each case."""
    from hymunet.data.case_io import read_case

    for case in cases:
        image, mask, _ = read_case(case, predictor.config.in_channels, predictor.config.num_labels)
        yield image, mask.labels
