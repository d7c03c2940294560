"""Looks into one network, image by image, and sums up: fields, gates, memory, checkerboards."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hymunet.evaluation.tables import mean_of
from hymunet.experiments.inspect.checkerboard import (
    checkerboard_score,
    noise_reference,
    power_spectrum,
)
from hymunet.experiments.inspect.gates import gate_numbers, summarise_gates
from hymunet.experiments.inspect.observe import Observation, observe, squared_gradient
from hymunet.experiments.inspect.receptive_field import CentredMean, extents, theoretical_fields
from hymunet.experiments.inspect.scan_memory import memory_histogram, memory_numbers
from hymunet.experiments.inspect.view import View, part_diameters
from hymunet.network.hymunet import HyMUNet
from hymunet.network.summary import KINDS

NOISE_IMAGES = 8


class Inspector:
    """Collects what `summary` tells of a network.

    Args:
        network: In evaluation mode; it is left as it is.
        seed: Of what is random: combinations of channels, noise.
    """

    def __init__(self, network: HyMUNet, seed: int = 0) -> None:
        self.network, self.config = network, network.config
        self.generator = torch.Generator().manual_seed(seed)
        stages = len(self.config.stages)
        self.strides = [self.config.stem_stride * 2**stage for stage in range(stages)]
        self.grid: tuple[int, ...] | None = None  # of the first image
        self.groups: list[str | None] = []
        self.diameters: list[float] = []
        self.gate_rows: list[dict[str, Any]] = []
        self.scores: dict[
            int, list[float | None]
        ] = {}  # by period: log of the score, an image each
        self.spectrum: np.ndarray | None = None
        self.spectra = 0
        self.fields = [CentredMean() for _ in range(stages + 1)]  # the last: of the logits
        self.noise_fields = [CentredMean() for _ in range(stages + 1)]
        tokens = [stage for stage, letter in enumerate(self.config.stages) if letter in "MA"]
        self.influence = {stage: CentredMean() for stage in tokens}
        self.own_share: dict[int, list[float]] = {stage: [] for stage in tokens}
        self.memory: dict[int, np.ndarray] = {}

    def add(self, view: View, case: str, group: str | None, gradients: bool) -> None:
        """Looks at one case; `gradients`: at its fields, influence maps and memory too, which take
        a backward pass a stage."""
        seen = observe(self.network, view.image, gradients)
        self.grid = self.grid or tuple(view.image.shape[2:])
        self.groups.append(group or case)
        self.diameters += part_diameters(view.inside)
        rows = gate_numbers(seen.skips, view.inside, view.counted)
        self.gate_rows += [{"case": case, "group": group or case, **row} for row in rows]
        self._add_spectrum(seen.logits[0].detach().cpu().double().numpy())
        if gradients:
            self._add_fields(seen, self.fields)
            for stage, mean in self.influence.items():
                self._add_influence(seen, stage, mean)
            for stage, scans in seen.scans.items():
                for scan, tokens in scans:
                    found = memory_histogram(scan, tokens.detach())
                    self.memory[stage] = self.memory.get(stage, 0) + found

    def add_noise(self) -> None:
        """Fields on white noise of zero mean and unit deviation, as training images have."""
        assert self.grid is not None, "noise is as large as the first image, which comes first"
        shape = (1, self.config.in_channels, *self.grid)
        for _ in range(NOISE_IMAGES):
            noise = torch.randn(shape, generator=self.generator)
            noise = noise.to(next(self.network.parameters()).device)
            self._add_fields(observe(self.network, noise, gradients=True), self.noise_fields)

    def _add_fields(self, seen: Observation, fields: Sequence[CentredMean]) -> None:
        outputs = [*zip(seen.stage_outputs, self.strides, strict=True), (seen.logits, 1)]
        for (output, stride), mean in zip(outputs, fields, strict=True):
            position = tuple(side // 2 for side in output.shape[2:])
            energy = squared_gradient(output, position, seen.image, self.generator)
            # a strided 3x3 convolution is centred on every stride-th pixel, the first included
            mean.add(energy.numpy(), [at * stride for at in position])

    def _add_influence(self, seen: Observation, stage: int, mean: CentredMean) -> None:
        output, tokens = seen.stage_outputs[stage], seen.stage_inputs[stage]
        position = tuple(side // 2 for side in output.shape[2:])
        energy = squared_gradient(output, position, tokens, self.generator).numpy()
        if energy.sum() > 0:
            self.own_share[stage].append(float(energy[position] / energy.sum()))
        energy[position] = 0.0  # the residual path: every token is mostly itself
        mean.add(energy, position)

    def _add_spectrum(self, logits: np.ndarray) -> None:
        for period in self.periods:
            found = [checkerboard_score(one, period) for one in logits]
            whole = [math.log(one) for one in found if one is not None]
            mean = float(np.mean(whole)) if whole else None
            self.scores.setdefault(period, []).append(mean)
        if logits.shape[1:] == self.grid:
            profiles = []
            for power in map(power_spectrum, logits):
                for axis, side in enumerate(power.shape):
                    line = np.moveaxis(power, axis, 0).reshape(side, -1)[:, 0]
                    frequency = np.linspace(0, 0.5, 65)
                    own = np.arange(side // 2 + 1) / side
                    profiles.append(np.interp(frequency, own, np.log10(line[: len(own)])))
            total = np.mean(profiles, axis=0)
            self.spectrum = total if self.spectrum is None else self.spectrum + total
            self.spectra += 1

    @property
    def periods(self) -> list[int]:
        """Periods of patterns that the strides of the network could draw."""
        return [2**k for k in range(1, int(math.log2(self.config.stride)) + 1)]

    def summary(self) -> dict[str, Any]:
        """The numbers; lengths are in pixels of the network's input."""
        assert self.grid is not None, "no image has been looked at"
        return {
            "grid": list(self.grid),
            "stages": self.config.stages,
            "skip": self.config.skip,
            "structures": self._structures(),
            "fields": self._fields(),
            "gates": summarise_gates(self.gate_rows),
            "memory": self._memory(),
            "influence": self._influence(),
            "checkerboard": self._checkerboard(),
        }

    def _structures(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {"n": len(self.diameters)}
        if self.diameters:
            low, middle, high = np.percentile(self.diameters, [5, 50, 95])
            numbers["diameter_px"] = {"p5": float(low), "p50": float(middle), "p95": float(high)}
        return numbers

    def _fields(self) -> list[dict[str, Any]]:
        assert self.grid is not None
        kinds = [KINDS[letter] for letter in self.config.stages]
        names = [f"encoder {i + 1}" for i in range(len(kinds))]
        theory = theoretical_fields(self.network, self.grid)
        rows = []
        for index, name in enumerate([*names, "output"]):
            seen = extents(self.fields[index])
            covered = None
            if seen and self.diameters:
                covered = float(np.mean(np.asarray(self.diameters) <= seen["d95"]))
            rows.append(
                {
                    "part": name,
                    "kind": [*kinds, "logits"][index],
                    "stride": [*self.strides, 1][index],
                    "theoretical_px": theory[index],
                    "images": seen,
                    "noise": extents(self.noise_fields[index]),
                    "structures_within_d95": covered,
                }
            )
        return rows

    def _memory(self) -> list[dict[str, Any]]:
        assert self.grid is not None
        rows = []
        for stage, counts in sorted(self.memory.items()):
            stride = self.strides[stage]
            grid = [side // stride for side in self.grid]
            every = memory_numbers(counts, grid, stride)
            rows.append(
                {
                    "part": f"encoder {stage + 1}",
                    "tokens": math.prod(grid),
                    "grid": grid,
                    "stride": stride,
                    "directions": every,
                }
            )
        return rows

    def _influence(self) -> list[dict[str, Any]]:
        return [
            {
                "part": f"encoder {stage + 1}",
                "kind": KINDS[self.config.stages[stage]],
                "own_share": float(np.mean(self.own_share[stage])) if mean.count else None,
                "others_px": extents(mean, self.strides[stage]),
            }
            for stage, mean in self.influence.items()
        ]

    def _checkerboard(self) -> list[dict[str, Any]]:
        assert self.grid is not None
        rows = []
        for period, scores in self.scores.items():
            known = [(s, g) for s, g in zip(scores, self.groups, strict=True) if s is not None]
            if not known:
                continue
            mean = mean_of([score for score, _ in known], [group for _, group in known])
            rows.append(
                {
                    "period_px": period,
                    "n": len(known),
                    "score": {k: None if v is None else math.exp(v) for k, v in mean.items()},
                    "noise": noise_reference(self.grid, self.config.stem_stride, period),
                }
            )
        return rows
