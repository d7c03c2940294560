"""Which structures are scored: the data's own, those that their masks show, or a model's."""

import json

import nibabel
import numpy as np
import pytest

from hymunet.cli import main
from hymunet.data.case import Dataset
from hymunet.data.formats import find_dataset
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.structures import scored, structures_of, structures_of_model
from tests.data.drawn_files import described, picture
from tests.evaluation.small_models import save_small, write_data

SIDE_BY_SIDE = {"background": 0, "far": 3, "near": 1, "middle": 2}
NESTED = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "active": 4}
OVERLAPPING = {"background": 0, "both": [1, 2], "right": [2, 3], "tip": 3}


def drawn(values, seed: int, shape=(20, 24)) -> np.ndarray:
    """A mask in which each of `values` has a block of its own, moved by the seed."""
    mask = np.zeros(shape, np.uint8)
    for index, value in enumerate(values):
        top = 1 + 4 * index + seed % 3
        mask[top : top + 3, 2 + seed % 5 : 17] = value
    return mask


def write_nnunet(root, labels, values, count=3):
    """nnU-Net raw data of pictures whose masks hold `values`, and their masks moved by a pixel, as
    another tool's; returns data, folder of masks, truths and predictions by case."""
    content = {"channel_names": {"0": "grey"}, "labels": labels, "file_ending": ".png"}
    described(root / "data", content)
    truths, found = {}, {}
    for index in range(count):
        case = f"c{index}"
        truths[case] = drawn(values, index)
        found[case] = np.roll(truths[case], 1, axis=1)
        pixels = np.random.default_rng(index).integers(0, 256, truths[case].shape, dtype=np.uint8)
        picture(root / "data" / "imagesTr" / f"{case}_0000.png", pixels)
        picture(root / "data" / "labelsTr" / f"{case}.png", truths[case])
        picture(root / "theirs" / f"{case}.png", found[case])
    return root / "data", root / "theirs", truths, found


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize(
    ("labels", "stored"),
    [
        (SIDE_BY_SIDE, {"near": [1], "middle": [2], "far": [3]}),
        (NESTED, {"whole": [1, 2, 4], "core": [1, 4], "active": [4]}),
        (OVERLAPPING, {"both": [1, 2], "right": [2, 3], "tip": [3]}),
    ],
    ids=["side by side", "nested", "overlapping"],
)
def test_what_the_data_declare_is_scored_a_row_each(tmp_path, labels, stored):
    values = sorted({value for of in stored.values() for value in of})
    data, theirs, truths, found = write_nnunet(tmp_path, labels, values)
    result = evaluate(theirs, data, output=tmp_path / "out")
    assert list(result.summary["classes"]) == list(stored)
    for row in result.cases:
        of = stored[row["class"]]
        expected = dice(np.isin(truths[row["case"]], of), np.isin(found[row["case"]], of))
        assert row["dice"] == pytest.approx(expected, rel=1e-12)
        assert 0 < row["dice"] < 1
    written = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert list(written["structures"]) == list(stored)
    page = result.report.read_text("utf-8")
    assert all(f"<strong>{name}</strong>" in page for name in stored)
    assert page.count('<figure class="case">') == len(truths)


def test_the_number_of_labels_that_is_said_goes_first(tmp_path):
    data, theirs, *_ = write_nnunet(tmp_path, SIDE_BY_SIDE, [1, 2])
    assert evaluate(theirs, data, num_labels=4).summary["classes"].keys() == {
        "near", "middle", "far",
    }  # fmt: skip
    fewer = evaluate(theirs, data, num_labels=3)
    assert list(fewer.summary["classes"]) == ["near", "middle"]
    said = "--num-labels says 2 structures, the data 3 (near, middle, far)"
    assert any(said in note for note in fewer.notes)
    with pytest.raises(HyMUNetError, match="counts the background too: at least 2, got 1"):
        evaluate(theirs, data, num_labels=1)


