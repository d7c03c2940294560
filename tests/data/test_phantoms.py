"""Laws of the drawn phantoms: the truth is exact, repeatable, independent of what lies over it."""

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion, label

from hymunet.data import phantom_distractors, phantoms
from hymunet.data.phantom_fields import frame_grid, smooth_noise
from hymunet.data.phantom_lesion import lesion_shape
from hymunet.data.phantoms import draw_lesion, draw_volume, write_phantoms
from hymunet.errors import HyMUNetError


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_image_and_mask_have_the_documented_types_and_shapes():
    phantom = draw_lesion(3, (96, 128))
    assert phantom.image.dtype == np.uint8
    assert phantom.image.shape == (3, 96, 128)
    assert phantom.mask.dtype == np.uint8
    assert phantom.mask.shape == (96, 128)
    assert set(np.unique(phantom.mask)) == {0, 1}
    assert draw_lesion(3).image.shape == (3, 192, 256)


def test_same_seed_same_bytes_in_any_order_and_thread():
    size = (64, 80)
    first = {seed: draw_lesion(seed, size) for seed in range(12)}
    np.random.seed(5)  # noqa: NPY002  the global generator must not matter
    again = {seed: draw_lesion(seed, size) for seed in reversed(range(12))}
    with ThreadPoolExecutor(4) as pool:
        threaded = dict(enumerate(pool.map(lambda seed: draw_lesion(seed, size), range(12))))
    for other in (again, threaded):
        for seed, phantom in first.items():
            assert phantom.image.tobytes() == other[seed].image.tobytes()
            assert phantom.mask.tobytes() == other[seed].mask.tobytes()
    assert len({phantom.image.tobytes() for phantom in first.values()}) == 12


def test_the_mask_is_the_half_level_of_the_opacity_that_was_drawn():
    for seed in range(20):
        phantom = draw_lesion(seed, (72, 96))
        image, level = phantoms._draw(seed, (72, 96))
        assert level.min() >= 0
        assert level.max() <= 1
        np.testing.assert_array_equal(phantom.mask == 1, level >= 0.5)
        np.testing.assert_array_equal(phantom.image, image)


def test_the_drawn_edge_lies_on_the_mask_edge():
    # skin of one colour: it stays as it is beyond the border, darkens across the contour
    y, x = frame_grid((160, 160))
    for seed in range(6):
        shape = lesion_shape(seed, y, x)
        skin = np.full((3, 160, 160), 200, np.float32)
        drawn = phantoms.draw_lesion_on(skin, seed, y, x, shape, 0.25)
        mask = shape.level >= 0.5
        far_outside = shape.level < 0.001
        np.testing.assert_allclose(drawn[:, far_outside], 200, atol=0.5)
        edge_in = mask & ~binary_erosion(mask, border_value=1)
        edge_out = ~mask & ~binary_erosion(~mask, border_value=1)
        assert drawn[1][edge_in].mean() < drawn[1][edge_out].mean()
        # opacity on the two sides of the contour brackets one half
        assert shape.level[edge_out].max() < 0.5 <= shape.level[edge_in].min()


def test_hair_and_all_else_over_the_lesion_leave_the_mask_alone():
    changed = 0
    for seed in range(30):
        with_them, level = phantoms._draw(seed, (64, 64))
        without, level_without = phantoms._draw(seed, (64, 64), distractors=False)
        np.testing.assert_array_equal(level, level_without)
        changed += bool((with_them != without).any())
    assert changed >= 20


def test_hair_and_glare_cross_lesions_but_hide_little_of_them():
    crossed = 0
    for seed in range(40):
        with_them, level = phantoms._draw(seed, (96, 96))
        without, _ = phantoms._draw(seed, (96, 96), distractors=False)
        inside = level >= 0.5
        difference = np.abs(with_them.astype(int) - without).max(0)[inside] > 25
        crossed += bool(difference.any())
        assert difference.mean() < 0.5, seed
    assert crossed >= 10


def test_black_corners_and_stickers_keep_clear_of_the_lesion():
    corners = stickers = 0
    y, x = frame_grid((48, 64))
    half = 0.5 * np.array([48, 64]) / np.sqrt(48 * 64)
    for seed in range(120):
        shape = lesion_shape(seed, y, x)
        inside = shape.level >= 0.5
        white = np.full((3, 48, 64), 255, np.float32)
        phantom_distractors.add_lens_corners(white, seed, y, x, shape)
        assert white[:, inside].min() == 255, seed
        corners += bool(white.min() < 20)
        white = np.full((3, 48, 64), 255, np.float32)
        rng = np.random.default_rng(seed)
        phantom_distractors._add_sticker(white, rng, y, x, half, shape)
        assert white[:, inside].min() == 255, seed
        stickers += bool(white.min() < 150)
    assert corners >= 8
    assert stickers >= 30


