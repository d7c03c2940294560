"""What a pass computes and how much memory it needs, known before a byte is allocated.

The network runs on stand-ins for tensors (torch's FakeTensorMode), which have shapes but no
numbers, so an image of any size is free. Multiply-adds come from `network.summary`; memory is the
most bytes that tensors hold at once, weights and image included. Scratch space inside an operator
(of a convolution or of the scan's kernels) is not seen, so a process needs somewhat more.
"""

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hymunet.experiments.passes import training_loss
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hymunet import HyMUNet
from hymunet.network.summary import NetworkSummary, summarise


def counted(config: HyMUNetConfig, side: int) -> NetworkSummary:
    """`summarise` of the network at one image of `side` pixels a side, without computing it."""
    with FakeTensorMode():
        return summarise(HyMUNet.from_config(config), (side,) * config.spatial_dims)


def estimated_bytes(
    config: HyMUNetConfig, side: int, batch: int = 1, train: bool = False, device: str = "cpu"
) -> int:
    """The most bytes that tensors hold at once in a forward pass without gradients or, with
    `train`, a step of AdamW with its gradients and moments."""
    shape = (side,) * config.spatial_dims
    # AdamW reads its own step counter, a number that stand-ins do not have: its two moments are
    # as large as the weights and are there to stay
    with FakeTensorMode(), _Held() as held, torch.device(device):
        network = HyMUNet.from_config(config)
        weights = sum(p.untyped_storage().nbytes() for p in network.parameters())
        image = torch.empty(batch, config.in_channels, *shape)
        if train:
            target = torch.empty(batch, config.num_classes, *shape)
            training_loss(network, image, target).backward()
        else:
            network.eval()
            with torch.no_grad():
                network(image)
    return held.most + (2 * weights if train else 0)


class _Held(TorchDispatchMode):
    """Counts the bytes of storages from the operator that makes them until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:  # a view, or written in place
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size
