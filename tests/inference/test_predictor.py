"""The predictor: any size and kind of image, masks as the probabilities say, clear refusals."""

import json
import subprocess
import sys
import warnings

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hymunet import HyMUNet, Predictor
from hymunet.data.image_io import read_image
from hymunet.data.phantoms import draw_volume
from hymunet.errors import HyMUNetError, NonFiniteError
from hymunet.inference.describe import describe_model
from hymunet.network.model_file import find_model

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}
PREPROCESS = {
    "image_size": (32, 48), "resize": "squeeze", "normalisation": "dataset",
    "mean": (0.7, 0.5, 0.4), "std": (0.2, 0.1, 0.3), "multiple": 16,
}  # fmt: skip


@pytest.fixture
def predictor(toy):
    return Predictor(toy)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (37, 53), (100, 31)], ids=str)
@pytest.mark.parametrize("preprocess", [None, PREPROCESS, {**PREPROCESS, "resize": "letterbox"}])
def test_any_size_comes_back_at_its_own_size(toy, size, preprocess):
    predictor = Predictor(toy, info={"preprocess": preprocess} if preprocess else None)
    image = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    prediction = predictor(image)
    assert prediction.mask.shape == size
    assert prediction.mask.dtype == np.uint8
    assert prediction.probability.shape == (1, *size)
    assert prediction.probability.dtype == np.float32
    assert (prediction.probability >= 0).all()
    assert (prediction.probability <= 1).all()
    np.testing.assert_array_equal(prediction.mask, prediction.probability[0] >= 0.5)
    assert prediction.spacing_mm is None


def test_probabilities_are_the_networks_on_a_padded_image(toy, predictor, picture):
    """By hand: each channel to mean 0 and deviation 1, zeros below and at the right, cropped."""
    unit = picture.astype(np.float64) / 255
    mean, deviation = unit.mean(axis=(1, 2)), unit.std(axis=(1, 2))
    padded = np.zeros((1, 3, 48, 64), np.float32)
    padded[0, :, :37, :53] = (unit - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        expected = torch.sigmoid(toy(torch.from_numpy(padded)))[0, :, :37, :53].numpy()
    np.testing.assert_allclose(predictor(picture).probability, expected, atol=1e-5)


def test_the_files_preprocessing_is_applied_and_undone(toy, picture):
    """By hand: squeezed to (32, 48), the training images' statistics, probabilities enlarged."""
    image = torch.from_numpy(picture)[None].float() / 255
    small = F.interpolate(image, (32, 48), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(PREPROCESS[n]).view(1, 3, 1, 1) for n in ("mean", "std"))
    with torch.no_grad():
        inner = torch.sigmoid(toy((small - mean) / std))
    expected = F.interpolate(inner, (37, 53), mode="bilinear", antialias=True)[0].numpy()
    prediction = Predictor(toy, info={"preprocess": PREPROCESS})(picture)
    np.testing.assert_allclose(prediction.probability, expected, atol=1e-5)


def test_an_image_does_not_see_its_neighbours_in_the_batch(toy, predictor):
    images = torch.randint(0, 256, (3, 3, 37, 53), dtype=torch.uint8)
    whole = predictor.probability(images)
    for i in range(3):
        alone = predictor.probability(images[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-5, atol=1e-6)
        array = predictor(images[i].numpy()).probability
        torch.testing.assert_close(alone[0], torch.from_numpy(array), rtol=0, atol=0)


# thresholds


def test_threshold_is_the_argument_else_the_files_else_a_half(toy, picture):
    probability = Predictor(toy)(picture).probability[0]
    low, high = (float(q) for q in np.quantile(probability, (0.2, 0.8)))
    cases = [
        (Predictor(toy), 0.5),
        (Predictor(toy, info={"threshold": high}), high),
        (Predictor(toy, info={"threshold": high}, threshold=low), low),
    ]
    for predictor, threshold in cases:
        mask = predictor(picture).mask
        np.testing.assert_array_equal(mask, probability >= np.float32(threshold))
        assert 0 < mask.mean() < 1  # or any threshold would do


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -0.1, float("nan")])
def test_an_impossible_threshold(toy, threshold):
    with pytest.raises(HyMUNetError, match=f"threshold must lie between 0 and 1.* not {threshold}"):
        Predictor(toy, threshold=threshold)
    with pytest.raises(HyMUNetError, match=f"threshold must lie between 0 and 1.* not {threshold}"):
        Predictor(toy, info={"threshold": threshold})


