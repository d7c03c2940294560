"""From a model file, or several, and an image to a mask at the image's own size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hymunet.data.image_io import Image, read_image
from hymunet.data.label_scheme import unnamed
from hymunet.errors import HyMUNetError, NonFiniteError
from hymunet.inference.augmented import mean_over_symmetries
from hymunet.inference.ensemble import Member, Shares, check_alike, joined_info, load_members
from hymunet.inference.measurements import measure
from hymunet.inference.onnx_runtime import ExportedNetwork
from hymunet.inference.postprocess import Postprocess
from hymunet.inference.sliding_window import sliding_window
from hymunet.network.segmenter import Segmenter
from hymunet.wording import plural

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@dataclass(frozen=True, repr=False)
class Prediction:
    """What the network says of one image, on the image's own grid; in a notebook it shows itself.

    Args:
        mask: Class indices (*spatial) uint8; 0 is the background.
        probability: (num_classes, *spatial) float32.
        spacing_mm: Of the input, None when unknown.
        measurements: A row a class, as `hymunet.inference.measurements.measure` returns.
        notes: What was understood or converted while reading the input.
        image: The decoded input.
        nested: Whether a structure holds those of higher index (sigmoid).
    """

    mask: np.ndarray
    probability: np.ndarray
    spacing_mm: tuple[float, ...] | None
    measurements: list[dict[str, Any]]
    notes: tuple[str, ...]
    image: Image
    nested: bool = False

    @property
    def contours(self) -> list[dict[str, Any]]:
        """A row a class: `class`, and `rings` of [x, y] along the edges of its pixels, holes
        included, to be filled by the even-odd rule; see `hymunet.inference.contours`.

        Raises:
            HyMUNetError: If the image is a volume.
        """
        from hymunet.inference.contours import class_contours

        if self.mask.ndim != 2:
            raise HyMUNetError(
                f"contours are those of pictures, and this is a volume of {self.mask.shape}; take "
                "them of a slice: hymunet.inference.contours.rings(prediction.mask[z] == 1)"
            )
        classes = [row["class"] for row in self.measurements]
        return class_contours(self.mask, classes, self.nested)

    def overlay(self, index: int | None = None) -> "Picture":
        """The image with outlines, a Pillow picture, which a notebook shows and `.save()` writes.

        Args:
            index: Slice of a volume; None: the one that holds most of what was found.
        """
        from hymunet.inference.shown import overlay_picture

        return overlay_picture(self, index)

    def __repr__(self) -> str:
        from hymunet.inference.shown import in_words

        return in_words(self)

    def _repr_html_(self) -> str:
        from hymunet.inference.shown import as_html

        return as_html(self)


class Predictor:
    """A model ready to be applied: `Predictor("best.safetensors")("photo.jpg").mask`.

    Of several models it is the mean of their probabilities, on the image's own grid; each
    preprocesses as its file says. `info` then holds what `ensemble.joined_info` says of them
    together, and `notes` what a user has to know.

    Args:
        model: A model file, a run folder (its best.safetensors), the name of a packaged model
            (`hymunet.pretrained_names()`), or a network (then `info` should hold its
            preprocessing); a folder of folds (`train --folds`), which is all of its models; or a
            sequence of these.
        device: `cpu`, `cuda`, ...; None takes CUDA when there is one.
        threshold: Probability from which a pixel belongs to a structure (sigmoid models); None
            takes the model file's, or 0.5; of several models their common one, else the mean.
        info: Metadata for a network that does not come from a file; the same for each of several.
        tta: Test-time augmentation: the mean over mirrorings and quarter turns, 8 times the work.
        postprocess: Whether masks are cleaned up as the model file says; see `Postprocess`.
        runtime: `torch`, or `onnx` for the ONNX file that `hymunet export` has written beside a
            model file; None runs each file by what it is made for.

    Raises:
        HyMUNetError: If the model or the device cannot be used, the threshold is not in (0, 1),
            the metadata do not fit the network, or several models differ in what their
            probabilities mean.
    """

    def __init__(
        self,
        model: str | Path | Segmenter | Sequence[str | Path | Segmenter],
        device: str | None = None,
        threshold: float | None = None,
        info: dict[str, Any] | None = None,
        tta: bool = False,
        postprocess: bool = True,
        runtime: str | None = None,
    ) -> None:
        self.tta = tta
        # onnxruntime is another installation for a GPU: it is asked for by name
        self.device = find_device(
            "cpu" if device is None and _wants_onnx(model, runtime) else device
        )
        self.members = load_members(model, info or {}, self.device, runtime)
        check_alike(self.members)
        self.notes: tuple[str, ...] = ()
        self.info = dict(self.members[0].info)
        if len(self.members) > 1:
            self.info, notes = joined_info([member.info for member in self.members])
            self.notes = tuple(notes)
        self.network = self.members[0].network
        self.config = self.network.config
        if threshold is None:
            threshold = self.info.get("threshold", 0.5)
        self.threshold = float(threshold)
        if not 0.0 < self.threshold < 1.0:
            raise HyMUNetError(
                f"the threshold must lie between 0 and 1, both excluded, not {threshold}"
            )
        structures = self.config.num_labels - 1
        self.classes: list[str] = self.info.get("classes") or unnamed(structures)
        if len(self.classes) != structures:
            raise HyMUNetError(
                f"the model separates {plural(structures, 'structure')}, but its metadata name "
                f"{len(self.classes)} ({', '.join(self.classes)}); name each but the background"
            )
        self.postprocess = Postprocess.from_dict(
            self.info.get("postprocess") if postprocess else None,
            self.classes,
            nested=self.config.activation == "sigmoid",
        )

    def __call__(
        self,
        image: np.ndarray | str | Path | Sequence[Path] | Image,
        on_progress: Callable[[float], None] | None = None,
    ) -> Prediction:
        """Segments one image.

        Args:
            image: A file, files of one channel each, what `read_image` returned, or an array
                (channels, *spatial) of uint8, uint16 or float.
            on_progress: Called with the share that is done, up to 1, after each window.

        Raises:
            HyMUNetError: If the image cannot be read, has other channels than the model, or does
                not fit into memory.
            NonFiniteError: If the image, or what the network makes of it, is not finite.
        """
        decoded = self.decode(image)
        try:
            return self._segment(decoded, on_progress)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise HyMUNetError(
                f"an image of size {decoded.pixels.shape[1:]} does not fit into the memory of "
                f"{self.device}: shrink or crop it, or use a machine with more"
            ) from error

    def _segment(
        self, decoded: Image, on_progress: Callable[[float], None] | None = None
    ) -> Prediction:
        seen = self.probability(self.batch_of_one(decoded), decoded.spacing_mm, on_progress)
        return self.conclude(decoded, seen[0].cpu().numpy())

    def batch_of_one(self, decoded: Image) -> Tensor:
        """The image's pixels (1, channels, *spatial) on the predictor's device."""
        # writable, since torch warns of what is not: a decoder may lend its own memory
        pixels = np.require(decoded.pixels, requirements=("C", "W"))
        return torch.from_numpy(pixels)[None].to(self.device)

    def conclude(
        self, decoded: Image, probability: np.ndarray, threshold: float | None = None
    ) -> Prediction:
        """What follows from the probabilities (num_classes, *spatial) of an image: its mask, as
        `cut` makes it, and the measurements."""
        mask = self.cut(probability, threshold)
        nested = self.config.activation == "sigmoid"
        return Prediction(
            mask,
            probability,
            decoded.spacing_mm,
            measure(mask, self.classes, decoded.spacing_mm, nested),
            decoded.notes,
            decoded,
            nested,
        )

    @torch.inference_mode()
    def probability(
        self,
        pixels: Tensor,
        spacing_mm: tuple[float, ...] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Batch of decoded images (B, channels, *spatial) of one spacing -> probabilities
        (B, num_classes, *spatial) on the same grid; `on_progress` as in `__call__`."""
        count = len(self.members)
        total: Tensor | None = None
        for index, member in enumerate(self.members):
            shares = Shares(index, count, len(pixels), on_progress)
            one = self._probability(member, pixels, spacing_mm, shares)
            # a running sum: the volumes of all models at once may not fit into memory
            total = one if total is None else total.add_(one)
            del one
        assert total is not None  # there is a model
        return total if count == 1 else total.div_(count)

    def _probability(
        self, member: Member, pixels: Tensor, spacing_mm: tuple[float, ...] | None, shares: Shares
    ) -> Tensor:
        """What one of the models says, on the images' own grid."""
        if isinstance(member.network, ExportedNetwork) and member.network.takes_pictures:
            if self.tta:
                raise HyMUNetError(
                    f"{member.network.name} holds its own preprocessing, and mirrored pictures are "
                    "made after it: test-time augmentation needs --runtime torch"
                )
            return _finite(member.network.pictures(pixels))
        images = member.preprocess(pixels, spacing_mm)
        window = member.preprocess.config.patch_size

        def seen(batch: Tensor) -> Tensor:
            predict = partial(self.network_probability, member.network)
            return mean_over_symmetries(predict, batch) if self.tta else predict(batch)

        if window is None:
            probability = seen(images)
        else:
            parts = []
            for number, image in enumerate(images):
                on_window = partial(shares.report, number)
                parts.append(sliding_window(seen, image[None], window, on_window=on_window))
            # joining copies, and one volume is the rule
            probability = parts[0] if len(parts) == 1 else torch.cat(parts)
        del images
        return member.preprocess.restore(probability, tuple(pixels.shape[2:]), spacing_mm)

    def network_probability(self, network: Segmenter, images: Tensor) -> Tensor:
        """Windows or resized pictures (B, channels, *spatial) as the network sees them ->
        probabilities (B, num_classes, *spatial) float32.

        Raises:
            NonFiniteError: If they are not finite.
        """
        if isinstance(network, ExportedNetwork):  # the activation is part of the file
            return _finite(network(images))
        logits = _finite(network(images).float())
        sigmoid = self.config.activation == "sigmoid"
        return torch.sigmoid(logits) if sigmoid else torch.softmax(logits, dim=1)

    def cut(self, probability: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """(num_classes, *spatial) -> class indices (*spatial) uint8: the largest (softmax), or the
        last of the nested structures whose probability reaches the threshold (sigmoid; None: the
        predictor's own); then cleaned up as the model file says."""
        if self.config.activation == "softmax":
            return self.postprocess(_most_probable(probability))
        threshold = self.threshold if threshold is None else threshold
        mask = np.zeros(probability.shape[1:], np.uint8)
        for index, one in enumerate(probability, start=1):
            mask[one >= threshold] = index
        return self.postprocess(mask)

    def decode(self, image: np.ndarray | str | Path | Sequence[Path] | Image) -> Image:
        """An image as the network can take it: read where it is a path, and checked.

        Raises:
            HyMUNetError: As `__call__`, for what the image is.
            NonFiniteError: If it holds values that are not finite.
        """
        channels = self.config.in_channels
        if isinstance(image, np.ndarray):
            image = Image(image, None, None, ())
        elif isinstance(image, (str, Path)):
            image = read_image(Path(image), channels)
        elif isinstance(image, (list, tuple)):
            image = read_image([Path(path) for path in image], channels)
        elif not isinstance(image, Image):
            raise HyMUNetError(
                "an image is a path, a list of paths (one a channel) or an array (channels, "
                f"height, width), not a {type(image).__name__}; for a Pillow picture: "
                "np.asarray(picture.convert('RGB')).transpose(2, 0, 1)"
            )
        pixels = image.pixels
        if pixels.ndim != self.config.spatial_dims + 1 or pixels.shape[0] != channels:
            axes = "height, width" if self.config.spatial_dims == 2 else "depth, height, width"
            last = pixels.ndim == self.config.spatial_dims + 1 and pixels.shape[-1] == channels
            hint = "; its channels are last: use np.moveaxis(image, -1, 0)" if last else ""
            raise HyMUNetError(
                f"this model reads {plural(channels, 'channel')} of {self.config.spatial_dims}-D "
                f"images, (channels, {axes}), but the image's shape is {pixels.shape}{hint}"
            )
        if pixels.size == 0:
            raise HyMUNetError(f"the image has shape {pixels.shape}: there is nothing in it")
        # torch knows neither other byte orders nor half of numpy's floats
        dtype = np.dtype(np.float32) if pixels.dtype.kind == "f" else pixels.dtype.newbyteorder("=")
        if dtype not in (np.uint8, np.uint16, np.float32):
            raise HyMUNetError(
                f"an image must be uint8 (255 is white), uint16 (65535 is white) or float, but it "
                f"is {pixels.dtype}; convert it with .astype()"
            )
        with np.errstate(over="ignore"):  # what does not fit becomes infinite: reported next
            pixels = pixels.astype(dtype, copy=False)
        # a channel at a time: a table of the size of all of them is not needed
        if dtype.kind == "f" and not all(np.isfinite(channel).all() for channel in pixels):
            bad = int(pixels.size - np.isfinite(pixels).sum())
            raise NonFiniteError(
                f"the image has {bad} values that are NaN, infinite or beyond float32; replace "
                "them first"
            )
        return replace(image, pixels=pixels)


def _wants_onnx(model: object, runtime: str | None) -> bool:
    given = model if isinstance(model, (list, tuple)) else [model]
    return runtime == "onnx" or any(str(one).lower().endswith(".onnx") for one in given)


def _finite(output: Tensor) -> Tensor:
    """What a network has said, if it is finite."""
    if not torch.isfinite(output).all():
        raise NonFiniteError(
            "the network's output is not finite for this image; its intensities lie far "
            "outside what the model was trained on"
        )
    return output


def _most_probable(probability: np.ndarray) -> np.ndarray:
    """(num_classes, *spatial) -> the index of the largest, the first of equal ones, (*spatial)
    uint8; a class at a time, since numpy's argmax over the first axis copies all of them."""
    largest = probability[0].copy()
    mask = np.zeros(largest.shape, np.uint8)
    for index, one in enumerate(probability[1:], start=1):
        mask[one > largest] = index
        np.maximum(largest, one, out=largest)
    return mask


def find_device(name: str | None) -> torch.device:
    """The device of that name; None: the GPU where there is one.

    Raises:
        HyMUNetError: If there is none of that name here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise HyMUNetError(f"there is no device {name!r}; expected cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise HyMUNetError(
            f"there is no CUDA device here that {name} could mean; leave --device out to use what "
            "there is"
        )
    return device


def _is_out_of_memory(error: Exception) -> bool:
    """torch says so by RuntimeErrors, and only some of them have a type of their own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(w in str(error) for w in ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED"))