def pairs(root, masks: list[np.ndarray]):
    """images/ and masks/ without any description."""
    for index, mask in enumerate(masks):
        picture(root / "images" / f"c{index}.png", np.full(mask.shape, 9 * index + 7, np.uint8))
        picture(root / "masks" / f"c{index}.png", mask)
    return root


def test_without_a_description_the_reference_masks_say_which_classes_there_are(tmp_path):
    data = pairs(tmp_path / "data", [drawn([1, 2], 0), drawn([4], 1), drawn([], 2)])
    result = evaluate(data / "masks", data)
    assert list(result.summary["classes"]) == ["class 1", "class 2", "class 4"]
    assert [row["dice"] for row in result.cases] == [1] * 9
    said = "the reference masks hold 0, 1, 2, 4: scored as class 1, class 2, class 4"
    assert any(said in note for note in result.notes)
    # ... and 3, which none of them holds, would be wrong everywhere and count nowhere
    picture(tmp_path / "theirs" / "c0.png", drawn([1, 3], 0))
    picture(tmp_path / "theirs" / "c1.png", drawn([4], 1))
    picture(tmp_path / "theirs" / "c2.png", drawn([], 2))
    with pytest.raises(HyMUNetError, match=r"c0.png holds 3, which no reference mask does.*0, 1"):
        evaluate(tmp_path / "theirs", data)
    said = evaluate(tmp_path / "theirs", data, num_labels=5).summary["classes"]
    assert list(said) == ["class 1", "class 2", "class 3", "class 4"]
    assert said["class 3"]["failures"]["false_alarm"] == ["c0"]


def test_binary_masks_of_several_kinds_are_one_structure(tmp_path):
    masks = [drawn([1], 0), drawn([255], 1), drawn([], 2)]
    data = pairs(tmp_path / "data", masks)
    result = evaluate(data / "masks", data)
    assert list(result.summary["classes"]) == ["foreground"]
    assert not any("the reference masks hold" in note for note in result.notes)


def test_masks_that_are_no_masks_are_refused(tmp_path):
    numbered = np.arange(400, dtype=np.uint8).reshape(20, 20)  # as counted cells are
    data = pairs(tmp_path / "data", [numbered, numbered])
    with pytest.raises(HyMUNetError, match=r"hold 256 values from 0 to 255 .*--num-labels"):
        evaluate(data / "masks", data)


def write_volume(path, values: np.ndarray, affine: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values.T, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def write_volumes(root):
    """Decathlon data of two structures in volumes of 3 x 0.5 x 0.5 mm; the other tool's masks are a
    slice off."""
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    entries = []
    for index in range(2):
        truth = np.zeros((6, 14, 16), np.uint8)
        truth[1:4, 2:6, 3:9], truth[1:4, 7:12, 3:9] = 1, 2
        pixels = np.random.default_rng(index).normal(size=truth.shape).astype(np.float32)
        write_volume(root / "data" / "imagesTr" / f"v{index}.nii.gz", pixels, affine)
        write_volume(root / "data" / "labelsTr" / f"v{index}.nii.gz", truth, affine)
        write_volume(root / "theirs" / f"v{index}.nii.gz", np.roll(truth, 1, axis=0), affine)
        name = f"v{index}.nii.gz"
        entries.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"modality": {"0": "MRI"}, "labels": labels, "training": entries}
    return described(root / "data", content), affine


