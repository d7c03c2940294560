"""Hashes: copies agree, strangers do not; groups: the same as comparing every pair."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from hymunet.data.duplicates import (
    MAX_DISTANCE,
    hash_images,
    near_duplicate_groups,
    picture_hash,
)
from hymunet.errors import HyMUNetError


def texture(seed, shape=(120, 160)):
    """Clouds of several scales in colour, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    field = sum(gaussian_filter(rng.normal(size=shape), s) * s for s in (3, 8, 20))
    field = (field - field.min()) / (field.max() - field.min())
    colour = 0.6 + 0.4 * rng.random(3)
    return np.uint8(30 + 190 * field[..., None] * colour)


def distance(one, other):
    return (one ^ other).bit_count()


def reference_groups(hashes, max_distance):
    """Breadth-first search over all pairs."""
    groups = [-1] * len(hashes)
    for start in range(len(hashes)):
        if groups[start] >= 0:
            continue
        groups[start] = max(groups) + 1
        waiting = [start]
        while waiting:
            node = waiting.pop()
            for other, value in enumerate(hashes):
                if groups[other] < 0 and distance(hashes[node], value) <= max_distance:
                    groups[other] = groups[node]
                    waiting.append(other)
    return groups


def test_copies_are_grouped_and_strangers_are_not(tmp_path):
    paths = []
    for seed in range(12):
        array = texture(seed)
        original = Pillow.fromarray(array)
        brighter = np.clip(array * 1.08 + 6, 0, 255).astype(np.uint8)
        for name, picture, options in (
            ("original.png", original, {}),
            ("encoded.jpg", original, {"quality": 40}),
            ("resized.png", original.resize((301, 97)), {}),
            ("brighter.png", Pillow.fromarray(brighter), {}),
            ("grey.png", original.convert("L"), {}),
        ):
            paths.append(tmp_path / f"{seed}_{name}")
            picture.save(paths[-1], **options)
    calls = []
    hashes = hash_images(paths, progress=lambda done, total: calls.append((done, total)))
    assert near_duplicate_groups(hashes) == [n // 5 for n in range(60)]
    assert calls == [(n, 60) for n in range(1, 61)]


def test_the_distance_of_strangers_is_far_from_the_threshold():
    hashes = [picture_hash(texture(seed).transpose(2, 0, 1)) for seed in range(40)]
    apart = [distance(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(apart) > MAX_DISTANCE
    assert 26 < np.mean(apart) < 38  # 32 of 64 when bits are fair


def test_flat_pictures_are_alike_and_carry_no_noise():
    for value in (0, 1, 77, 255):
        assert picture_hash(np.full((3, 50, 41), value, np.uint8)) == 0
    rounding = np.random.default_rng(0).normal(0.1, 1e-7, (1, 50, 41)).astype(np.float32)
    assert picture_hash(rounding) == 0


def test_all_64_bits_are_used_and_a_scale_changes_none():
    pixels = [texture(seed).transpose(2, 0, 1) for seed in range(40)]
    hashes = [picture_hash(p) for p in pixels]
    ones = np.array([[value >> bit & 1 for bit in range(64)] for value in hashes]).mean(axis=0)
    assert ones.min() > 0
    assert ones.max() < 1
    for p, value in zip(pixels, hashes, strict=True):
        assert picture_hash(p.astype(np.uint16) * 257) == value


def test_volumes_are_hashed_by_their_middle_slice():
    layer = texture(0)[..., 0]
    volume = np.stack([texture(1)[..., 0], layer, texture(2)[..., 0]])[None]
    assert picture_hash(volume) == picture_hash(layer[None])


def test_an_image_of_several_files(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for n, path in enumerate(paths):
        Pillow.fromarray(texture(n)[..., 0]).save(path)
    stacked = np.stack([texture(n)[..., 0] for n in range(2)])
    assert hash_images([paths]) == [picture_hash(stacked)]


@given(st.data())
def test_groups_are_those_of_comparing_every_pair(data):
    max_distance = data.draw(st.sampled_from([0, 1, 3, 6, 10, 32]))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    seeds = [int(value) for value in rng.integers(0, 2**64, 6, dtype=np.uint64)]
    hashes = []
    for _ in range(30):  # each a few flipped bits away from one of six
        value = seeds[rng.integers(6)]
        for bit in rng.choice(64, rng.integers(0, 2 * max_distance % 40 + 2), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    assert near_duplicate_groups(hashes, max_distance) == reference_groups(hashes, max_distance)


def test_a_chain_is_one_group_and_the_threshold_is_inclusive():
    chain = [0, 0b111, 0b111111, 0b111111111]
    assert near_duplicate_groups(chain, 3) == [0, 0, 0, 0]
    assert near_duplicate_groups(chain, 2) == [0, 1, 2, 3]
    assert near_duplicate_groups([5, 2**64 - 1, 5], 0) == [0, 1, 0]
    assert near_duplicate_groups([]) == []


def test_out_of_range_is_refused(tmp_path):
    with pytest.raises(HyMUNetError, match=r"max_distance is 33; expected 0 to 32"):
        near_duplicate_groups([1], 33)
    for value in (-1, 2**64):
        with pytest.raises(HyMUNetError, match=r"a hash is outside"):
            near_duplicate_groups([value])
    (tmp_path / "a.png").write_bytes(io.BytesIO(b"not a picture").getvalue())
    with pytest.raises(HyMUNetError, match=r"a.png is no image by its content"):
        hash_images([tmp_path / "a.png"])
