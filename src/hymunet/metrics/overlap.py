"""Overlap of two binary masks, from four counts: Dice, IoU, precision, recall and the like.

An absent structure never makes a NaN: a metric whose denominator is zero is 1 when prediction
and reference agree that nothing is there and 0 when they do not.
"""

from dataclasses import dataclass

import numpy as np

from hymunet.errors import HyMUNetError

ISIC_THRESHOLD = 0.65


@dataclass(frozen=True)
class Counts:
    """Pixels of a prediction against its reference, within the area that counts.

    Args:
        tp: In both masks.
        fp: In the prediction only.
        fn: In the reference only.
        tn: In neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def pred(self) -> int:
        """Pixels of the prediction."""
        return self.tp + self.fp

    @property
    def target(self) -> int:
        """Pixels of the reference."""
        return self.tp + self.fn

    @property
    def total(self) -> int:
        """Pixels that count."""
        return self.tp + self.fp + self.fn + self.tn


def binary_masks(
    pred: np.ndarray, target: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The same masks as bool arrays, after checking that they can be compared.

    Args:
        pred: Predicted mask (*spatial), 2-D or 3-D; bool, or numbers that are all 0 or 1.
        target: Reference mask of the same shape and kind.
        valid: The pixels that count, likewise; None: all.

    Returns:
        `pred`, `target` and `valid` as bool; `valid` is None when every pixel counts.

    Raises:
        HyMUNetError: If shapes differ or are not 2-D or 3-D, an array has no pixel or a value
            other than 0 and 1, or no pixel is valid.
    """
    pred = _binary(pred, "prediction")
    target = _binary(target, "reference")
    if pred.shape != target.shape:
        raise HyMUNetError(
            f"prediction and reference must have the same shape, got {pred.shape} and "
            f"{target.shape}; bring the prediction back to the reference's size first"
        )
    if valid is None:
        return pred, target, None
    valid = _binary(valid, "valid area")
    if valid.shape != pred.shape:
        raise HyMUNetError(
            f"the valid area must have the masks' shape {pred.shape}, got {valid.shape}; "
            "resize it with nearest neighbours"
        )
    if not valid.any():
        raise HyMUNetError(
            "the valid area has no pixel, so there is nothing to measure; "
            "check its file or leave the case out by name"
        )
    return pred, target, None if valid.all() else valid


def _binary(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3) or mask.size == 0:
        raise HyMUNetError(
            f"the {name} must be 2-D (height, width) or 3-D (depth, height, width) with at least "
            f"one pixel, got shape {mask.shape}; drop batch and channel axes"
        )
    if mask.dtype == bool:
        return mask
    ones = mask == 1
    if not np.all(ones | (mask == 0)):
        found = mask[~(ones | (mask == 0))].flat[0]
        raise HyMUNetError(
            f"the {name} must hold 0 and 1 only, found {found}; "
            "compare one structure at a time, as in labels == 1, or threshold with mask > 0"
        )
    return ones


def count(pred: np.ndarray, target: np.ndarray, valid: np.ndarray | None = None) -> Counts:
    """Counts true and false positives and negatives among the valid pixels.

    Args:
        pred: Predicted mask (*spatial), bool or 0/1.
        target: Reference mask of the same shape.
        valid: The pixels that count; None: all.

    Raises:
        HyMUNetError: As `binary_masks` does.
    """
    pred, target, valid = binary_masks(pred, target, valid)
    if valid is None:
        total = pred.size
    else:
        total = int(np.count_nonzero(valid))
        pred, target = pred & valid, target & valid
    in_pred = int(np.count_nonzero(pred))
    in_target = int(np.count_nonzero(target))
    tp = int(np.count_nonzero(pred & target))
    return Counts(tp, in_pred - tp, in_target - tp, total - in_pred - in_target + tp)


def dice(counts: Counts) -> float:
    """2 tp / (2 tp + fp + fn) (Dice 1945); 1 when both masks are empty, 0 when one is."""
    size = counts.pred + counts.target
    return 2 * counts.tp / size if size else 1.0


def iou(counts: Counts) -> float:
    """tp / (tp + fp + fn) (Jaccard 1912); 1 when both masks are empty, 0 when one is."""
    union = counts.tp + counts.fp + counts.fn
    return counts.tp / union if union else 1.0


def thresholded_iou(counts: Counts, threshold: float = ISIC_THRESHOLD) -> float:
    """IoU, but 0 where it is below `threshold`: the ranking metric of ISIC 2018 Task 1."""
    value = iou(counts)
    return value if value >= threshold else 0.0


def precision(counts: Counts) -> float:
    """tp / (tp + fp); of an empty prediction 1 if the reference is empty too, else 0."""
    return counts.tp / counts.pred if counts.pred else float(counts.target == 0)


def recall(counts: Counts) -> float:
    """tp / (tp + fn); of an empty reference 1 if the prediction is empty too, else 0."""
    return counts.tp / counts.target if counts.target else float(counts.pred == 0)


def specificity(counts: Counts) -> float:
    """tn / (tn + fp); 1 when the reference has no background."""
    background = counts.tn + counts.fp
    return counts.tn / background if background else 1.0


def accuracy(counts: Counts) -> float:
    """(tp + tn) / (tp + fp + fn + tn); 1 of no pixel at all."""
    return (counts.tp + counts.tn) / counts.total if counts.total else 1.0


def overlap_metrics(counts: Counts) -> dict[str, float]:
    """The six ratios by name: dice, iou, precision, recall, specificity, accuracy."""
    return {
        "dice": dice(counts),
        "iou": iou(counts),
        "precision": precision(counts),
        "recall": recall(counts),
        "specificity": specificity(counts),
        "accuracy": accuracy(counts),
    }
