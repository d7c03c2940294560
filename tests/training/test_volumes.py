"""Volumes train in windows, are validated whole, and come back on their own grid and by name."""

import json
import os

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hymunet.data.phantoms import draw_volume
from hymunet.data.splits import load_split
from hymunet.errors import HyMUNetError
from hymunet.inference.predictor import Predictor
from hymunet.inference.sliding_window import sliding_window
from hymunet.network.hymunet import HyMUNet
from hymunet.network.model_file import read_info
from hymunet.training.fit import fit
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.options import TrainOptions
from hymunet.training.planning.plan import Settings

nibabel = pytest.importorskip("nibabel")

OPTIONS = TrainOptions(
    patch_size=(16, 16, 16), epochs=2, patches=2, workers=0, device="cpu", stem_stride=1, seed=3
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    os.environ["HYMUNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["HYMUNET_CACHE"]


def write_task(folder, count=8, spacings=(1.0, 2.0)):
    """A task in the Decathlon's layout: two structures, spacings that differ."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    training = []
    for i in range(count):
        size = (20 + i, 24, 22)
        pixels, labels = draw_volume(2 * i, size, channels=1, num_labels=3)
        affine = np.diag([1.0, 1.0, spacings[i % len(spacings)], 1.0])
        files = {"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"}
        for array, name in ((pixels[0], files["image"]), (labels, files["label"])):
            nibabel.save(nibabel.Nifti1Image(array.T, affine), folder / name)
        training.append(files)
    content = {
        "name": "drawn",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "front", "2": "back"},
        "numTraining": count,
        "training": training,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("data") / "Task99_Drawn")


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    fit(task, output, OPTIONS, console=Console(quiet=True))
    return output


def test_the_data_say_what_is_segmented_and_the_plan_how(run):
    info = read_info(run)
    assert info["classes"] == ["front", "back"]
    assert info["licence"] == "CC-BY-SA 4.0"  # of the images, in dataset.json
    assert info["architecture"]["num_classes"] == 3
    assert info["architecture"]["activation"] == "softmax"
    assert info["architecture"]["stem_stride"] == 1
    assert info["preprocess"]["resize"] == "window"
    assert info["preprocess"]["patch_size"] == [16, 16, 16]
    # the median of the cases that teach, whose slices are 1 and 2 mm apart in turns
    teaching = [
        1.0 + int(id_.removeprefix("c")) % 2 for id_ in load_split(run / "split.json").train
    ]
    assert info["preprocess"]["spacing_mm"] == [np.median(teaching), 1.0, 1.0]
    plan = json.loads((run / "plan.json").read_text())["plan"]
    assert plan["patch_size"] == {"value": [16, 16, 16], "reason": "as given"}
    assert "spacings from" in plan["spacing_mm"]["reason"]


def test_a_prediction_lies_on_the_volumes_own_grid(run, task):
    prediction = Predictor(run)(task / "imagesTr" / "c3.nii.gz")
    assert prediction.mask.shape == (23, 24, 22)
    assert prediction.spacing_mm == (2.0, 1.0, 1.0)
    assert [row["class"] for row in prediction.measurements] == ["front", "back"]


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(run, task, tmp_path, monkeypatch):
    from hymunet.training.recorder import Recorder

    save = Recorder._save_checkpoint

    def stop_after_it(self, trainer):
        save(self, trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_save_checkpoint", stop_after_it)
        with pytest.raises(KeyboardInterrupt):
            fit(task, tmp_path / "run", OPTIONS, console=Console(quiet=True))
    fit(task, tmp_path / "run", OPTIONS, console=Console(quiet=True))
    one, two = load_file(run / "best.safetensors"), load_file(tmp_path / "run/best.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_budget_becomes_epochs_once(task, tmp_path):
    options = TrainOptions(
        patch_size=(16, 16, 16), patches=1, workers=0, device="cpu", budget="2s", seed=3
    )
    finished = fit(task, tmp_path / "run", options, console=Console(quiet=True))
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert f"epochs: {finished.epochs}\n" in config
    assert "\nbudget:" not in config
    again = fit(task, tmp_path / "run", options, console=Console(quiet=True))
    assert again.epochs == finished.epochs


def test_validation_is_of_the_whole_volume_by_blended_windows():
    torch.manual_seed(0)
    network = HyMUNet(
        1, 2, spatial_dims=3, dims=(4, 4, 8, 8), depths=(1, 1, 1, 1), activation="softmax",
        conv_norm="group", stem_stride=1,
    )  # fmt: skip
    settings = Settings(
        structures=1, activation="softmax", resize="window", patch_size=(8, 8, 8), boundary_weight=0
    )
    task = SegmentationTask(network, settings, steps_per_epoch=1)
    image = torch.randn(1, 1, 12, 9, 8)
    label = torch.zeros(1, 12, 9, 8, dtype=torch.uint8)
    label[:, 3:] = 1
    batch = {"image": image, "label": label, "valid": torch.ones_like(label)}
    batch["index"] = torch.arange(1)
    task.on_validation_epoch_start()
    with torch.no_grad():
        task.validation_step(batch, 0)
        logits = sliding_window(task.averaged_network(), image, (8, 8, 8), overlap=0.25)
    found = logits.argmax(1) == 1
    truth = label > 0
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert task.validation[0][1].item() == pytest.approx(dice.item(), abs=1e-6)


def test_what_verify_calls_an_error_stops_a_training_before_it_starts(tmp_path):
    folder = write_task(tmp_path / "Task98_Broken", count=4)
    whole = (folder / "imagesTr" / "c1.nii.gz").read_bytes()
    (folder / "imagesTr" / "c1.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HyMUNetError, match=r"cannot be trained on as it is(.|\n)*c1"):
        fit(folder, tmp_path / "run", OPTIONS, console=Console(quiet=True))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_nested_regions_of_several_channels_are_learnt_and_written_as_the_data_store_them(tmp_path):
    from hymunet.data.formats import find_dataset
    from hymunet.data.mask_reading import read_stored_mask
    from hymunet.inference.predict import predict

    root = tmp_path / "BraTS20"
    for i in range(6):
        pixels, labels = draw_volume(2 * i + 1, (18, 20, 16), channels=4, num_labels=4)
        stored = np.array([0, 2, 1, 4], np.uint8)[labels]  # edema, core, enhancing
        folder = root / f"BraTS20_Training_{i:03}"
        folder.mkdir(parents=True)
        channels = zip(("flair", "t1", "t1ce", "t2"), pixels, strict=True)
        for name, array in (*channels, ("seg", stored)):
            volume = nibabel.Nifti1Image(array.T, np.eye(4))
            nibabel.save(volume, folder / f"{folder.name}_{name}.nii.gz")
    options = TrainOptions(
        patch_size=(16, 16, 16), epochs=1, patches=1, batch_size=2, workers=0, device="cpu",
        test_share=0.0, stem_stride=1,
    )  # fmt: skip
    fit(root, tmp_path / "run", options, console=Console(quiet=True))
    info = read_info(tmp_path / "run")
    assert info["architecture"]["in_channels"] == 4
    assert (info["architecture"]["activation"], info["architecture"]["num_classes"]) == (
        "sigmoid",
        3,
    )
    assert info["classes"] == ["WT", "TC", "ET"]
    assert info["label_values"] == [0, 2, 1, 4]
    case = find_dataset(root).cases[0]
    folder = case.channels[0].parent
    report = predict(
        str(folder), model=tmp_path / "run", output=tmp_path / "out", threshold=1e-6, device="cpu"
    )
    stored = read_stored_mask(report.written[0]).values
    assert set(np.unique(stored)) <= {0, 1, 2, 4}
    assert 4 in stored  # at this threshold the innermost region is everywhere
