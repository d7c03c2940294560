"""Progressive resizing: each epoch's size, samples that shrink as a whole, resuming."""

import csv

import pytest
import torch
from rich.console import Console

from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache
from hymunet.data.formats import find_dataset
from hymunet.data.phantoms import write_phantoms
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.errors import HyMUNetError
from hymunet.training.dataset import CaseDataset
from hymunet.training.fit import fit
from hymunet.training.growth import Growth
from hymunet.training.options import TrainOptions
from hymunet.training.recorder import Recorder

FULL = Preprocess(PreprocessConfig((96, 96), "squeeze"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 10, size=(120, 130))


def sides(growth, epochs):
    return [growth.at(epoch).config.image_size[0] for epoch in range(epochs)]


def test_the_size_of_each_epoch():
    growth = Growth(TrainOptions(image_size=96, grow_from=32, epochs=10), FULL)
    assert sides(growth, 10) == [32] * 6 + [64] * 2 + [96] * 2
    assert sides(Growth(TrainOptions(image_size=96, epochs=3), FULL), 3) == [96] * 3
    # halfway between is rounded to what the network can halve
    growth = Growth(TrainOptions(image_size=96, grow_from=48, epochs=5), FULL)
    assert sides(growth, 5) == [48] * 3 + [64] + [96]


def test_images_masks_and_valid_areas_shrink_together_and_only_while_small(data, tmp_path):
    cases = find_dataset(data).cases
    cache = CaseCache(FULL, 3, 2, tmp_path)
    growth = Growth(TrainOptions(image_size=96, grow_from=32, epochs=10), FULL)
    grown = CaseDataset(cases, cache, FULL, None, 0, growth)
    plain = CaseDataset(cases, cache, FULL, None, 0)
    for index in range(len(cases)):
        full, small = plain[0, index], grown[0, index]
        assert small["image"].shape == (3, 32, 32)
        assert small["label"].shape == small["valid"].shape == (32, 32)
        assert small["valid"].all()
        assert abs(small["label"].float().mean() - full["label"].float().mean()) < 0.01
        assert abs(small["image"].mean() - full["image"].mean()) < 0.02
        for name, value in grown[9, index].items():
            assert torch.equal(value, full[name])


def test_a_small_sample_is_augmented_like_any_other(data, tmp_path):
    cases = find_dataset(data).cases
    growth = Growth(TrainOptions(image_size=96, grow_from=32, epochs=10), FULL)
    dataset = CaseDataset(cases, CaseCache(FULL, 3, 2, tmp_path), FULL, Augment(2), 0, growth)
    assert torch.equal(dataset[1, 0]["image"], dataset[1, 0]["image"])
    assert not torch.equal(dataset[1, 0]["image"], dataset[2, 0]["image"])


def test_a_letterbox_keeps_its_aspect_ratio_while_small(data, tmp_path):
    boxed = Preprocess(PreprocessConfig((96, 96), "letterbox"))
    growth = Growth(TrainOptions(image_size=96, grow_from=32, resize="letterbox"), boxed)
    cases = find_dataset(data).cases
    cache = CaseCache(boxed, 3, 2, tmp_path)
    sample = CaseDataset(cases, cache, boxed, None, 0, growth)[0, 0]
    height = round(32 * 120 / 130)
    assert sample["valid"].shape == (32, 32)
    assert sample["valid"][:height].all()
    assert not sample["valid"][height:].any()


def test_a_growing_run_resumes_as_if_it_had_not_stopped(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "cache"))
    options = TrainOptions(
        image_size=48, grow_from=32, epochs=3, batch_size=4, workers=0, device="cpu"
    )
    quiet = Console(quiet=True)
    fit(data, tmp_path / "whole", options, console=quiet)

    original = Recorder.on_train_epoch_end

    def stop_after_two(self, trainer, pl_module):
        original(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_end", stop_after_two)
        with pytest.raises(OSError, match="stopped"):
            fit(data, tmp_path / "parts", options, console=quiet)
    fit(data, tmp_path / "parts", options, console=quiet)
    rows = []
    for run in ("whole", "parts"):
        with open(tmp_path / run / "metrics.csv", newline="") as file:
            rows.append([{**row, "seconds": 0} for row in csv.DictReader(file)])
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]


@pytest.mark.parametrize("side", [8, 96, 128])
def test_sizes_that_do_not_grow_are_refused(side):
    with pytest.raises(HyMUNetError, match="grow_from must be 0, or 16 or more and below"):
        TrainOptions(image_size=96, grow_from=side)


def test_volumes_do_not_grow():
    native = Preprocess(PreprocessConfig(None, "native", "image", (0.0,), (1.0,)))
    with pytest.raises(HyMUNetError, match="native size"):
        Growth(TrainOptions(grow_from=64), native)
