"""A time budget as steps: how fast this machine trains each network of a comparison.

Measured before the first training, in turns, so that work that comes and goes on the machine slows
all networks and not the one whose turn it is; kept in compare.json, so that all seeds of a model,
by whatever call, take the same steps.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.console import Console

from hymunet.console import counted, say
from hymunet.data.cache import CaseCache
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.experiments.compare.entrants import Entrant, new_network
from hymunet.experiments.compare.record import read_record, write_record
from hymunet.experiments.compare.settle import Shared
from hymunet.network.segmenter import Segmenter
from hymunet.training.cost import Batches, Pace, pace_of
from hymunet.training.dataset import geometry_of
from hymunet.training.decide import uses_gpu
from hymunet.training.loading import make_loader, prepare
from hymunet.training.options import TrainOptions, seconds_of
from hymunet.training.planning.plan import Settings
from hymunet.wording import plural

ROUNDS = 3


def measure_paces(shared: Shared, entrants: Sequence[Entrant], console: Console) -> None:
    """Turns the budget into epochs of each network, where that has not been done yet.

    The fastest of three rounds counts. A network that fails here is left out; its training will
    say why.
    """
    known, budget = paces(shared), shared.options.budget
    new = [entrant for entrant in entrants if entrant.name not in known]
    if not new or budget is None:
        return
    say(console, "measuring how fast each model trains here, in turns")
    loaders = _Loaders(shared, console)
    rounds: dict[str, list[Pace]] = {entrant.name: [] for entrant in new}
    with counted(console, "measuring", ROUNDS * len(new)) as advance:
        for entrant in new * ROUNDS:
            with contextlib.suppress(Exception):  # of one network, which must not lose the others
                rounds[entrant.name].append(_pace(shared, entrant, loaders))
            advance()
    a_pass = loaders.steps_a_pass
    whole = min(shared.options.steps_per_epoch or a_pass, a_pass)
    for name, measured in rounds.items():
        if not measured:
            say(console, f"  {name}: cannot be trained", "yellow")
            continue
        pace = Pace(min(p.step for p in measured), min(p.look for p in measured))
        shorter = shared.options.steps_per_epoch is None
        epochs, steps = pace.epochs_in(seconds_of(budget), whole, shorter)
        known[name] = {**asdict(pace), "epochs": epochs, "steps_per_epoch": steps}
        say(
            console,
            f"  {name}: {1000 * pace.step:.0f} ms a step, {pace.look:.1f} s a validation: "
            f"{plural(epochs, 'epoch')} of {plural(steps, 'step')} in {budget}, "
            f"{epochs * steps / a_pass:.1f} passes over the training cases",
        )
    write_record(shared.folder, read_record(shared.folder) | {"paces": known})


def within_budget(options: TrainOptions, shared: Shared, entrant: Entrant) -> TrainOptions:
    """The options with epochs instead of a budget, where the network's pace is known."""
    pace = paces(shared).get(entrant.name)
    if options.budget is None or pace is None:
        return options
    return replace(
        options, budget=None, epochs=pace["epochs"], steps_per_epoch=pace["steps_per_epoch"]
    )


def paces(shared: Shared) -> dict[str, dict[str, Any]]:
    """What was measured, by name: seconds of a `step` and of a `look` at the validation part, and
    what fits into the budget, `epochs` of `steps_per_epoch`."""
    return dict(read_record(shared.folder).get("paces") or {})


def _pace(shared: Shared, entrant: Entrant, loaders: "_Loaders") -> Pace:
    settings = shared.settings_of(entrant, 0)
    device = torch.device("cuda" if uses_gpu(settings) else "cpu")
    network = new_network(entrant, settings, shared.in_channels, shared.spatial_dims)
    return pace_of(network.to(device), loaders.of(network, settings), settings, device)


class _Loaders:
    """Loaders of training and validation, the same for all networks that see the same images."""

    def __init__(self, shared: Shared, console: Console) -> None:
        self.shared, self.console = shared, console
        self.made: dict[PreprocessConfig, tuple[Batches, Batches]] = {}

    def of(self, network: Segmenter, settings: Settings) -> tuple[Batches, Batches]:
        """As `fit` makes them, but for the normalisation, which takes no other time."""
        geometry = geometry_of(settings, network.config)
        if geometry not in self.made:
            preprocess = Preprocess(geometry)
            cache = CaseCache(preprocess, network.config.in_channels, network.config.num_labels)
            by_id = {case.id: case for case in self.shared.dataset.cases}
            train, val = (
                [by_id[id_] for id_ in ids]
                for ids in (self.shared.split.train, self.shared.split.val)
            )
            prepare([*train, *val], cache, self.console)
            self.made[geometry] = (
                make_loader(train, cache, preprocess, settings, training=True),
                make_loader(val, cache, preprocess, settings, training=False),
            )
        return self.made[geometry]

    @property
    def steps_a_pass(self) -> int:
        """Batches of the training cases."""
        return max((len(training) for training, _ in self.made.values()), default=1)
