"""Batch norm over the batch of all processes: torch's own on GPUs, and the same on a CPU, where
torch has none."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _Total(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _total(tensor: Tensor) -> Tensor:
    return _Total.apply(tensor)


class CPUSyncBatchNorm(_BatchNorm):
    """y = (x - m) / sqrt(v + eps) * weight + bias with mean m and biased variance v of a channel
    over all values of all processes; (B, C, *spatial). Batches may differ in size.

    Gradients are those of the sum over processes of their losses: both sums are differentiated
    through. In evaluation mode it is plain batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 3:
            raise ValueError(f"expected (B, C, *spatial), not {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = input if input.dtype == torch.float64 else input.float()
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _total(torch.cat([x.sum(axes), count]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1]
        centred = x - mean.view(shape)
        # of what is centred: a difference of two large squares would lose its digits
        variance = _total(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        factor = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * factor.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def synchronise_norms(network: nn.Module, on_gpu: bool) -> None:
    """Replaces the batch norms of `network` by those over all processes; names, weights and
    statistics stay."""
    assert dist.is_initialized()
    if on_gpu:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
                setattr(module, name, _replacement(child))


def _replacement(norm: _BatchNorm) -> CPUSyncBatchNorm:
    new = CPUSyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    # the very tensors: an optimiser or a frozen encoder goes by them
    for name in ("weight", "bias"):
        setattr(new, name, getattr(norm, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(new, name, getattr(norm, name))
    return new.train(norm.training)
