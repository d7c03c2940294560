"""Patches: inside the image, on structures as often as asked, each class alike, read in part."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hymunet.data.patches import choose_corner, places_of_classes, read_patch
from hymunet.errors import HyMUNetError

SIZE, PATCH = (20, 31, 17), (8, 12, 8)


def labelled():
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[2:6, 20:30, 3:9] = 1  # 240 voxels
    label[15, 4, 12] = 2  # one
    return label


def corners(places, foreground, n=300, size=SIZE):
    return [
        choose_corner(size, PATCH, places, foreground, np.random.default_rng(seed))
        for seed in range(n)
    ]


def test_places_are_of_their_classes_and_spread():
    label = labelled()
    places = places_of_classes(label, None, most=50)
    assert places.dtype == torch.int16
    assert (places[:, 0] == 1).sum() == 50
    assert places[places[:, 0] == 2].tolist() == [[2, 15, 4, 12]]
    for index, *at in places.tolist():
        assert label[tuple(at)] == index
    of_first = places[places[:, 0] == 1]
    assert of_first[0].tolist() == [1, 2, 20, 3]
    assert of_first[-1].tolist() == [1, 5, 29, 8]


def test_what_does_not_count_is_no_place():
    valid = torch.ones(SIZE, dtype=torch.uint8)
    valid[15] = 0
    assert places_of_classes(labelled(), valid)[:, 0].unique().tolist() == [1]
    assert places_of_classes(torch.zeros(SIZE, dtype=torch.uint8), None).shape == (0, 4)


def test_a_line_too_long_is_refused():
    with pytest.raises(HyMUNetError, match="too large"):
        places_of_classes(torch.zeros((1, 40_000), dtype=torch.uint8), None)


@pytest.mark.parametrize("foreground", [0.0, 0.5, 1.0])
def test_patches_lie_inside_and_hold_a_structure_as_often_as_asked(foreground):
    label = labelled()
    found = corners(places_of_classes(label, None).numpy(), foreground)
    for corner in found:
        assert all(0 <= at <= n - p for at, n, p in zip(corner, SIZE, PATCH, strict=True))
    by_chance = np.mean([shows(label, c) for c in corners(np.zeros((0, 4), np.int16), 1.0)])
    share = np.mean([shows(label, c) for c in found])
    assert share == pytest.approx(by_chance + foreground * (1 - by_chance), abs=0.08)


def test_a_rare_class_is_met_as_often_as_a_common_one():
    label = labelled()
    found = corners(places_of_classes(label, None).numpy(), 1.0)
    seen = [set(cut(label, c).unique().tolist()) - {0} for c in found]
    assert np.mean([2 in s for s in seen]) > 0.45
    assert np.mean([1 in s for s in seen]) > 0.45


def test_every_position_is_met():
    found = np.array(corners(np.zeros((0, 4), np.int16), 1.0, n=2000))
    for axis, (n, p) in enumerate(zip(SIZE, PATCH, strict=True)):
        assert sorted(set(found[:, axis])) == list(range(n - p + 1))


def test_a_short_axis_begins_at_zero():
    assert all(c[0] == 0 for c in corners(np.zeros((0, 4), np.int16), 0.0, 20, (5, 31, 17)))


@pytest.mark.parametrize("with_valid", [True, False])
def test_a_patch_read_from_a_file_is_that_part_of_it(tmp_path, with_valid):
    label = labelled()
    image = torch.rand((2, *SIZE), generator=torch.Generator().manual_seed(0)).half()
    valid = (torch.arange(SIZE[2]) < 14).to(torch.uint8).expand(SIZE).contiguous()
    places = places_of_classes(label, None)
    tensors = {"image": image, "label": label, "places": places}
    save_file(tensors | ({"valid": valid} if with_valid else {}), tmp_path / "entry.safetensors")
    for seed in range(5):
        got = read_patch(tmp_path / "entry.safetensors", PATCH, 0.5, np.random.default_rng(seed))
        corner = choose_corner(SIZE, PATCH, places.numpy(), 0.5, np.random.default_rng(seed))
        assert torch.equal(got[0], torch.stack([cut(one, corner) for one in image.float()]))
        assert torch.equal(got[1], cut(label, corner))
        assert torch.equal(got[2], cut(valid, corner) if with_valid else torch.ones_like(got[1]))


def test_beyond_a_small_image_nothing_counts(tmp_path):
    label = labelled()[:5]
    image = torch.ones((1, *label.shape))
    places = places_of_classes(label, None)
    save_file({"image": image, "label": label, "places": places}, tmp_path / "entry.safetensors")
    pixels, classes, valid = read_patch(
        tmp_path / "entry.safetensors", PATCH, 1.0, np.random.default_rng(0)
    )
    assert pixels.shape == (1, *PATCH)
    assert classes.shape == valid.shape == PATCH
    assert valid[:5].all()
    assert not valid[5:].any()
    assert not pixels[:, 5:].any()
    assert not classes[5:].any()


def cut(volume, corner):
    return volume[tuple(slice(a, a + p) for a, p in zip(corner, PATCH, strict=True))]


def shows(label, corner):
    return bool((cut(label, corner) > 0).any())
