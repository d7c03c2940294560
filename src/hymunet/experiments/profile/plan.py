"""Which networks are profiled, at which sizes and depths."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.experiments.profile.cells import Cell
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hub import model_name
from hymunet.network.hymunet import PRESETS
from hymunet.network.model_file import find_model, load_model

SIZES = {2: (128, 256, 512, 1024, 2048), 3: (32, 64, 96, 128)}
DEPTH_SIZE = {2: 256, 3: 64}
DEPTHS = (1, 2, 4)


def check_options(words: Sequence[str], depths: Sequence[int] | None, **least: int | None) -> None:
    """Refuses words, depths and numbers (by the option's name: at least 1, or None) that cannot be.

    Raises:
        HyMUNetError: Naming the option.
    """
    for name, value in least.items():
        if value is not None and value < 1:
            raise HyMUNetError(f"--{name.replace('_', '-')} must be at least 1, {value} came")
    if depths and min(depths) < 1:
        raise HyMUNetError(f"--depths must be 1 block or more, {min(depths)} came")
    for word in words:
        if len(word) != 4 or set(word) - set("CMA"):
            raise HyMUNetError(
                "words must be four letters, as presets have four stages, each C (convolution), "
                f"M (Mamba) or A (attention), such as CCMM, not {word!r}"
            )


def find_networks(
    words: Sequence[str],
    models: Sequence[str],
    preset: str,
    in_channels: int,
    num_classes: int,
    spatial_dims: int,
) -> dict[str, tuple[dict[str, Any], bool]]:
    """Name -> fields of its configuration, and whether it is a word, of which depths are measured.

    Raises:
        HyMUNetError: If there is none, a model cannot be used, two have one name, or some are of
            pictures and some of volumes.
    """
    found: dict[str, tuple[dict[str, Any], bool]] = {}
    for word in dict.fromkeys(words):
        network = PRESETS[preset](in_channels, num_classes, spatial_dims, stages=word)
        found[word] = asdict(network.config), True
    for model in dict.fromkeys(models):
        path = find_model(model)
        own, _ = load_model(path)
        name = model_name(path)
        if name in found:
            raise HyMUNetError(f"two networks are called {name}; profile {path} on its own")
        found[name] = asdict(own.config), False
    if not found:
        raise HyMUNetError("there is nothing to profile; name --words, such as CCMM, or a --model")
    if len({config["spatial_dims"] for config, _ in found.values()}) > 1:
        raise HyMUNetError(
            "some of the networks segment pictures and some volumes, which no size fits both; "
            "profile them apart"
        )
    return found


def lay_out(
    networks: Mapping[str, tuple[dict[str, Any], bool]],
    sizes: Sequence[int] | None,
    depths: Sequence[int] | None,
    depth_size: int | None,
    train: bool,
) -> list[Cell]:
    """Each network at each size, then words at each depth; small before large.

    Raises:
        HyMUNetError: If a size is no multiple of a network's stride.
    """
    spatial_dims = next(iter(networks.values()))[0]["spatial_dims"]
    sizes = sizes or SIZES[spatial_dims]
    depths = sorted(set(DEPTHS if depths is None else depths))
    depth_size = depth_size or DEPTH_SIZE[spatial_dims]
    for name, (config, _) in networks.items():
        stride = HyMUNetConfig(**config).stride
        # one value a channel, at an image of one stride, is too few for batch norm to train on
        least = 2 * stride if train else stride
        for option, side in (*(("sizes", s) for s in sizes), ("depth-size", depth_size)):
            if side % stride or side < least:
                raise HyMUNetError(
                    f"--{option} must be multiples of {stride}, the stride of {name}, and at least "
                    f"{least}; {side} came"
                )
    cells = []
    for name, (config, is_word) in networks.items():
        cells += [Cell(name, config, side) for side in sorted(set(sizes))]
        if is_word and len(depths) > 1:
            stages = len(config["stages"])
            cells += [
                Cell(name, config | {"depths": (depth,) * stages}, depth_size, depth)
                for depth in depths
            ]
    return cells