@pytest.mark.parametrize("plain", [False, True], ids=["data set", "folder of masks"])
def test_volumes_are_measured_in_mm_and_masks_on_another_grid_are_refused(tmp_path, plain):
    data, affine = write_volumes(tmp_path)
    theirs, truth = tmp_path / "theirs", data / "labelsTr" if plain else data
    result = evaluate(theirs, truth, output=tmp_path / "out")
    names = ["class 1", "class 2"] if plain else ["Anterior", "Posterior"]
    assert list(result.summary["classes"]) == names
    assert [row["hd"] for row in result.cases] == [3.0] * 4
    assert {row["unit"] for row in result.cases} == {"mm"}
    assert "slice 3 of 6" in result.report.read_text("utf-8")
    elsewhere = affine.copy()
    elsewhere[2, 3] = 3.0
    values = np.asanyarray(nibabel.load(theirs / "v1.nii.gz").dataobj).T
    write_volume(theirs / "v1.nii.gz", values, elsewhere)
    words = (
        rf"v1.nii.gz lies on another grid than the {'reference' if plain else 'image'}.*up to 3;"
    )
    with pytest.raises(HyMUNetError, match=words):
        evaluate(theirs, truth)


def data_of(*names: str, regions=None) -> Dataset:
    return Dataset("t", "t", (), label_names=dict(enumerate(names, 1)), regions=regions)


CHAIN = {"whole": (1, 2), "core": (2,)}
ACROSS = {"left": (1,), "either": (1, 2)}


def test_a_model_with_the_structures_of_the_data_is_scored_by_them():
    assert structures_of_model(["lesion"], False, Dataset("t", "t", ())).notes == ()
    same = structures_of_model(["Near", "far"], False, data_of("near", "Far"))
    assert (same.regions, same.notes) == (None, ())
    across = structures_of_model(["a", "b"], False, data_of("a", "b", regions=ACROSS))
    assert (across.regions, across.notes) == (ACROSS, ())
    nested = structures_of_model(["whole", "core"], True, data_of("w only", "core", regions=CHAIN))
    assert (nested.regions, nested.notes) == (None, ())
    assert scored(["whole", "core"], True, None) == CHAIN


def test_other_names_are_told():
    (note,) = structures_of_model(["foreground"], False, data_of("lesion")).notes
    assert "the model finds foreground; t holds lesion: compared in this order" in note
    notes = structures_of_model(["a", "b"], True, data_of("a", "b")).notes
    assert any("the data's side by side" in note for note in notes)


@pytest.mark.parametrize(
    ("classes", "nested", "data", "words"),
    [
        (["lesion"], False, data_of("a", "b"), "1 and 2, so one cannot be scored by the other"),
        (["b", "a"], False, data_of("a", "b"), "the same names with other class indices"),
        (["x", "a"], False, data_of("a", "b"), "the same names with other class indices"),
        (["a", "b"], True, data_of("a", "b", regions=ACROSS), "these regions do not"),
    ],
    ids=["number", "order", "one in another place", "regions"],
)
def test_a_model_of_other_structures_is_refused(classes, nested, data, words):
    with pytest.raises(HyMUNetError, match=words):
        structures_of_model(classes, nested, data)


def test_a_model_of_one_structure_is_not_scored_on_three(tmp_path, capsys):
    model = save_small(write_data(tmp_path / "phantoms"), tmp_path / "m.safetensors")
    data, *_ = write_nnunet(tmp_path, SIDE_BY_SIDE, [1, 2, 3])
    assert main(["evaluate", str(model), str(data)]) == 1
    said = capsys.readouterr().err
    assert "the model finds lesion" in said
    assert "near, middle, far" in said


def test_a_mask_that_cannot_be_read_is_left_to_the_scoring(tmp_path):
    data = pairs(tmp_path / "data", [drawn([1, 2], 0), drawn([1, 2], 1)])
    (data / "masks" / "c1.png").write_bytes(b"no picture")
    assert structures_of(find_dataset(data)).classes == ["class 1", "class 2"]
    picture(tmp_path / "theirs" / "c0.png", drawn([1, 2], 0))
    picture(tmp_path / "theirs" / "c1.png", drawn([1, 2], 1))
    with pytest.raises(HyMUNetError, match=r"c1.png is no image by its content"):
        evaluate(tmp_path / "theirs", data)
