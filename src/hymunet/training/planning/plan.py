"""What a data set asks for: the settings of a training, each by a rule that says why.

The rules read the rows of `hymunet.data.survey` and nothing else of the data. What the user gives
goes before what a rule would choose.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from hymunet.data.case import Dataset
from hymunet.data.survey import CaseSurvey
from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions
from hymunet.training.planning import effort, geometry, intensity, target
from hymunet.training.planning.look import Choice, Look, Origin

# in the order in which they need each other
RULES: tuple[tuple[str, Callable[[Look], tuple[Any, str]]], ...] = (
    ("structures", target.structures),
    ("activation", target.activation),
    ("preset", target.preset),
    ("resize", geometry.resize),
    ("spacing_mm", geometry.spacing_mm),
    ("stem_stride", geometry.stem_stride),
    ("image_size", geometry.image_size),
    ("patch_size", geometry.patch_size),
    ("normalisation", intensity.normalisation),
    ("intensity_range", intensity.intensity_range),
    ("class_weights", target.class_weights),
    ("batch_size", effort.batch_size),
    ("patches", effort.patches),
    ("epochs", effort.epochs),
)


@dataclass(frozen=True)
class Plan:
    """All settings that depend on the data.

    Args:
        choices: In the order in which they were made.
        median_size: Of the images, at the chosen spacing.
        training_cases: How many cases teach, as far as is known before a split is drawn.
    """

    choices: tuple[Choice, ...]
    median_size: tuple[int, ...]
    training_cases: int

    def __getitem__(self, name: str) -> Any:
        return next(choice.value for choice in self.choices if choice.name == name)

    def but(self, name: str, value: Any, reason: str) -> "Plan":
        """The plan with another value for `name`."""
        changed = (Choice(name, value, reason) if c.name == name else c for c in self.choices)
        return replace(self, choices=tuple(changed))

    def to_json(self) -> dict[str, Any]:
        """Name -> value and reason."""
        return {c.name: {"value": c.value, "reason": c.reason} for c in self.choices}


@dataclass(frozen=True)
class Settings(TrainOptions):
    """Options with nothing left open, and the activation, which no option names."""

    structures: int = 1
    resize: Literal["squeeze", "letterbox", "native", "window"] = "squeeze"
    stem_stride: Literal[1, 2, 4] = 2
    normalisation: Literal["dataset", "image", "nonzero"] = "dataset"
    batch_size: int = 8
    patches: int = 1
    epochs: int = 40
    activation: Literal["sigmoid", "softmax"] = "sigmoid"


def make_plan(
    dataset: Dataset,
    rows: Sequence[CaseSurvey],
    options: TrainOptions | None = None,
    on_gpu: bool = False,
    origin: Origin | None = None,
    teaching: Collection[str] | None = None,
) -> Plan:
    """Chooses every setting.

    Args:
        dataset: Its name, labels, regions and split.
        rows: What `survey` saw of its cases; those with a problem are left out.
        options: What somebody chose; the rest is None.
        on_gpu: Whether it is trained on a GPU.
        origin: The model that training starts from; None: from scratch.
        teaching: Ids of the training cases, from which alone everything but the number of
            structures is taken; None: those of the data's own split, else not known: all.

    Raises:
        HyMUNetError: If no case can be used.
    """
    rows = [row for row in rows if row.problem is None]
    if not rows:
        raise HyMUNetError("no case of the data set can be read; `hymunet verify` says why")
    if origin is not None and origin.architecture.spatial_dims != len(rows[0].size):
        origin = replace(origin, preprocess=None)  # whoever loads its weights will refuse it
    given = {f.name: getattr(options, f.name) for f in fields(TrainOptions)} if options else {}
    if teaching is None and dataset.split is not None:
        teaching = {id_ for id_, part in dataset.split.items() if part == "train"}
    seen = rows if teaching is None else [row for row in rows if row.id in teaching] or rows
    look = Look(dataset, seen, given, on_gpu, origin, rows, teaching is not None)
    geometry.check_given(look)
    for name, rule in RULES:
        value, reason = rule(look)
        if given.get(name) is not None:
            value, reason = given[name], "as given"
        look.choices.append(Choice(name, value, reason))
    weights, classes = look["class_weights"], look["structures"] + 1
    if weights is not None and len(weights) != classes:
        raise HyMUNetError(
            f"class_weights has {len(weights)} numbers, and there are {classes} classes with the "
            "background: give one for each, the background's first"
        )
    return Plan(tuple(look.choices), look.median_size(), look.training_cases())


def settle(options: TrainOptions, plan: Plan) -> Settings:
    """The options with what the plan chose; a budget has become epochs by then."""
    values = {f.name: getattr(options, f.name) for f in fields(TrainOptions)}
    values |= {choice.name: choice.value for choice in plan.choices}
    return Settings(**(values | {"budget": None}))
