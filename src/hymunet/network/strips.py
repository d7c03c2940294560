"""Large features in strips of rows: the same numbers without full-size intermediate tensors.

A chain of convolutions at 1024x1024 with 16 channels makes tensors of 64 MiB. An allocator returns
such blocks to the system when they are freed, and each new one is mapped and zeroed page by page,
which takes longer than the convolution that fills it. Strips of a few MiB are memory that was used
a moment ago. Each strip is computed with so many rows more on either side as the convolutions
reach, and these are thrown away, so the borders between strips do not show.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from hymunet.network.conv import DropPath

# at 2048x2048, 4 and 8 MiB are the fastest; less spends more on the rows computed twice
STRIP_BYTES = 4 << 20
# below it, whole features are as fast
LARGE_BYTES = 12 << 20


def in_strips(
    modules: tuple[nn.Module, nn.Module], inputs: Sequence[Tensor], shape: tuple[int, ...]
) -> Tensor:
    """second(first(*inputs)), over strips of the first spatial axis where this is exact and pays.

    It is exact in evaluation mode if all that runs is pointwise, a convolution, or an interpolation
    to twice the size: a group or instance norm, a scan or an attention sees the whole image. It is
    done without gradients only, on the CPU, and where no forward hook is to see a whole feature;
    compiled and exported graphs hold the plain calls.

    Args:
        modules: The first maps tensors (B, C_i, rows_i, ...) to one, the second that to (B, C,
            rows, ...); rows_i / rows are the same for any number of rows.
        inputs: The arguments of the first.
        shape: Of the result, (B, C, *spatial).

    Returns:
        The result, channels last in memory if the inputs are.
    """
    first, second = modules
    step = _strip_rows(modules, inputs, shape)
    if step is None:
        return second(first(*inputs))
    rows, halo = shape[2], _halo(modules)
    result = None
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        above, below = max(0, start - halo), min(rows, stop + halo)
        parts = (x[:, :, above * x.shape[2] // rows : below * x.shape[2] // rows] for x in inputs)
        strip = second(first(*parts))
        if result is None:
            layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
            result = torch.empty(shape, dtype=strip.dtype, memory_format=layout)
        result[:, :, start:stop] = strip[:, :, start - above : stop - above]
    assert result is not None
    return result


def _strip_rows(
    modules: tuple[nn.Module, nn.Module], inputs: Sequence[Tensor], shape: tuple[int, ...]
) -> int | None:
    """Rows of a strip, an even number; None: the whole at once."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    rows = shape[2]
    row_bytes = math.prod(shape) // rows * inputs[0].element_size()
    if rows * row_bytes < LARGE_BYTES:
        return None
    # an even row of the result must be a whole row of each input
    if any(x.device.type != "cpu" or 2 * x.shape[2] % rows for x in inputs):
        return None
    inside = [m for module in modules for m in module.modules()]
    if any(m.training or m._forward_hooks or m._forward_pre_hooks for m in inside):
        return None
    # hooks on all modules, and vmap, which cannot write into a part of a tensor
    if _has_any_global_hook() or torch._C._are_functorch_transforms_active():
        return None
    if not all(_is_local(m) for m in inside if next(m.children(), None) is None):
        return None
    step = max(STRIP_BYTES // row_bytes // 2 * 2, 8 * _halo(modules))
    return step if 2 * step <= rows else None


def _is_local(module: nn.Module) -> bool:
    """Whether rows far away do not matter for a row of its output."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        return module.padding_mode == "zeros"
    if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        return module.running_mean is not None  # else statistics are those of the feature
    return isinstance(module, (DropPath, nn.Sequential))  # a sequence may be empty


def _halo(modules: Sequence[nn.Module]) -> int:
    """Rows of the result, an even number, that a strip's ends can be wrong by: the reach of all
    convolutions as if they stood in a row at its resolution, and one for an interpolation."""
    reach = 1
    for module in modules:
        for m in module.modules():
            if isinstance(m, (nn.Conv2d, nn.Conv3d)):
                reach += m.dilation[0] * (m.kernel_size[0] // 2)
    return reach + reach % 2
