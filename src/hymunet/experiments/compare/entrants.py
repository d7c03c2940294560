"""Who takes part: presets and stage words of ours, rivals by name, anybody's `module:function`."""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hymunet.errors import HyMUNetError
from hymunet.experiments.compare.adapter import AdaptedFacts, AdaptedNetwork
from hymunet.experiments.compare.rivals import RIVALS
from hymunet.network.hymunet import PRESETS
from hymunet.network.segmenter import Segmenter
from hymunet.training.initial import GivenNetwork, preset_network, starting_network
from hymunet.training.planning.plan import Settings

STRIDE = 32  # of networks that state none: five halvings, more than most have


@dataclass(frozen=True)
class Entrant:
    """One who takes part.

    Args:
        name: In tables, and of its run folders.
        what: A line that says what it is; another wording is no other entrant.
        options: Of `train`, where they differ from the shared ones: {"stages": "CCCC"}.
        sizes: Fields of `HyMUNetConfig` that no option names: {"directions": 1}.
        builder: Of a network that is not ours: a key of `RIVALS` or `module:function`.
        factor: What an ablation varies here.
    """

    name: str
    what: str = field(compare=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    builder: str | None = None
    factor: str = ""

    def __post_init__(self) -> None:
        # compare.json gives tuples back as lists, and what was read must equal what was written
        plain = {n: tuple(v) if isinstance(v, list) else v for n, v in self.sizes.items()}
        object.__setattr__(self, "sizes", plain)

    @property
    def folder(self) -> str:
        """The name as a file system takes it."""
        return re.sub(r"[^\w.+=-]+", ".", self.name)

    def given(self) -> GivenNetwork | None:
        """What `fit` trains instead of a preset's network; None where the options say it all."""
        if self.builder is not None:
            return GivenNetwork(self.builder, partial(_built, self.builder))
        if self.sizes:
            said = ", ".join(f"{name} {value}" for name, value in self.sizes.items())
            return GivenNetwork(f"ours with {said}", partial(_resized, dict(self.sizes)))
        return None

    def make(self, settings: Settings, in_channels: int, spatial_dims: int) -> Segmenter:
        """The network, freshly initialised from torch's generator."""
        given = self.given()
        make = preset_network if given is None else given.make
        return make(settings, in_channels, spatial_dims)

    def stride(self, settings: Settings) -> int:
        """What sides of images must be multiples of, without building the network.

        Raises:
            HyMUNetError: As `find_function`.
        """
        if self.builder is None:
            stages = self.options.get("stages") or settings.stages or "CCMM"
            return int(settings.stem_stride) * 2 ** (len(stages) - 1)
        if self.builder in RIVALS:
            return RIVALS[self.builder].stride
        return _stated_stride(find_function(self.builder))

    def source(self) -> str | None:
        """Fingerprint of the file of a user's function, by which an edited one is known; None of
        other entrants, or where there is no such file."""
        if self.builder is None or self.builder in RIVALS:
            return None
        try:
            path = inspect.getsourcefile(inspect.unwrap(find_function(self.builder)))
            return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except (HyMUNetError, TypeError, OSError):
            return None


def new_network(
    entrant: Entrant, settings: Settings, in_channels: int, spatial_dims: int
) -> Segmenter:
    """The network of an entrant as `fit` makes it: weights are a function of the seed."""
    given = entrant.given() or GivenNetwork(entrant.name, entrant.make)
    return starting_network(settings, in_channels, spatial_dims, Path(), given).network


def rebuilt(
    entrant: Mapping[str, Any], settings: Mapping[str, Any], in_channels: int, spatial_dims: int
) -> Segmenter:
    """`Entrant.make` from plain values, for a process that is told of the network in JSON."""
    return Entrant(**entrant).make(Settings(**settings), in_channels, spatial_dims)


def find_entrant(word: str) -> Entrant:
    """Who is meant by a word of `--models`.

    Raises:
        HyMUNetError: If nobody is, or it is a function that cannot be found.
    """
    if word in RIVALS:
        return Entrant(word, RIVALS[word].what, builder=word)
    if word in PRESETS:
        return Entrant(word, f"HyM-UNet, preset {word}", {"preset": word, "stages": "CCMM"})
    if re.fullmatch(r"[CMA]{4}", word):
        name = "HyM-UNet" if word == "CCMM" else "the same skeleton"
        return Entrant(word, f"{name}, stages {word}", {"stages": word})
    if ":" in word:
        find_function(word)
        return Entrant(word, f"{word.rsplit(':', 1)[1]} of {word.rsplit(':', 1)[0]}", builder=word)
    raise HyMUNetError(
        f"there is no model {word!r}; expected one of {', '.join(RIVALS)}, a preset "
        f"({', '.join(PRESETS)}), four letters of C (convolution), M (Mamba) and A (attention) "
        "such as CCMM, or module:function, which is called with in_channels and num_classes and "
        "returns an nn.Module"
    )


def find_function(where: str) -> Callable[..., Any]:
    """The function that `module:function` names, the working folder being looked in as well.

    Raises:
        HyMUNetError: If it cannot be imported, or is none.
    """
    module, _, name = where.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever the file does when it is imported
        raise HyMUNetError(
            f"{where} cannot be imported ({type(error).__name__}: {error}); expected "
            "module:function with a module that is installed or lies in the working folder"
        ) from error
    found = getattr(imported, name, None)
    if not callable(found):
        place = getattr(imported, "__file__", None) or "built into Python"
        raise HyMUNetError(
            f"{where}: the module {module} ({place}) has no function {name!r}; check the spelling, "
            "and where another module has the name of your file, rename the file"
        )
    return found


def _stated_stride(*places: Any) -> int:
    for place in places:
        stride = getattr(place, "stride", None)
        if isinstance(stride, int) and stride > 0:
            return stride
    return STRIDE


def network_size(settings: Settings) -> tuple[int, ...] | None:
    """Of an image as a network sees it; None where images are of sizes of their own."""
    if settings.patch_size is not None:
        return tuple(settings.patch_size)
    return None if settings.image_size is None else (settings.image_size,) * 2


def _built(builder: str, settings: Settings, in_channels: int, spatial_dims: int) -> Segmenter:
    classes = settings.structures + (settings.activation == "softmax")
    size = network_size(settings)
    if builder in RIVALS:
        rival = RIVALS[builder]
        network, stride = rival.build(in_channels, classes, spatial_dims, size), rival.stride
    else:
        function = find_function(builder)
        network = _called(builder, function, in_channels, classes, spatial_dims, size)
        stride = _stated_stride(function)
    facts = AdaptedFacts(in_channels, classes, spatial_dims, settings.activation, stride)
    if size is not None and any(side % stride for side in size):
        raise HyMUNetError(
            f"{builder} takes sides that are multiples of {stride}, and the images are "
            f"{' x '.join(map(str, size))}; choose another --image-size or --patch-size"
        )
    return AdaptedNetwork(network, facts, builder, size)


def _called(
    builder: str,
    function: Callable[..., Any],
    in_channels: int,
    num_classes: int,
    spatial_dims: int,
    size: tuple[int, ...] | None,
) -> nn.Module:
    """What a user's function returns for the arguments that it takes."""
    offered = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "spatial_dims": spatial_dims,
        "image_size": size,
    }
    takes = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        lacking = [name for name in ("in_channels", "num_classes") if name not in takes]
        if lacking:
            raise HyMUNetError(
                f"{builder} must take in_channels and num_classes (and may take spatial_dims and "
                f"image_size), but has no {' and no '.join(lacking)}"
            )
        offered = {name: value for name, value in offered.items() if name in takes}
    network = function(**offered)
    if not isinstance(network, nn.Module):
        raise HyMUNetError(f"{builder} must return an nn.Module, not a {type(network).__name__}")
    return network


def _resized(
    sizes: dict[str, Any], settings: Settings, in_channels: int, spatial_dims: int
) -> Segmenter:
    return preset_network(settings, in_channels, spatial_dims, **sizes)