def test_nested_structures_hold_each_other(picture):
    """Class 2 lies inside class 1: a pixel above both thresholds is 2, and 1's area counts it."""
    predictor = Predictor(HyMUNet(3, 2, **TOY))
    probability = np.zeros((2, 4, 5), np.float32)
    probability[0, 1:, 1:] = 0.9
    probability[1, 2:, 3:] = 0.5
    mask = predictor.cut(probability)
    np.testing.assert_array_equal(
        mask, [[0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 1, 2, 2], [0, 1, 1, 2, 2]]
    )
    with torch.no_grad():
        predictor.network.head.logits.bias[:] = 100.0  # both structures are everywhere
    prediction = predictor(picture)
    assert (prediction.mask == 2).all()
    assert [row["fraction"] for row in prediction.measurements] == [1.0, 1.0]


def test_exclusive_classes_take_the_largest():
    predictor = Predictor(HyMUNet(3, 3, activation="softmax", **TOY))
    probability = np.array([[[0.5, 0.3, 0.1]], [[0.3, 0.4, 0.3]], [[0.2, 0.3, 0.6]]], np.float32)
    np.testing.assert_array_equal(predictor.cut(probability), [[0, 1, 2]])
    assert predictor.classes == ["class 1", "class 2"]


# files


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_photo_stored_turned_gives_the_upright_mask(
    predictor, picture, tmp_path, orientation, suffix
):
    """Stored so that the tag, as EXIF defines it, turns it upright."""
    upright = np.moveaxis(picture, 0, -1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # to be turned clockwise
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    expected = predictor(picture)
    prediction = predictor(path)
    np.testing.assert_array_equal(prediction.mask, expected.mask)
    np.testing.assert_array_equal(prediction.probability, expected.probability)


def test_pictures_of_every_kind(predictor, picture, tmp_path):
    """Equal pixels, however they are stored, give equal masks."""
    rgb = Image.fromarray(np.moveaxis(picture, 0, -1))
    grey, palette, cmyk = rgb.convert("L"), rgb.quantize(32), rgb.convert("CMYK")
    see_through = rgb.copy()
    see_through.putalpha(255)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    binary = grey.convert("1")
    as_shown = {
        "grey.png": (grey, grey.convert("RGB")),
        "deep.png": (deep, grey.convert("RGB")),
        "deep.tif": (deep, grey.convert("RGB")),
        "palette.png": (palette, palette.convert("RGB")),
        "rgba.png": (see_through, rgb),
        "cmyk.tif": (cmyk, cmyk.convert("RGB")),
        "binary.png": (binary, binary.convert("RGB")),
    }
    for name, (stored, shown) in as_shown.items():
        stored.save(tmp_path / name)
        expected = predictor(np.moveaxis(np.asarray(shown), -1, 0))
        prediction = predictor(str(tmp_path / name))
        np.testing.assert_allclose(
            prediction.probability, expected.probability, atol=1e-5, err_msg=name
        )
        assert prediction.mask.shape == (37, 53)


def test_transparency_is_composited_on_black(predictor, picture, tmp_path):
    alpha = np.full((1, 37, 53), 255, np.uint8)
    alpha[:, :10] = 0
    rgba = np.moveaxis(np.concatenate([picture, alpha]), 0, -1)
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    prediction = predictor(tmp_path / "cut.png")
    black = picture.copy()
    black[:, :10] = 0
    np.testing.assert_array_equal(prediction.mask, predictor(black).mask)
    assert "alpha composited on black" in prediction.notes


def test_grey_models_read_colour_and_grey_without_a_warning(picture, tmp_path):
    predictor = Predictor(HyMUNet(1, 1, **TOY))
    rgb = Image.fromarray(np.moveaxis(picture, 0, -1))
    rgb.save(tmp_path / "rgb.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it must not write to
        one, other = predictor(tmp_path / "rgb.png"), predictor(tmp_path / "grey.png")
    np.testing.assert_allclose(one.probability, other.probability, atol=0.05)


def test_a_decoded_image_and_channels_in_several_files(toy, predictor, picture, tmp_path):
    paths = []
    for i, channel in enumerate(picture):
        paths.append(tmp_path / f"channel{i}.png")
        Image.fromarray(channel).save(paths[-1])
    expected = predictor(picture).probability
    np.testing.assert_array_equal(predictor(paths).probability, expected)
    np.testing.assert_array_equal(predictor(read_image(paths, 3)).probability, expected)


# arrays


def test_arrays_of_every_layout_and_type(predictor, picture):
    expected = predictor(picture)
    frozen = picture.copy()
    frozen.flags.writeable = False
    unit = picture.astype(np.float32) / 255
    same = {
        "read-only": frozen,
        "views": np.ascontiguousarray(picture[:, ::-1])[:, ::-1],
        "column-major": np.asfortranarray(picture),
        "uint16": picture.astype(np.uint16) * 257,
        "big-endian": (picture.astype(np.uint16) * 257).astype(">u2"),
        "float64": unit.astype(np.float64),
        "long double": unit.astype(np.longdouble),
        "big-endian float": unit.astype(">f4"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, array in same.items():
            before = array.copy()
            probability = predictor(array).probability
            np.testing.assert_allclose(probability, expected.probability, atol=1e-5, err_msg=name)
            np.testing.assert_array_equal(array, before)
        half = predictor(unit.astype(np.float16)).probability
    np.testing.assert_allclose(half, expected.probability, atol=0.02)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint32, complex, object], ids=str)
def test_types_that_say_not_what_white_is(predictor, dtype):
    with pytest.raises(HyMUNetError, match=r"must be uint8 .* or float, but it is"):
        predictor(np.zeros((3, 16, 16), dtype))


def test_values_that_are_not_finite_are_counted(predictor, picture):
    image = picture.astype(np.float32)
    image[0, 3, 4] = np.nan
    image[1, 2:4, 7] = np.inf
    with pytest.raises(NonFiniteError, match="has 3 values that are NaN, infinite or beyond float"):
        predictor(image)
    large = picture.astype(np.float64)
    large[2, 0, 0] = 1e39
    with pytest.raises(NonFiniteError, match="has 1 values that are"):
        predictor(large)


def test_a_network_that_overflows_is_reported(toy, picture):
    info = {"preprocess": {**PREPROCESS, "std": (1e-38,) * 3}}
    with pytest.raises(NonFiniteError, match="output is not finite for this image"):
        Predictor(toy, info=info)(picture)


@pytest.mark.parametrize("shape", [(4, 16, 16), (16, 16), (3, 8, 16, 16), (16, 16, 3)], ids=str)
def test_other_channels_or_axes(predictor, shape):
    with pytest.raises(HyMUNetError, match=r"reads 3 channels of 2-D images, \(channels, height"):
        predictor(np.zeros(shape, np.uint8))


def test_nothing_in_it(predictor):
    with pytest.raises(HyMUNetError, match=r"shape \(3, 0, 16\): there is nothing in it"):
        predictor(np.zeros((3, 0, 16), np.uint8))


def test_files_with_other_channels(tmp_path, picture):
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / "rgb.png")
    with pytest.raises(HyMUNetError, match="has 3 channels, but 4 were expected"):
        Predictor(HyMUNet(4, 1, **TOY))(tmp_path / "rgb.png")
    with pytest.raises(HyMUNetError, match="does not exist"):
        Predictor(HyMUNet(4, 1, **TOY))(tmp_path / "none.png")


# volumes


def volume_network():
    torch.manual_seed(4)
    return HyMUNet(4, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)


def test_volumes_with_four_channels_and_three_classes():
    volume, _ = draw_volume(0, (35, 51, 35), channels=4, num_labels=3)
    prediction = Predictor(volume_network())(volume)
    assert prediction.probability.shape == (3, 35, 51, 35)
    np.testing.assert_allclose(prediction.probability.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(prediction.mask, prediction.probability.argmax(axis=0))
    counts = [row["volume_voxels"] for row in prediction.measurements]
    assert counts == [int((prediction.mask == k).sum()) for k in (1, 2)]
    assert sum(counts) > 0


def test_a_volume_file_brings_its_spacing(tmp_path):
    volume = np.random.default_rng(0).random((4, 9, 17, 12), np.float32)
    affine = np.diag([0.5, 2.0, 3.0, 1.0])  # of x, y, z, the reverse of our axes
    nibabel.save(nibabel.Nifti1Image(volume.T, affine), tmp_path / "volume.nii.gz")
    predictor = Predictor(volume_network())
    prediction = predictor(tmp_path / "volume.nii.gz")
    np.testing.assert_array_equal(prediction.probability, predictor(volume).probability)
    assert prediction.spacing_mm == (3.0, 2.0, 0.5)
    for row in prediction.measurements:
        assert row["volume_mm3"] == pytest.approx(row["volume_voxels"] * 3.0)


def test_a_picture_for_a_volume_model(picture):
    with pytest.raises(HyMUNetError, match=r"4 channels of 3-D images, \(channels, depth, height"):
        Predictor(volume_network())(np.zeros((4, 16, 16), np.float32))


# models and metadata


def test_a_file_a_run_folder_and_a_network_are_the_same_model(toy, toy_file, picture, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(toy_file.read_bytes())
    expected = Predictor(toy)(picture).probability
    for model in (toy_file, str(toy_file), run):
        predictor = Predictor(model)
        np.testing.assert_array_equal(predictor(picture).probability, expected)
        assert predictor.classes == ["lesion"]
        assert predictor.info["licence"] == "CC0-1.0"
    assert find_model(run) == run / "best.safetensors"


def test_a_run_without_a_model(tmp_path):
    with pytest.raises(HyMUNetError, match=r"holds no best\.safetensors; .* first epoch"):
        Predictor(tmp_path)
    with pytest.raises(HyMUNetError, match="there is no model file"):
        Predictor(tmp_path / "none.safetensors")


def test_a_network_in_training_mode_predicts_with_its_statistics(toy, picture):
    expected = Predictor(toy)(picture).probability
    copy = HyMUNet.from_config(toy.config)
    copy.load_state_dict(toy.state_dict())
    np.testing.assert_array_equal(Predictor(copy.train())(picture).probability, expected)


def test_metadata_that_do_not_fit_the_network(toy):
    with pytest.raises(HyMUNetError, match=r"1 structure, but its metadata name 2 \(a, b\)"):
        Predictor(toy, info={"classes": ["a", "b"]})
    with pytest.raises(HyMUNetError, match="does not fit the network, of 3 channels and stride 16"):
        Predictor(toy, info={"preprocess": {**PREPROCESS, "mean": (0.5,), "std": (0.2,)}})
    with pytest.raises(HyMUNetError, match="multiples of 8, does not fit"):
        Predictor(toy, info={"preprocess": {**PREPROCESS, "multiple": 8}})
    with pytest.raises(HyMUNetError, match="sharpen"):
        Predictor(toy, info={"preprocess": {**PREPROCESS, "sharpen": 1}})


def test_a_device_that_is_not_there(toy):
    with pytest.raises(HyMUNetError, match="no device 'gpu0'; expected cpu or cuda"):
        Predictor(toy, device="gpu0")
    with pytest.raises(HyMUNetError, match="no CUDA device here"):
        Predictor(toy, device="cuda:99")
    assert Predictor(toy, device="cpu").device.type == "cpu"


def test_a_model_says_what_it_is_for(toy_file):
    about, terms = describe_model(Predictor(toy_file).info)
    assert about == "trained on drawn lesions (7 cases)"
    assert terms == "licence: CC0-1.0; research use only, not a medical device"
    assert describe_model({})[1].startswith("licence: not stated")
    about, terms = describe_model({"domain": "moles", "licence": "CC-BY-NC-4.0"})
    assert about.startswith("for moles; trained on unknown data")
    assert terms.startswith("licence: CC-BY-NC-4.0, no commercial use; research use only")
    for licence, forbidden in (
        ("CC BY-NC-SA 4.0", True),
        ("CC0-1.0 AND CC-BY-NC 4.0", True),
        ("CC-BY-SA 4.0", False),
        ("NCSA", False),
    ):
        assert ("no commercial use" in describe_model({"licence": licence})[1]) is forbidden


HUGE = """
import json, resource, sys
import numpy as np
from hymunet import HyMUNet, Predictor
preprocess = {"image_size": (64, 64), "resize": "squeeze"}
network = HyMUNet(3, 1, dims=(4, 8, 8, 16), depths=(1, 1, 1, 1), d_state=2)
network.head.logits.bias.data.fill_(100.0)  # the whole frame, for which measuring costs most
predictor = Predictor(network, device="cpu", info={"preprocess": preprocess})
predictor(np.zeros((3, 32, 32), np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prediction = predictor(sys.argv[1])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([prediction.mask.shape, prediction.measurements, grown / 2**20]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is in KiB on Linux")
def test_a_slide_of_a_hundred_megapixels(tmp_path):
    Image.new("RGB", (9000, 12000), (120, 60, 90)).save(tmp_path / "slide.png")
    command = [sys.executable, "-c", HUGE, str(tmp_path / "slide.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shape, (row,), gigabytes = json.loads(done.stdout)
    assert shape == [12000, 9000]
    assert (row["area_px"], row["parts"]) == (108_000_000, 1)
    assert row["bounding_box"] == [[0, 12000], [0, 9000]]
    assert gigabytes < 4.0  # 0.3 of pixels, 1.2 of them as float32, 0.4 of probabilities, copies


def test_channels_last_and_pillow_pictures_are_told_what_to_do(predictor):
    with pytest.raises(HyMUNetError, match=r"channels are last: use np\.moveaxis"):
        predictor(np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(HyMUNetError, match=r"not a Image; for a Pillow picture"):
        predictor(Image.new("RGB", (30, 20)))
