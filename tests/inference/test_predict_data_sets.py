"""Data sets as they are unpacked: predicted, written as their masks are, and read by the judge."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from hymunet import HyMUNet, Predictor
from hymunet.data.case_io import read_label
from hymunet.data.formats import find_dataset
from hymunet.data.label_map import inverse_label_map
from hymunet.data.mask_reading import values_in_mask
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.inference.predict import predict
from hymunet.network.model_file import save_model
from tests.data.drawn_files import described, volume

TOY = {"dims": (4, 8), "depths": (1, 1), "d_state": 2, "stages": "CC", "conv_norm": "group"}
SHAPE = (9, 8, 6)


def save(path, channels, dataset, **info):
    """A network whose masks hold every class, with what training writes of the data's labels."""
    torch.manual_seed(0)
    network = HyMUNet(channels, dataset.num_labels, spatial_dims=3, activation="softmax", **TOY)
    images = [Predictor(network)(list(case.channels)).probability for case in dataset.cases]
    with torch.no_grad():
        network.head.logits.bias -= torch.from_numpy(
            np.log([np.median([p[k] for p in images]) for k in range(dataset.num_labels)])
        ).float()
    values = inverse_label_map(dataset.cases[0].label_map, dataset.num_labels)
    return save_model(path, network, info | ({"label_values": list(values)} if values else {}))


@pytest.fixture
def brats(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("BraTS20_001", "BraTS20_002"):
        for ending in ("flair", "t1", "t1ce", "t2"):
            values = rng.random(SHAPE, np.float32)
            volume(tmp_path / "brats" / name / f"{name}_{ending}.nii.gz", values)
        labels = rng.choice([0, 1, 2, 4], SHAPE).astype(np.uint8)
        volume(tmp_path / "brats" / name / f"{name}_seg.nii.gz", labels)
    return tmp_path / "brats"


def test_brats_there_and_back(brats, tmp_path):
    """predict -> masks of 0, 1, 2, 4 -> read as training's masks are -> the same classes."""
    dataset = find_dataset(brats)
    model, output = save(tmp_path / "m.safetensors", 4, dataset), tmp_path / "out"
    report = predict(str(brats), model=[model], output=output)
    assert report.failed == {}
    assert [path.name for path in report.written] == ["BraTS20_001.nii.gz", "BraTS20_002.nii.gz"]
    assert {row["image"] for row in report.measurements} == {
        str(brats / name / name) for name in ("BraTS20_001", "BraTS20_002")
    }
    for case, path in zip(dataset.cases, report.written, strict=True):
        assert path.parent == output
        expected = Predictor(model)(list(case.channels)).mask
        assert set(np.unique(expected)) == {0, 1, 2, 3}
        assert values_in_mask(path) == [0, 1, 2, 4]
        as_truth = replace(case, label=path)
        np.testing.assert_array_equal(read_label(as_truth, 4).labels, expected)
        np.testing.assert_array_equal(
            nibabel.load(path).affine, nibabel.load(case.channels[0]).affine
        )
    # the judge reads the folder by the truth's own values
    by_masks = evaluate(output, brats, num_labels=4).cases
    by_model = evaluate(model, brats).cases
    scores = [
        [row[m] for row in rows for m in ("dice", "tp", "fp")] for rows in (by_masks, by_model)
    ]
    assert scores[0] == scores[1]


def test_nnunets_test_images_with_a_channel_missing(tmp_path):
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for folder, id in (("imagesTr", "a"), ("imagesTs", "b"), ("imagesTs", "c")):
        for number in range(2):
            volume(root / folder / f"{id}_{number:04d}.nii.gz", rng.random(SHAPE, np.float32))
    volume(root / "labelsTr" / "a.nii.gz", rng.choice([0, 5, 9], SHAPE).astype(np.uint8))
    content = {
        "channel_names": {"0": "x", "1": "y"}, "file_ending": ".nii.gz",
        "labels": {"background": 0, "one": 9, "two": 5}, "numTraining": 1,
    }  # fmt: skip
    dataset = find_dataset(described(root, content))
    model = save(tmp_path / "m.safetensors", 2, dataset)
    (root / "imagesTs" / "b_0000.nii.gz").unlink()
    report = predict(str(root / "imagesTs"), model=[model], output=tmp_path / "out")
    assert report.exit_code == 1
    (failed,) = report.failed.items()
    assert failed[0] == str(root / "imagesTs" / "b_0001.nii.gz")
    assert "has no channel _0000, only b_0001.nii.gz" in failed[1]
    assert report.written == [tmp_path / "out" / "c.nii.gz"]
    assert set(values_in_mask(report.written[0])) == {0, 5, 9}
    summary = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert summary["failed"] == report.failed


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 1, 4], [0, 1, 2, 70000], "0124", [0, 1, 2, 0.5]])
def test_values_that_a_file_cannot_mean(brats, tmp_path, values):
    model = save(tmp_path / "m.safetensors", 4, find_dataset(brats))
    save_model(model, Predictor(model).network, {"label_values": values})
    with pytest.raises(HyMUNetError, match=r"label_values are .*; expected 4 different whole"):
        predict(str(brats), model=[model], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
