"""What the rules of a plan look at: a data set, its cases, and what has been chosen so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hymunet.data.case import Dataset
from hymunet.data.preprocess import PreprocessConfig
from hymunet.data.survey import CaseSurvey
from hymunet.network.config import HyMUNetConfig


@dataclass(frozen=True)
class Choice:
    """One setting.

    Args:
        name: What is chosen, an option of `train` where it is one.
        value: The value.
        reason: Why, in words.
    """

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Origin:
    """What is known of the model that a training starts from.

    Args:
        name: What it is called.
        architecture: Of its network.
        preprocess: How it reads images; None: its file does not say.
        cases: Fingerprints of the cases that it was trained on.
    """

    name: str
    architecture: HyMUNetConfig
    preprocess: PreprocessConfig | None = None
    cases: frozenset[str] = frozenset()


@dataclass
class Look:
    """Args:
    dataset: Its name, labels, regions and split.
    rows: Of the cases that teach.
    everything: Of all cases that can be read; says which structures there are, and nothing else.
    known_split: Whether it is known which cases teach; else `rows` are all of them.
    given: Settings that somebody chose, by name.
    on_gpu: Whether it is trained on a GPU.
    origin: The model to start from; None: from scratch.
    choices: Made so far.
    """

    dataset: Dataset
    rows: Sequence[CaseSurvey]
    given: Mapping[str, Any]
    on_gpu: bool = False
    origin: Origin | None = None
    everything: Sequence[CaseSurvey] = ()
    known_split: bool = False
    choices: list[Choice] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        """The value chosen for `name`."""
        return next(choice.value for choice in self.choices if choice.name == name)

    @property
    def dims(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.rows[0].size)

    def training_cases(self) -> int:
        """How many cases teach: 70 % where that is not known yet."""
        return max(1, round((1.0 if self.known_split else 0.7) * len(self.rows)))

    def median_size(self) -> tuple[int, ...]:
        """Of images, at the chosen spacing."""
        wanted = self["spacing_mm"]
        sizes = []
        for row in self.rows:
            scale: Sequence[float] = (1.0,) * self.dims
            if wanted is not None and row.spacing_mm is not None:
                scale = [own / to for own, to in zip(row.spacing_mm, wanted, strict=True)]
            sizes.append([side * factor for side, factor in zip(row.size, scale, strict=True)])
        return tuple(max(1, round(side)) for side in np.median(np.array(sizes), axis=0))


def by(sides: Sequence[float] | np.ndarray) -> str:
    """Sizes in words: 64 x 64."""
    return " x ".join(f"{side:.4g}" for side in sides)
