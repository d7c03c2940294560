"""The fingerprint of an image's content: what a model was trained on, provable from its file."""

import hashlib
from typing import Any

import numpy as np


def case_hash(pixels: np.ndarray) -> str:
    """SHA-256 over dtype, shape and C-order bytes of the decoded pixels, in hexadecimal.

    Two files of the same pixels (renamed, re-compressed without loss) have one fingerprint.
    """
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def fingerprints(recorded: Any) -> frozenset[str]:
    """Case fingerprints of one part of a model file's `cases`: a list, or a mapping by case id."""
    return frozenset(recorded.values() if isinstance(recorded, dict) else recorded or ())
