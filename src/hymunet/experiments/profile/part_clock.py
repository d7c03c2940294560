"""How the time of a forward pass is spread over a network's parts.

Each module that a part consists of is wrapped by a clock, on a copy of the network. Not by forward
hooks: where one watches, large features are no longer computed in strips (`network.strips`), and
the pass would be another one.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hymunet.experiments import passes, timing
from hymunet.network.hymunet import HyMUNet
from hymunet.network.summary import network_parts

# what belongs to no part: the logits enlarged to the image's size, strips put together
REST = "rest"


class PartClock:
    """A copy of `network` that tells how long each of its parts takes.

    Args:
        network: Left as it is; the copy has weights of its own.
        device: Where both are.
    """

    def __init__(self, network: HyMUNet, device: torch.device) -> None:
        self.network = copy.deepcopy(network)
        self._wait = timing.waiter(device)
        self._spent: dict[str, float] = {}
        parts = network_parts(self.network)
        self._names = [name for name, _, _ in parts]
        part_of = {module: name for name, _, modules in parts for module in modules}
        for path, module in list(self.network.named_modules()):
            # a ModuleList (the auxiliary heads) is never called itself
            if module in part_of and not isinstance(module, nn.ModuleList):
                parent, _, own = path.rpartition(".")
                clocked = _Clocked(module, part_of[module], self._spent, self._wait)
                self.network.get_submodule(parent)._modules[own] = clocked

    def __call__(self, image: Tensor) -> dict[str, float]:
        """Seconds by part of one forward pass, the rest included: their sum is the whole pass."""
        self._spent.clear()
        self._spent.update(dict.fromkeys(self._names, 0.0))
        start = time.perf_counter()
        passes.forward(self.network, image)
        self._wait()
        whole = time.perf_counter() - start
        return {**self._spent, REST: whole - sum(self._spent.values())}


class _Clocked(nn.Module):
    """`inner`, whose time is added to its part's; strips call it several times a pass."""

    def __init__(
        self, inner: nn.Module, part: str, spent: dict[str, float], wait: Callable[[], None]
    ) -> None:
        super().__init__()
        self.inner = inner
        self._part, self._all_spent, self._wait = part, spent, wait

    def forward(self, *inputs: Tensor) -> Any:
        start = time.perf_counter()
        result = self.inner(*inputs)
        self._wait()
        self._all_spent[self._part] += time.perf_counter() - start
        return result
