"""Preprocessing: scales, sizes and geometry there and back, against Pillow where it can judge."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from hymunet.data.preprocess import Preprocess, PreprocessConfig, to_unit_range
from hymunet.errors import HyMUNetError

SIZES = [(1, 1), (1, 37), (400, 1), (35, 51), (48, 64), (151, 97), (200, 301)]
TARGET = (48, 64)


def make(policy="squeeze", target=TARGET, channels=1, **fields):
    """Preprocessing that leaves intensities as they are."""
    return Preprocess(
        PreprocessConfig(
            None if policy == "native" else target,
            policy,
            **{"mean": (0.0,) * channels, "std": (1.0,) * channels, **fields},
        )
    )


def grid(size):
    """Pixel centres in [0, 1] along each axis."""
    return torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in size], indexing="ij")


# --- intensities ------------------------------------------------------------------------------


def test_integers_become_the_unit_range_and_floats_stay():
    for dtype, top in ((torch.uint8, 255), (torch.uint16, 65535)):
        values = torch.tensor([0, 1, top // 2, top], dtype=torch.int32)
        unit = to_unit_range(values.to(dtype))
        assert unit.dtype == torch.float32
        torch.testing.assert_close(unit, values.double().div(top).float())
    values = torch.tensor([-1024.0, 0.0, 3071.5], dtype=torch.float64)
    torch.testing.assert_close(to_unit_range(values), values.float())
    assert to_unit_range(values.half()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool], ids=str)
def test_other_types_are_refused(dtype):
    with pytest.raises(HyMUNetError, match=rf"must be uint8, uint16 or float, but it is {dtype}"):
        to_unit_range(torch.zeros(3, dtype=dtype))


def test_the_training_images_statistics_are_taken_off():
    mean, std = (0.2, 0.5, 0.7), (0.1, 0.25, 0.3)
    image = torch.rand(2, 3, 5, 7)
    out = make("native", channels=3, mean=mean, std=std).normalise(image)
    for channel in range(3):
        expected = (image[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(out[:, channel], expected)


@pytest.mark.parametrize("size", [(9, 12), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("unit", [1e-4, 1.0, 5e3])
def test_an_images_own_statistics_make_its_unit_irrelevant(size, unit):
    pre = make("native", channels=2, normalisation="image")
    image = torch.rand(3, 2, *size)
    out = pre.normalise(unit * (image + 3.0))
    flat = out.flatten(2)
    torch.testing.assert_close(flat.mean(-1), torch.zeros(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(-1, correction=0), torch.ones(3, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(out, pre.normalise(image), atol=5e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567, -3e-5, 7e6])
def test_a_constant_image_becomes_zero(value):
    pre = make("native", normalisation="image")
    image = torch.full((1, 1, 33, 47), value)
    torch.testing.assert_close(pre(image), torch.zeros(1, 1, 48, 48), atol=1e-3, rtol=0)
    # what resizing adds in rounding is no signal either
    pre = make("squeeze", (32, 40), normalisation="image", multiple=8)
    torch.testing.assert_close(pre(image), torch.zeros(1, 1, 32, 40), atol=0.1, rtol=0)


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [1, 16, 32])
@pytest.mark.parametrize("policy", ["squeeze", "letterbox", "native"])
@pytest.mark.parametrize("size", [*SIZES, (1, 1, 1), (35, 51, 35), (2, 16, 33)], ids=str)
def test_any_size_becomes_multiples(policy, size, multiple):
    pre = make(policy, multiple=multiple, channels=2)
    if len(size) == 3 and policy != "native":
        with pytest.raises(HyMUNetError, match=r"cannot be resized.*volumes are used at their"):
            pre.resized_size(size)
        return
    image = torch.randint(1, 256, (2, 2, *size), dtype=torch.uint8)
    out = pre(image)
    reached = size if policy == "native" else TARGET
    assert out.shape == (2, 2, *(math.ceil(side / multiple) * multiple for side in reached))
    assert out.dtype == torch.float32
    inner = pre.resized_size(size)
    picture = out[(..., *(slice(0, side) for side in inner))]
    assert picture.numel() == 4 * math.prod(inner)
    assert (picture > 0).all()
    assert out.count_nonzero() == picture.numel()  # so the pads are 0, at the far ends
    back = pre.restore(out, size)
    assert back.shape == image.shape
    if policy == "native":
        torch.testing.assert_close(back, image.float() / 255)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_letterbox_keeps_the_aspect_ratio(size):
    inner = make("letterbox").resized_size(size)
    scale = min(to / side for to, side in zip(TARGET, size, strict=True))
    assert any(a == b for a, b in zip(inner, TARGET, strict=True))
    for got, to, side in zip(inner, TARGET, size, strict=True):
        assert 1 <= got <= to
        assert abs(got - side * scale) <= 0.5 or got == 1
    assert make("squeeze").resized_size(size) == TARGET


# --- geometry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["squeeze", "letterbox", "native"])
@pytest.mark.parametrize("size", [s for s in SIZES if min(s) > 1], ids=str)
def test_a_smooth_map_comes_back(policy, size):
    y, x = grid(size)
    wave = (0.5 + 0.4 * torch.cos(torch.pi * y) * torch.cos(torch.pi * x))[None, None]
    pre = make(policy)
    there = pre(wave)
    inner = pre.resized_size(size)
    v, u = grid(inner)
    expected = 0.5 + 0.4 * torch.cos(torch.pi * v) * torch.cos(torch.pi * u)
    picture = there[0, 0, : inner[0], : inner[1]]
    torch.testing.assert_close(picture, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(pre.restore(there, size), wave, atol=0.01, rtol=0)


@pytest.mark.parametrize("policy", ["squeeze", "letterbox", "native"])
@pytest.mark.parametrize("size", [s for s in SIZES if min(s) > 1], ids=str)
@pytest.mark.parametrize("centre", [(0.3, 0.4), (0.6, 0.7)])
def test_a_blob_stays_where_it_is(policy, size, centre):
    y, x = grid(size)
    blob = torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.01)
    back = make(policy)
    back = back.restore(back(blob[None, None]), size)[0, 0]
    for at, side in ((y, size[0]), (x, size[1])):
        shift = ((at * back).sum() / back.sum() - (at * blob).sum() / blob.sum()) * side
        assert abs(float(shift)) < 0.1


def test_pads_do_not_reach_the_result():
    for policy, size in (("letterbox", (30, 100)), ("squeeze", (30, 100)), ("native", (30, 100))):
        pre = make(policy, target=(40, 50))
        clean = pre(torch.rand(1, 1, *size))
        inner = pre.resized_size(size)
        dirty = torch.ones_like(clean)
        dirty[..., : inner[0], : inner[1]] = clean[..., : inner[0], : inner[1]]
        assert not torch.equal(clean, dirty)
        assert torch.equal(pre.restore(clean, size), pre.restore(dirty, size))


def test_probabilities_stay_probabilities():
    pre = make("letterbox")
    back = pre.restore(torch.rand(2, 3, 48, 64).round(), (151, 97))
    assert back.min() >= 0
    assert back.max() <= 1 + 1e-6


@pytest.mark.parametrize("target", [(48, 64), (31, 20), (120, 200)], ids=str)
def test_resizing_agrees_with_pillow(target):
    image = np.random.default_rng(0).integers(0, 256, (3, 97, 131), dtype=np.uint8)
    out = make("squeeze", target, channels=3, multiple=1)(torch.from_numpy(image)[None])[0]
    for channel, ours in zip(image, out.numpy(), strict=True):
        exact = Pillow.fromarray(channel.astype(np.float32)).resize(
            target[::-1], Pillow.Resampling.BILINEAR
        )
        np.testing.assert_allclose(ours, np.asarray(exact) / 255, atol=1e-4)
        rounded = Pillow.fromarray(channel).resize(target[::-1], Pillow.Resampling.BILINEAR)
        np.testing.assert_allclose(ours, np.asarray(rounded) / 255.0, atol=1 / 255)


# --- labels -----------------------------------------------------------------------------------


def regions(size, num_labels):
    """Nested ellipses: class k inside class k - 1."""
    y, x = grid(size)
    radius = ((y - 0.45) / 0.4) ** 2 + ((x - 0.55) / 0.35) ** 2
    return sum((radius < 1 / k).to(torch.uint8) for k in range(1, num_labels))


@pytest.mark.parametrize("policy", ["squeeze", "letterbox"])
@pytest.mark.parametrize("size", [(48, 64), (151, 97), (200, 301), (30, 30)], ids=str)
def test_areas_are_kept(policy, size):
    labels = regions(size, 4)
    out = make(policy).resize_labels(labels[None], 4)[0]
    assert out.dtype == torch.uint8
    assert out.shape == make(policy).resized_size(size)
    for k in range(4):
        before, after = (labels == k).float().mean(), (out == k).float().mean()
        assert abs(float(before - after)) < 0.01


@pytest.mark.parametrize("size", [TARGET, (5, 6, 7)], ids=str)
def test_labels_of_equal_size_stay(size):
    labels = torch.randint(0, 3, (2, *size))
    pre = make("native" if len(size) == 3 else "squeeze")
    out = pre.resize_labels(labels, 3)
    assert out.dtype == torch.uint8
    assert torch.equal(out.long(), labels)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (0, 4)])
def test_ties_go_to_the_structure(low, high):
    # halved, each new pixel away from the border covers as much of the one as of the other
    stripes = torch.tensor([low, high] * 8, dtype=torch.uint8).expand(1, 16, 16)
    halved = make("squeeze", (8, 8)).resize_labels(stripes, 5)
    assert (halved[..., 1:-1] == high).all()
    # stretched to an odd width, the middle column lies on the border between two pixels
    for pair in ([low, high], [high, low]):
        for width in (3, 7, 31, 49):
            labels = torch.tensor([[pair]], dtype=torch.uint8)
            wide = make("squeeze", (1, width)).resize_labels(labels, 5)
            assert int(wide[0, 0, width // 2]) == high
            assert wide[0, 0, [0, -1]].tolist() == pair


def test_rounding_does_not_break_ties():
    # widths at which the two shares of a tie differ in the last digit of float32
    for wide, target in ((4, 14), (4, 30), (6, 21), (8, 28)):
        stripes = torch.tensor([1, 0] * (wide // 2), dtype=torch.uint8).expand(1, 1, wide)
        exact = torch.nn.functional.interpolate(
            stripes[:, None].double(), size=(1, target), mode="bilinear", antialias=True
        )
        expected = (exact[:, 0] > 0.5 - 1e-9).to(torch.uint8)
        assert ((exact - 0.5).abs() < 1e-9).any()
        assert torch.equal(make("squeeze", (1, target)).resize_labels(stripes, 2), expected)


@pytest.mark.parametrize("target", [(48, 64), (17, 23), (150, 90)], ids=str)
def test_no_class_is_invented_and_the_largest_share_wins(target):
    rng = np.random.default_rng(0)
    coarse = rng.choice([0, 2, 5], size=(13, 12)).astype(np.uint8)
    labels = np.kron(coarse, np.ones((7, 8), np.uint8))
    out = make("squeeze", target).resize_labels(torch.from_numpy(labels)[None], 6)[0].numpy()
    assert set(np.unique(out)) == {0, 2, 5}
    share = {
        k: np.asarray(
            Pillow.fromarray((labels == k).astype(np.float32)).resize(
                target[::-1], Pillow.Resampling.BILINEAR
            )
        )
        for k in (0, 2, 5)
    }
    won = sum(np.where(out == k, share[k], 0) for k in share)
    best = np.maximum.reduce(list(share.values()))
    np.testing.assert_allclose(won, best, atol=1e-5)


def test_labels_beyond_the_classes_are_refused():
    for policy in ("native", "squeeze"):
        with pytest.raises(HyMUNetError, match=r"labels reach 2, but there are 2 classes"):
            make(policy).resize_labels(torch.full((1, 4, 4), 2), 2)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resize": "crop"}, r"resize must be one of .*'letterbox'.*, not 'crop'"),
        ({"image_size": (64, 64)}, r"resize='native' and image_size=\(64, 64\) contradict"),
        ({"resize": "squeeze"}, r"resize='squeeze' and image_size=None contradict"),
        ({"resize": "squeeze", "image_size": (64, 64, 64)}, r"must be \(height, width\) in pixels"),
        ({"resize": "squeeze", "image_size": (0, 64)}, r"must be \(height, width\).*\(0, 64\)"),
        ({"resize": "squeeze", "image_size": (6.5, 64)}, r"must be \(height, width\).*\(6.5, 64\)"),
        ({"resize": "squeeze", "image_size": 64}, r"image_size must be a list of numbers, not 64"),
        ({"normalisation": "none"}, r"normalisation must be one of .*'nonzero'\), not 'none'"),
        ({"mean": (0.5,), "std": (0.2, 0.2)}, r"as long as each other"),
        ({"mean": (0.5,), "std": (0.0,)}, r"std positive, not \(0.5,\) and \(0.0,\)"),
        ({"mean": (0.5,), "std": (float("nan"),)}, r"finite, and std positive"),
        ({"mean": (float("inf"),), "std": (1.0,)}, r"finite, and std positive"),
        ({"mean": (), "std": ()}, r"as long as each other.*\(\) and \(\)"),
        ({"mean": None}, r"mean must be a list of numbers, not None"),
        ({"std": ["a"]}, r"std must be a list of numbers, not \['a'\]"),
        ({"multiple": 0}, r"multiple must be a whole number from 1, not 0"),
        ({"multiple": 1.5}, r"multiple must be a whole number from 1, not 1.5"),
        ({"resize": "window"}, r"resize='window' and patch_size=None contradict"),
        ({"patch_size": (16, 16)}, r"resize='native' and patch_size=\(16, 16\) contradict"),
        ({"resize": "window", "patch_size": (16, 24)}, r"whole multiples of 16.*\(16, 24\)"),
        ({"resize": "window", "patch_size": (16, 0)}, r"whole multiples of 16.*\(16, 0\)"),
        ({"spacing_mm": (1.0, 1.0)}, r"spacing_mm must be a length above 0 for each side"),
        (
            {"resize": "window", "patch_size": (16, 16), "spacing_mm": (1.0,)},
            r"for each side of the patch_size \(16, 16\), not \(1.0,\)",
        ),
        (
            {"resize": "window", "patch_size": (16, 16), "spacing_mm": (1.0, 0.0)},
            r"a length above 0",
        ),
        ({"clip": (3.0, 1.0)}, r"clip must be \(lowest, highest\) intensity, not \(3.0, 1.0\)"),
        ({"clip": (0.0, float("inf"))}, r"clip must be"),
    ],
)
def test_impossible_settings_are_refused(fields, words):
    with pytest.raises(HyMUNetError, match=words):
        PreprocessConfig(**fields)


def test_settings_survive_json():
    for pre in (
        make("letterbox", (48, 64), channels=3, mean=(0.1, 0.2, 0.3), multiple=32),
        make("native", normalisation="image"),
    ):
        again = Preprocess.from_dict(json.loads(json.dumps(pre.to_dict())))
        assert again.config == pre.config
        image = torch.rand(1, len(pre.config.mean), 33, 70)
        assert torch.equal(again(image), pre(image))


def test_settings_of_a_newer_version_are_refused():
    values = {**make().to_dict(), "window": 3}
    with pytest.raises(HyMUNetError, match=r"has window, which this version does not know"):
        Preprocess.from_dict(values)


def test_the_limits_of_intensities_are_in_the_files_own_unit_whatever_its_type():
    values = torch.tensor([[0.0, 50.0, 100.0, 150.0, 250.0, 60.0]])
    wanted = values.clamp(40, 160)
    for dtype, full in ((torch.uint8, 255.0), (torch.uint16, 65535.0), (torch.float32, 1.0)):
        config = PreprocessConfig(
            mean=(0.0,), std=(1.0 / full,), multiple=1, clip=(40.0, 160.0), normalisation="dataset"
        )
        seen = Preprocess(config)(values.to(dtype)[None, None])
        torch.testing.assert_close(seen[0, 0], wanted, rtol=1e-5, atol=1e-3)
