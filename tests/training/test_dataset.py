"""Samples and their order are functions of (seed, epoch, case)."""

import json

import pytest
import torch
from torch.utils.data import DataLoader

from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache
from hymunet.data.formats import find_dataset
from hymunet.data.phantoms import write_phantoms
from hymunet.data.preprocess import Preprocess, PreprocessConfig, to_unit_range
from hymunet.training.dataset import CaseDataset, EpochSampler, sample_seed, training_statistics
from hymunet.training.loading import collate


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 6, size=(40, 48))
    return find_dataset(folder).cases


@pytest.fixture
def cache(tmp_path):
    preprocess = Preprocess(PreprocessConfig((32, 32), "squeeze"))
    return CaseCache(preprocess, 3, 2, tmp_path / "cache")


def test_the_order_is_a_permutation_that_changes_with_epoch_and_seed():
    def order(seed, epoch, shuffle=True):
        sampler = EpochSampler(50, seed, shuffle)
        sampler.set_epoch(epoch)
        pairs = list(sampler)
        assert {e for e, _ in pairs} == {epoch}
        return [index for _, index in pairs]

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 3, shuffle=False) == list(range(50))


def test_seeds_differ_by_epoch_and_case_and_are_the_same_anywhere():
    seeds = {sample_seed(s, e, c) for s in range(3) for e in range(3) for c in ("a", "b", "c")}
    assert len(seeds) == 27
    assert sample_seed(1, 2, "ISIC_0000001") == 3487125551


def test_a_sample_depends_on_seed_epoch_and_case_alone(cases, cache):
    def dataset(seed):
        return CaseDataset(cases, cache, cache.preprocess, Augment(2), seed)

    first = dataset(0)
    a = first[0, 1]
    for key in [(0, 2), (5, 0), (1, 1)]:
        first[key]  # whatever was drawn in between
    again = dataset(0)[0, 1]
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert not torch.equal(a["image"], dataset(0)[1, 1]["image"])
    assert not torch.equal(a["image"], dataset(1)[0, 1]["image"])


def test_workers_change_nothing(cases, cache):
    def batches(workers):
        dataset = CaseDataset(cases, cache, cache.preprocess, Augment(2), 0)
        loader = DataLoader(
            dataset,
            batch_size=2,
            sampler=EpochSampler(len(cases), 0, True),
            num_workers=workers,
            collate_fn=collate,
        )
        return list(loader)

    for one, two in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_and_prediction_prepare_an_image_alike(cases, cache):
    from hymunet.data.image_io import read_image

    config = PreprocessConfig((32, 32), "letterbox", mean=(0.6, 0.5, 0.4), std=(0.2, 0.3, 0.1))
    preprocess = Preprocess(config)
    boxed = CaseCache(preprocess, 3, 2, cache.folder)
    sample = CaseDataset(cases, boxed, preprocess, None, 0)[0, 0]
    pixels = torch.from_numpy(read_image(cases[0].channels).pixels)[None]
    # the cache rounds to whole grey levels
    difference = (sample["image"] - preprocess(pixels)[0]).abs().amax(dim=(1, 2))
    assert (difference <= 0.5 / 255 / torch.tensor(config.std) + 1e-5).all()


def test_pads_are_not_valid(cases, tmp_path):
    preprocess = Preprocess(PreprocessConfig((32, 32), "letterbox"))
    cache = CaseCache(preprocess, 3, 2, tmp_path)
    sample = CaseDataset(cases, cache, preprocess, None, 0)[0, 0]  # 40 x 48 becomes 27 x 32
    assert sample["valid"].shape == (32, 32)
    assert sample["valid"][:27].all()
    assert not sample["valid"][27:].any()


def test_samples_of_different_sizes_are_padded_at_the_far_end():
    def sample(height, width):
        return {
            "image": torch.ones(3, height, width),
            "label": torch.ones(height, width, dtype=torch.uint8),
            "valid": torch.ones(height, width, dtype=torch.uint8),
            "index": torch.tensor(height),
        }

    batch = collate([sample(4, 6), sample(5, 3)])
    assert batch["image"].shape == (2, 3, 5, 6)
    assert batch["valid"].sum(dim=(1, 2)).tolist() == [24, 15]
    assert batch["valid"][1, :5, :3].all()
    assert batch["index"].tolist() == [4, 5]


def test_statistics_are_those_of_all_pixels(cases, cache):
    mean, std = training_statistics(cases, cache)
    pixels = torch.stack([to_unit_range(cache.load(case).image) for case in cases])
    pixels = pixels.transpose(0, 1).flatten(1).double()
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-3)
    assert std == pytest.approx(pixels.std(1).tolist(), abs=1e-3)
    assert json.loads(json.dumps([mean, std])) == [list(mean), list(std)]