def test_areas_run_from_under_one_to_over_fifty_per_cent_and_some_touch_the_border():
    areas, touching = [], 0
    for seed in range(200):
        mask = lesion_shape(seed, *frame_grid((60, 80))).level >= 0.5
        areas.append(mask.mean())
        touching += bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    areas = np.array(areas)
    assert 0 < areas.min() < 0.01
    assert 0.5 < areas.max() < 0.95
    assert 0.05 < np.median(areas) < 0.25
    assert 20 <= touching <= 110


def test_the_body_is_one_piece_with_small_crumbs():
    for seed in range(40):
        mask = lesion_shape(seed, *frame_grid((96, 128))).level >= 0.5
        pieces, count = label(mask, structure=np.ones((3, 3)))
        largest = np.bincount(pieces.ravel())[1:].max()
        assert largest >= 0.8 * mask.sum(), (seed, count)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=str)
def test_twice_the_size_is_the_same_lesion(size):
    overlaps, colours = [], []
    for seed in range(20):
        small, small_level = phantoms._draw(seed, size)
        large, large_level = phantoms._draw(seed, (2 * size[0], 2 * size[1]))
        pooled = large_level.reshape(size[0], 2, size[1], 2).mean((1, 3))
        if (small_level >= 0.5).sum() >= 60:
            overlaps.append(iou(small_level >= 0.5, pooled >= 0.5))
        halved = large.reshape(3, size[0], 2, size[1], 2).mean((2, 4))
        colours.append(np.abs(halved.mean((1, 2)) - small.mean((1, 2))).max())
    assert len(overlaps) >= 14
    assert min(overlaps) > 0.93
    assert np.mean(overlaps) > 0.97
    assert max(colours) < 3


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (9, 1), (2, 3), (17, 31), (5, 200), (33, 33)], ids=str
)
def test_odd_and_tiny_sizes(size):
    for seed in range(30):
        phantom = draw_lesion(seed, size)
        assert phantom.image.shape == (3, *size)
        assert phantom.mask.shape == size


def _otsu(grey):
    """Threshold that maximises the variance between the two classes, Otsu 1979."""
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    weight, mean = np.cumsum(share), np.cumsum(share * np.arange(256))
    spread = weight * (1 - weight)
    between = np.where(spread > 0, (mean[-1] * weight - mean) ** 2 / np.maximum(spread, 1e-12), -1)
    return int(np.argmax(between))


def test_no_global_threshold_solves_it_though_lesions_are_visible():
    best, contrast = [], []
    for seed in range(100):
        phantom = draw_lesion(seed, (72, 96))
        truth = phantom.mask == 1
        # the best of three channels and both polarities, chosen by looking at the truth
        dark = [channel <= _otsu(channel) for channel in phantom.image]
        best.append(max(dice(found, truth) for d in dark for found in (d, ~d)))
        green = phantom.image[1].astype(float)
        contrast.append(green[~truth].mean() - green[truth].mean())
    assert np.mean(best) < 0.8
    assert np.mean(best) > 0.4  # and it is not hopeless either
    assert np.mean(np.array(contrast) > 8) > 0.9


def test_noise_has_unit_variance_and_ignores_the_resolution():
    coarse, fine = frame_grid((64, 64)), frame_grid((192, 192))
    samples = [smooth_noise(np.random.default_rng(s), *coarse, 10.0) for s in range(20)]
    assert abs(np.mean(samples)) < 0.1
    assert abs(np.std(samples) - 1) < 0.1
    again = smooth_noise(np.random.default_rng(0), *fine, 10.0)[1::3, 1::3]
    np.testing.assert_allclose(again, samples[0], atol=1e-4)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, None])
def test_a_wrong_seed_is_refused(seed):
    with pytest.raises(HyMUNetError, match="seed must be a whole number from 0"):
        draw_lesion(seed)
    with pytest.raises(HyMUNetError, match="seed must be a whole number from 0"):
        draw_volume(seed)


@pytest.mark.parametrize("size", [(0, 5), (5,), (5, 5, 5), 64, (3.5, 4), "ab"])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(HyMUNetError, match=r"size must be \(height, width\) in pixels"):
        draw_lesion(0, size)


# volumes


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_a_volume_has_every_label_and_every_channel(seed, num_labels):
    volume, labels = draw_volume(seed, (18, 24, 15), channels=3, num_labels=num_labels)
    assert volume.shape == (3, 18, 24, 15)
    assert volume.dtype == np.float32
    assert np.isfinite(volume).all()
    assert volume.min() >= 0
    assert labels.shape == (18, 24, 15)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == set(range(num_labels))
    assert 0.03 < (labels > 0).mean() < 0.25
    # the contrasts differ: no channel is a rescaled other one
    flat = np.corrcoef(volume.reshape(3, -1))
    assert flat[np.triu_indices(3, 1)].max() < 0.995


def test_some_channel_shows_each_structure():
    for seed in range(10):
        volume, labels = draw_volume(seed)
        body = binary_erosion(labels == 0) & (volume.mean(0) > 0.3 * volume.mean())
        inside = {k: labels == k for k in (1, 2)}
        for k in (1, 2):
            others = (body, inside[3 - k])
            for other in others:
                gap = [abs(c[inside[k]].mean() - c[other].mean()) / c[other].std() for c in volume]
                assert max(gap) > 0.8, (seed, k)


