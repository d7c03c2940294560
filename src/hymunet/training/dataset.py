"""Training samples, whose order and augmentation depend on (seed, epoch, case) alone."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache
from hymunet.data.case import Case
from hymunet.data.patches import read_patch
from hymunet.data.preprocess import Preprocess, PreprocessConfig, to_unit_range
from hymunet.errors import HyMUNetError
from hymunet.network.segmenter import NetworkFacts
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import Ranks


def sample_seed(seed: int, epoch: int, case_id: str) -> int:
    """A 32-bit seed for one sample of one epoch; ids are hashed by CRC-32, the same anywhere."""
    words = [seed, epoch, zlib.crc32(case_id.encode())]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs; the order is a function of (seed, epoch).

    The epoch travels with the index, so that workers need no state: a resumed run draws what an
    uninterrupted one would have drawn. `set_epoch` is called by Lightning before each epoch.
    """

    def __init__(self, length: int, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: Sequence[int] = range(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist()
        return iter([(self.epoch, index) for index in order])


class RankBatches(Sampler[list[tuple[int, int]]]):
    """One process's share of each batch: its samples number rank, rank + size, ...

    A batch is the same whatever the number of processes, so each sample is met once an epoch over
    all of them. Where a last batch has too few for all, a process that has no share gets the first
    sample of it, so that all have as many batches; whoever counts must know a sample by its index.

    Args:
        sampler: Of all samples; Lightning tells it the epoch.
        batch_size: Over all processes.
        drop_last: Whether an incomplete batch is left out.
        ranks: Which process this is.
    """

    def __init__(
        self, sampler: EpochSampler, batch_size: int, drop_last: bool, ranks: Ranks
    ) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.drop_last, self.ranks = drop_last, ranks

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = list(self.sampler)
        for i in range(len(self)):
            batch = samples[i * self.batch_size : (i + 1) * self.batch_size]
            yield batch[self.ranks.rank :: self.ranks.size] or batch[:1]


class CaseDataset(Dataset[dict[str, Tensor]]):
    """Samples `image` (normalised float32, channels first), `label` and `valid` (uint8), `index`.

    Args:
        cases: The cases, in the order of their indices.
        cache: Where prepared cases come from.
        preprocess: Its normalisation and padding are applied after augmentation.
        augment: None for validation.
        seed: See `sample_seed`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        cache: CaseCache,
        preprocess: Preprocess,
        augment: Augment | None,
        seed: int,
    ) -> None:
        self.cases, self.cache, self.preprocess = list(cases), cache, preprocess
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        case = self.cases[index]
        cached = self.cache.load(case)
        image, label, valid = to_unit_range(cached.image), cached.label, cached.valid
        if self.augment is not None:
            image, label, valid = self.augment(
                image, label, valid, sample_seed(self.seed, epoch, case.id)
            )
        pad = self.preprocess.pad
        if not self.preprocess.config.normalises_whole:
            image = self.preprocess.normalise(image[None])[0]
        return {
            "image": pad(image[None])[0],
            "label": pad(label[None, None])[0, 0],
            "valid": pad(valid[None, None])[0, 0],  # pads are not valid
            "index": torch.tensor(index),
        }


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Patches of cases under the policy `window`: `patches` of each case an epoch, samples as of
    `CaseDataset`. Sample i is a patch of case i // patches.

    Args:
        cases: The cases, in the order of their indices.
        cache: Where prepared cases come from.
        preprocess: Its `dataset` normalisation is applied after augmentation; an image's own has
            been applied to the whole of it.
        augment: Applied to each patch; None for none.
        seed: See `sample_seed`.
        patches: A case, an epoch.
        foreground: Share of patches that are placed on a structure, see `choose_corner`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        cache: CaseCache,
        preprocess: Preprocess,
        augment: Augment | None,
        seed: int,
        patches: int,
        foreground: float,
    ) -> None:
        self.cases, self.cache, self.preprocess = list(cases), cache, preprocess
        self.augment, self.seed = augment, seed
        self.patches, self.foreground = patches, foreground

    def __len__(self) -> int:
        return len(self.cases) * self.patches

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        case = self.cases[index // self.patches]
        seed = sample_seed(self.seed, epoch, f"{case.id} {index % self.patches}")
        patch_size = self.preprocess.config.patch_size
        assert patch_size is not None  # under `window` there is one
        rng = np.random.default_rng(seed)
        image, label, valid = self.cache.read(
            case, lambda entry: read_patch(entry, patch_size, self.foreground, rng)
        )
        if self.augment is not None:
            image, label, valid = self.augment(image, label, valid, seed)
        if not self.preprocess.config.normalises_whole:
            image = self.preprocess.normalise(image[None])[0]
        return {
            "image": image.contiguous(),
            "label": label,
            "valid": valid,
            "index": torch.tensor(index // self.patches),
        }


def training_statistics(
    cases: Sequence[Case], cache: CaseCache, most: int = 500
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel over the prepared images, of evenly spaced cases where
    there are more than `most`.

    Raises:
        HyMUNetError: If all of them are of one and the same value.
    """
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, most).astype(int))]
    total = squares = torch.zeros(cache.in_channels, dtype=torch.float64)
    count = 0
    for case in chosen:
        image = to_unit_range(cache.load(case).image).double().flatten(1)
        total = total + image.sum(1)
        squares = squares + image.square().sum(1)
        count += image.shape[1]
    mean = total / count
    if bool(((squares / count - mean.square()) <= 1e-12 * mean.square()).all()):
        limits = cache.preprocess.config.clip
        within = (
            "" if limits is None else f" between the intensities {limits[0]:g} and {limits[1]:g}"
        )
        raise HyMUNetError(
            f"all training images are of one value{within}, so there is nothing to learn from: "
            "leave --intensity-range out, or give one in the files' own unit"
        )
    deviation = (squares / count - mean.square()).clamp(min=1e-6).sqrt()
    return (
        tuple(round(value, 4) for value in mean.tolist()),
        tuple(round(max(value, 1e-3), 4) for value in deviation.tolist()),
    )


def geometry_of(settings: Settings, facts: NetworkFacts) -> PreprocessConfig:
    """How images are prepared for a network; of `dataset` normalisation, before the training
    images' mean and deviation are known."""
    channels = facts.in_channels
    resized = settings.resize in ("squeeze", "letterbox")
    assert not resized or settings.image_size is not None  # the plan has chosen one
    return PreprocessConfig(
        image_size=(settings.image_size,) * 2 if resized and settings.image_size else None,
        resize=settings.resize,
        normalisation=settings.normalisation,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        multiple=facts.stride,
        patch_size=settings.patch_size,
        spacing_mm=settings.spacing_mm,
        clip=settings.intensity_range,
    )
