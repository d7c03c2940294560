"""Near-duplicate pictures: 64-bit perceptual hashes, and groups of those that nearly agree.

A case and its copy must stay on one side of a split, or the test set is partly a memory test.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from scipy.fft import dctn

from hymunet.data.image_io import LUMA, read_image
from hymunet.errors import HyMUNetError

# Chosen on 1997 dermoscopy pictures squeezed to a square: of 12 pairs of copies found by eye (8 of
# them recoloured) 11 differ in at most 6 bits, as do 6 of two million pairs of different lesions;
# so do 99 % of copies saved as JPEG of quality 30 or made a tenth brighter, and all resized ones.
# At 8 bits some 45 different pairs join, at 10 they chain up to 74 cases. Grouping two strangers
# costs a little freedom in the split; missing a copy costs trust in the test.
MAX_DISTANCE = 6

_EVEN = np.indices((8, 8)).sum(axis=0) % 2 == 0
_BIT_COUNT = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def picture_hash(pixels: np.ndarray) -> int:
    """64 bits that survive new encoding, resizing and mild changes of brightness.

    Half the bits are cosine coefficients against their median (coarse shape), a quarter each are
    signs of differences between blocks downwards and to the right (where light falls): either
    kind alone calls small centred lesions alike, the two rarely err together.

    Args:
        pixels: (channels, *spatial), any real type; of a volume the middle slice counts.

    Returns:
        An integer in [0, 2^64).

    Source:
        The two parts follow pHash (Zauner 2010, "Implementation and benchmarking of perceptual
        image hash functions") and dHash, each thinned to a checkerboard of its bits.
    """
    while pixels.ndim > 3:
        pixels = pixels[:, pixels.shape[1] // 2]
    weights = LUMA if len(pixels) == 3 else np.full(len(pixels), 1 / len(pixels), np.float32)
    grey = Pillow.fromarray(np.tensordot(weights, pixels.astype(np.float32), 1))
    small, rows, columns = (
        np.asarray(grey.resize(size, Pillow.Resampling.BOX), np.float64)
        for size in ((32, 32), (8, 9), (9, 8))
    )
    # far above rounding, far below a grey level: a flat picture gets the hash 0, not noise
    tolerance = 1e-4 * max(float(np.abs(small).max()), 1e-12)
    waves = dctn(small, norm="ortho")[1:9, 1:9]
    shape = waves > np.median(waves) + tolerance
    down = rows[1:] > rows[:-1] + tolerance
    right = columns[:, 1:] > columns[:, :-1] + tolerance
    bits = np.concatenate([shape[_EVEN], down[~_EVEN][::2], right[_EVEN][::2]])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_images(
    paths: Sequence[Path | Sequence[Path]], progress: Callable[[int, int], object] | None = None
) -> list[int]:
    """The hash of each image; one image may consist of several files, as in `Case.channels`.

    Args:
        paths: A path or the paths of its channels, per image.
        progress: Called as progress(done, total) after each.

    Raises:
        HyMUNetError: If an image cannot be read.
    """
    hashes = []
    for done, path in enumerate(paths, start=1):
        hashes.append(picture_hash(read_image(path, in_channels=None).pixels))
        if progress is not None:
            progress(done, len(paths))
    return hashes


def near_duplicate_groups(hashes: Sequence[int], max_distance: int = MAX_DISTANCE) -> list[int]:
    """Group index of each hash; a group is a chain of hashes at most `max_distance` bits apart.

    Exact without comparing all pairs: the 64 bits are cut into max_distance + 1 bands, and two
    hashes that differ in at most max_distance bits agree in at least one whole band (pigeonhole).
    Memory grows with the number of hashes, not with its square.

    Args:
        hashes: Integers in [0, 2^64).
        max_distance: 0 to 32; 0 groups equal hashes only.

    Returns:
        Indices 0, 1, ... in order of first appearance.

    Raises:
        HyMUNetError: If a hash or the distance is out of range.
    """
    if not 0 <= max_distance <= 32:
        raise HyMUNetError(f"max_distance is {max_distance}; expected 0 to 32 of 64 bits")
    if any(not 0 <= value < 1 << 64 for value in hashes):
        raise HyMUNetError("a hash is outside 0 to 2^64 - 1; expected what hash_images returns")
    codes, which = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    parent = np.arange(len(codes))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for bucket in _buckets(codes, max_distance + 1):
        for position, node in enumerate(bucket[:-1]):
            others = bucket[position + 1 :]
            for other in others[_distances(codes[node], codes[others]) <= max_distance]:
                parent[root(int(other))] = root(int(node))
    roots = [root(node) for node in range(len(codes))]
    index: dict[int, int] = {}
    return [index.setdefault(roots[code], len(index)) for code in which.ravel()]


def _buckets(codes: np.ndarray, bands: int) -> Iterator[np.ndarray]:
    """Indices of codes that agree in a band, for each band and each value that occurs twice."""
    edges = np.linspace(0, 64, bands + 1).round().astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (codes >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order])) + 1
        yield from (bucket for bucket in np.split(order, starts) if len(bucket) > 1)


def _distances(code: np.uint64, codes: np.ndarray) -> np.ndarray:
    """Number of bits in which `code` differs from each of `codes`."""
    words = np.ascontiguousarray(code ^ codes).view(np.uint16).reshape(-1, 4)
    return _BIT_COUNT[words].sum(axis=1)
