"""Patches for training: functions of (seed, epoch, case), normalised by the whole image."""

import numpy as np
import pytest
import torch

from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache
from hymunet.data.case import Case
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.training.dataset import CaseDataset, PatchDataset

nibabel = pytest.importorskip("nibabel")
PATCH = (8, 8, 12)


@pytest.fixture
def cases(tmp_path):
    made = []
    for number in range(2):
        rng = np.random.default_rng(number)
        values = rng.normal(100 + 50 * number, 10, (20, 18, 16)).astype(np.float32)  # (x, y, z)
        labels = np.zeros((20, 18, 16), np.uint8)
        labels[12:15, 3:6, 10:13] = 1
        paths = [tmp_path / f"{number}{kind}.nii.gz" for kind in ("", "_seg")]
        for path, array in zip(paths, (values, labels), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
        made.append(Case(f"v{number}", (paths[0],), paths[1]))
    return made


def made(cases, folder, normalisation="image", augment=None, foreground=0.5, **settings):
    config = PreprocessConfig(
        None, "window", normalisation, (100.0,), (20.0,), 4, PATCH, **settings
    )
    preprocess = Preprocess(config)
    cache = CaseCache(preprocess, 1, 2, folder)
    return PatchDataset(cases, cache, preprocess, augment, 3, 4, foreground), cache, preprocess


def test_samples_are_functions_of_seed_epoch_case_and_number(cases, tmp_path):
    data, *_ = made(cases, tmp_path / "cache", augment=Augment(3, intensity=False))
    again, *_ = made(cases, tmp_path / "cache", augment=Augment(3, intensity=False))
    assert len(data) == 8
    seen = set()
    for epoch in range(2):
        for index in range(8):
            sample, other = data[epoch, index], again[epoch, index]
            for name in ("image", "label", "valid"):
                assert torch.equal(sample[name], other[name])
            assert sample["index"] == index // 4
            assert sample["image"].shape == (1, *PATCH)
            seen.add(sample["image"].numpy().tobytes())
    assert len(seen) == 16


def test_each_image_is_normalised_by_the_whole_of_it(cases, tmp_path):
    data, cache, preprocess = made(cases, tmp_path / "cache")
    whole = CaseDataset(cases, cache, preprocess, None, 3)
    for number in range(2):
        image = whole[0, number]["image"]
        assert image.shape == (1, 16, 18, 20)
        assert abs(float(image.mean())) < 1e-2
        assert float(image.std()) == pytest.approx(1, abs=1e-2)
        windows = image.unfold(1, 8, 1).unfold(2, 8, 1).unfold(3, 12, 1)[0].reshape(-1, *PATCH)
        for j in range(4):  # each patch is a part of its image
            patch = data[0, number * 4 + j]["image"]
            assert (windows == patch).flatten(1).all(dim=1).any()


def test_by_the_data_sets_statistics_where_there_is_a_scale(cases, tmp_path):
    data, cache, preprocess = made(cases, tmp_path / "cache", "dataset", clip=(90.0, 110.0))
    image = CaseDataset(cases, cache, preprocess, None, 3)[0, 0]["image"]
    assert float(image.min()) == -0.5
    assert float(image.max()) == 0.5
    assert float(data[0, 0]["image"].min()) >= -0.5


def test_structures_are_met(cases, tmp_path):
    data, *_ = made(cases, tmp_path / "cache", foreground=1.0)
    assert all(data[epoch, i]["label"].any() for epoch in range(5) for i in range(8))


def test_another_spacing_is_another_entry(cases, tmp_path):
    data, *_ = made(cases, tmp_path / "cache")
    finer, cache, preprocess = made(cases, tmp_path / "cache", spacing_mm=(1.0, 1.0, 1.0))
    assert CaseDataset(cases, cache, preprocess, None, 3)[0, 0]["image"].shape == (1, 32, 18, 20)
    assert data[0, 0]["image"].shape == finer[0, 0]["image"].shape