def test_volumes_are_deterministic_and_differ_by_seed():
    first, labels = draw_volume(4, (9, 10, 11))
    draw_volume(5, (9, 10, 11))
    again, labels_again = draw_volume(4, (9, 10, 11))
    assert first.tobytes() == again.tobytes()
    assert labels.tobytes() == labels_again.tobytes()
    assert draw_volume(6, (9, 10, 11))[1].tobytes() != labels.tobytes()


def test_odd_seeds_nest_and_even_seeds_adjoin():
    for seed in (1, 3, 5):
        _, labels = draw_volume(seed, (30, 30, 30))
        core = labels == 2
        grown = ~binary_erosion(~core, border_value=1)
        # what surrounds the core is the outer structure, nearly everywhere
        assert (labels[grown & ~core] == 1).mean() > 0.9
    for seed in (0, 2, 4):
        _, labels = draw_volume(seed, (30, 30, 30))
        grown = ~binary_erosion(~(labels == 2), border_value=1) & (labels != 2)
        assert 0.02 < (labels[grown] == 1).mean() < 0.7


@pytest.mark.parametrize("size", [(1, 1, 3), (1, 5, 2), (3, 3, 3), (2, 40, 1)], ids=str)
def test_tiny_volumes_hold_their_labels(size):
    for seed in range(8):
        _, labels = draw_volume(seed, size, channels=1, num_labels=3)
        assert set(np.unique(labels)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": (1, 1, 2)}, "fewer voxels than its 3 labels"),
        ({"size": (4, 4)}, r"size must be \(depth, height, width\) in voxels"),
        ({"size": (4, 0, 4)}, r"size must be \(depth, height, width\) in voxels"),
        ({"channels": 0}, "channels must be a whole number from 1"),
        ({"num_labels": 1}, "num_labels counts the background"),
        ({"num_labels": 257}, "num_labels counts the background"),
    ],
)
def test_wrong_volumes_are_refused(arguments, words):
    with pytest.raises(HyMUNetError, match=words):
        draw_volume(0, **arguments)


# folders


def test_a_written_folder_reads_back_and_its_split_is_whole(tmp_path):
    folder = write_phantoms(tmp_path / "set", 12, (40, 56), seed=3)
    assert folder == tmp_path / "set"
    with open(folder / "split.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["case", "split"]
    names = [row["case"] for row in rows]
    assert len(set(names)) == 12
    counts = {part: sum(row["split"] == part for row in rows) for part in ("train", "val", "test")}
    assert counts == {"train": 8, "val": 2, "test": 2}
    everything = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    pictures = {f"{part}/{name}.png" for part in ("images", "masks") for name in names}
    assert everything == {"split.csv"} | pictures
    for index, name in enumerate(names):
        phantom = draw_lesion(3_000_000 + index, (40, 56))
        with Image.open(folder / "images" / f"{name}.png") as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), phantom.image)
        with Image.open(folder / "masks" / f"{name}.png") as mask:
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.asarray(mask), phantom.mask * 255)


def test_sizes_vary_without_a_size_and_the_fractions_are_kept(tmp_path):
    write_phantoms(tmp_path, 6, seed=1, val_fraction=0.5, test_fraction=0)
    sizes = set()
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image, Image.open(tmp_path / "masks" / path.name) as mask:
            assert image.size == mask.size
            assert min(image.size) >= 160
            assert max(image.size) <= 256
            sizes.add(image.size)
    assert len(sizes) >= 4
    lines = (tmp_path / "split.csv").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["train"] * 3 + ["val"] * 3


def test_the_same_call_may_be_repeated_but_other_files_are_refused(tmp_path):
    write_phantoms(tmp_path, 4, (16, 16))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    (tmp_path / "split.csv").unlink()  # as after an interruption
    write_phantoms(tmp_path, 4, (16, 16))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    with pytest.raises(HyMUNetError, match=r"holds 2 other files \(images/phantom_0003.png"):
        write_phantoms(tmp_path, 3, (16, 16))
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(HyMUNetError, match=r"must be empty or new .* \(holiday.jpg\); choose"):
        write_phantoms(tmp_path, 4, (16, 16))
    assert (tmp_path / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "count must be a whole number from 1"),
        ({"count": 2}, "2 phantoms leave none to train on"),
        ({"count": 9, "val_fraction": 1.0}, "val_fraction must be from 0 to below 1"),
        ({"count": 9, "test_fraction": -0.1}, "test_fraction must be from 0 to below 1"),
        ({"count": 9, "size": (0, 4)}, r"size must be \(height, width\)"),
    ],
)
def test_wrong_folders_are_refused_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(HyMUNetError, match=words):
        write_phantoms(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    with pytest.raises(HyMUNetError, match="is a file, expected a folder"):
        write_phantoms(tmp_path / "taken", 5, (16, 16))
