"""What a network costs and sees: parameters, multiply-adds, receptive field, a row a stage."""

from dataclasses import dataclass

import torch
from torch import nn

from hymunet.network.attention import AttentionBlock
from hymunet.network.hymunet import HyMUNet
from hymunet.network.mamba import SS2D

SCAN_MULTIPLY_ADDS = (
    5  # a state update: delta A, delta u, (delta u) B, decay h + ., C h; and one exp
)


@dataclass(frozen=True)
class PartSummary:
    """One row: a part of the network at one image size.

    `multiply_adds` are those of convolutions, linear layers and attention; `scan_updates` counts
    state updates of the selective scan, 5 multiply-adds and 1 exponential each. `receptive_field`
    is the side in input pixels that one output position can depend on; None: the whole image. The
    statistics of instance and group norms, which are the whole image's, do not count as seeing.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    scan_updates: int
    receptive_field: int | None


@dataclass(frozen=True)
class NetworkSummary:
    """All rows and their sums, for one image of `image_size`."""

    image_size: tuple[int, ...]
    parts: tuple[PartSummary, ...]
    parameters: int
    multiply_adds: int
    scan_updates: int


KINDS = {"C": "residual conv", "M": "Visual Mamba", "A": "self-attention"}


def summarise(model: HyMUNet, image_size: tuple[int, ...]) -> NetworkSummary:
    """Runs one image of `image_size` (a multiple of the stride) through `model` and counts.

    Each multiplication with its addition counts one. Normalisations, activations, gates and
    interpolations are left out, as is usual; they are a few per cent. The model is left in the
    modes, training or evaluation, in which it came.

    Raises:
        ValueError: If the size does not fit the network.
    """
    config = model.config
    costs: dict[nn.Module, tuple[int, int]] = {}
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        costs[module] = _cost(module, inputs[0], output)

    def remember(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])

    parts = network_parts(model)
    hooks = [module.register_forward_hook(count) for module in model.modules()]
    hooks += [modules[-1].register_forward_hook(remember) for _, _, modules in parts[:-1]]
    hooks.append(model.head.register_forward_hook(remember))
    image = next(model.parameters()).new_zeros(1, config.in_channels, *image_size)
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()

    rows = []
    field: int | None = 1
    jump = 1
    for name, kind, modules in parts:
        inside = [m for module in modules for m in module.modules()]
        if name == "stem" or name.startswith("encoder"):
            field, jump = _receptive_field(inside, field, jump)
        rows.append(
            PartSummary(
                name,
                kind,
                shapes[model.head if name == "head" else modules[-1]],
                sum(p.numel() for module in modules for p in module.parameters()),
                sum(costs.get(m, (0, 0))[0] for m in inside),
                sum(costs.get(m, (0, 0))[1] for m in inside),
                field if name == "stem" or name.startswith("encoder") else None,
            )
        )
    return NetworkSummary(
        tuple(image_size),
        tuple(rows),
        sum(p.numel() for p in model.parameters()),
        sum(row.multiply_adds for row in rows),
        sum(row.scan_updates for row in rows),
    )


def network_parts(model: HyMUNet) -> list[tuple[str, str, list[nn.Module]]]:
    """Name, kind and modules of each part, in the order in which an image meets them: the stem, an
    encoder stage a letter (with the convolution that leads to it), decoder levels, the head."""
    config = model.config
    parts: list[tuple[str, str, list[nn.Module]]] = [("stem", "strided conv", [model.encoder.stem])]
    for i, letter in enumerate(config.stages):
        stage: list[nn.Module] = [model.encoder.downs[i - 1]] if i else []
        parts.append((f"encoder {i + 1}", KINDS[letter], [*stage, model.encoder.stages[i]]))
    for j, (fusion, block) in enumerate(
        zip(model.decoder.fusions, model.decoder.blocks, strict=True)
    ):
        level = len(config.stages) - 1 - j
        parts.append((f"decoder {level}", f"{config.skip} skip, conv", [fusion, block]))
    parts.append(("head", "pointwise conv", [model.head, model.aux_heads]))
    return parts


def _cost(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    """(multiply-adds, scan updates) of this module itself, its children apart."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        return y[0].numel() * module.weight[0].numel(), 0
    if isinstance(module, nn.Linear):
        return y[0].numel() * module.in_features, 0
    if isinstance(module, AttentionBlock):
        return module.attention_multiply_adds(x[0, ..., 0].numel()), 0
    if isinstance(module, SS2D):
        tokens = x[0, ..., 0].numel()
        return tokens * module.dt_weight.numel(), module.state_updates(tokens)
    return 0, 0


def _receptive_field(
    modules: list[nn.Module], field: int | None, jump: int
) -> tuple[int | None, int]:
    """r += (k - 1) * jump for each convolution in turn, jump *= stride; a scan or an attention sees
    everything. Shortcuts are no longer than the path beside them."""
    for module in modules:
        if isinstance(module, (SS2D, AttentionBlock)):
            field = None
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            if field is not None:
                field += (module.kernel_size[0] - 1) * jump
            jump *= module.stride[0]
    return field, jump
