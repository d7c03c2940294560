"""The network that a training starts from: new weights, or those of a trained model (`--init`)."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from hymunet.data.case_hash import fingerprints
from hymunet.data.preprocess import Preprocess
from hymunet.errors import HyMUNetError
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hymunet import PRESETS, HyMUNet
from hymunet.network.model_file import find_model, load_model, read_info, save_model
from hymunet.network.segmenter import Segmenter
from hymunet.training.options import TrainOptions, model_name
from hymunet.training.planning.look import Origin
from hymunet.training.planning.plan import Settings
from hymunet.wording import plural

_FIRST = "encoder.stem.layers.0.0.weight"  # the only weight that knows the image's channels
_HEADS = ("head.", "aux_heads.")  # the only ones that know the classes
# what a preset does not say: the data, the options or the letters of the stages do
_NOT_A_PRESET = {"in_channels", "num_classes", "spatial_dims", "activation", "stages", "skip"}
_NOT_A_PRESET |= {"stem_stride", "drop_path", "deep_supervision"}


@dataclass(frozen=True)
class GivenNetwork:
    """A network to train that no option describes, such as a rival of `hymunet compare`.

    Args:
        name: What `config.yaml` calls it.
        make: (settings, image channels, spatial dimensions) -> the network, freshly initialised
            from torch's generator.
    """

    name: str
    make: Callable[[Settings, int, int], Segmenter]


@dataclass(frozen=True)
class Start:
    """A network before its first step, and where its weights come from.

    Args:
        network: In training mode; what is frozen needs no gradient.
        origin: Of weights that come from a model: its `name`, the `sha256` of its file, what
            `data` it was trained on, how many `cases` it lists, its `licence`, its own `init`
            where it has one; empty for new weights.
        cases: Fingerprints (`case_hash`) of all cases that the weights were trained on.
        notes: What to tell the user.
        preprocess: How the model read images, as its file says.
    """

    network: Segmenter
    origin: dict[str, Any] = field(default_factory=dict)
    cases: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    preprocess: dict[str, Any] | None = None


def starting_network(
    options: Settings,
    in_channels: int,
    spatial_dims: int,
    saved: Path,
    given: GivenNetwork | None = None,
) -> Start:
    """The network to train on images of `in_channels` and `spatial_dims`.

    From scratch, weights are a function of the seed. From a model, everything that fits is taken.
    With other classes the head starts anew. With other channels the first convolution's weights
    are spread: with W over C channels before and C' now, W'[:, c] = sum over W's channels / C', so
    that a picture which is the same in all channels gives the features it gave before, and grey
    images meet the sum of the colours' weights.

    Args:
        options: `init` names the model, or is None.
        in_channels: Channels of the images.
        spatial_dims: 2 or 3.
        saved: What `save_start` wrote when this run began; where it exists, nothing else is read.
        given: What to train instead of a preset's network.

    Raises:
        HyMUNetError: If the model cannot be used, is for images of other dimensions, or is not
            what the options say of the architecture; or a network is given as well.
    """
    if given is not None:
        if options.init is not None:
            raise HyMUNetError(
                f"the network {given.name} and init {options.init} both say what to start from; "
                "give one of them"
            )
        return Start(_seeded(options, given.make, options, in_channels, spatial_dims))
    if options.init is None:
        return Start(_seeded(options, preset_network, options, in_channels, spatial_dims))
    if saved.is_file():
        start = _read_start(saved)
    else:
        start = _from_model(options, in_channels, spatial_dims)
    start.network.train()
    if options.freeze_encoder:
        start.network.encoder.requires_grad_(False)
    return start


def origin_of(options: TrainOptions, saved: Path) -> Origin | None:
    """What the plan has to know of the model to start from; None: from scratch.

    Args:
        options: `init` names the model, or is None.
        saved: As in `starting_network`.

    Raises:
        HyMUNetError: If the model cannot be read.
    """
    if options.init is None:
        return None
    info = read_info(saved if saved.is_file() else find_model(options.init))
    known = info.get("preprocess")
    cases = fingerprints((info.get("cases") or {}).get("train"))
    preprocess = None if known is None else Preprocess.from_dict(known).config
    return Origin(
        model_name(options.init), HyMUNetConfig(**info["architecture"]), preprocess, cases
    )


def save_start(path: Path, start: Start) -> None:
    """Keeps the starting weights of a run and their origin, so that a resumed run does not need the
    model that they came from."""
    info = {
        "preprocess": start.preprocess,
        "training": {"init": start.origin},
        "cases": {"train": sorted(start.cases)},
        "licence": start.origin["licence"],
    }
    save_model(path, start.network, info)


class EncoderStaysAsItIs(lightning.Callback):
    """Keeps the encoder in evaluation mode during training: a frozen encoder is a fixed function,
    without drop path, and its batch norms' statistics neither follow the batches nor come from
    them."""

    # not at the start of the epoch: the module sets its mode there, after the callbacks
    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        pl_module.network.encoder.eval()


def _asked_for(options: Settings) -> dict[str, Any]:
    """What the settings say of a network, wherever its weights come from: output channels and
    activation for the structures to be segmented, and what concerns training alone."""
    return {
        "num_classes": options.structures + (options.activation == "softmax"),
        "activation": options.activation,
        "drop_path": options.drop_path,
    }


def _seeded(options: Settings, make: Any, *args: Any, **sizes: Any) -> Any:
    # weights are a function of the seed; the caller's random state is left as it was
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        return make(*args, **sizes)


def preset_network(options: Settings, in_channels: int, spatial_dims: int, **sizes: Any) -> HyMUNet:
    """The preset's network as the settings say, weights from torch's generator; `sizes` are fields
    of `HyMUNetConfig` that no setting names."""
    assert options.preset is not None  # without a model, the plan has chosen one
    return PRESETS[options.preset](
        in_channels=in_channels,
        spatial_dims=spatial_dims,
        stages=options.stages,
        skip=options.skip,
        stem_stride=options.stem_stride,
        **(_asked_for(options) | sizes),
    )


def _from_model(options: Settings, in_channels: int, spatial_dims: int) -> Start:
    assert options.init is not None
    name, path = model_name(options.init), find_model(options.init)
    source, info = load_model(path)
    old = source.config
    _check_fits(options, name, old, spatial_dims)
    sizes = asdict(old) | _asked_for(options) | {"in_channels": in_channels}
    network = _seeded(options, HyMUNet, **sizes)
    new = network.config

    weights = source.state_dict()
    notes = []
    if new.in_channels != old.in_channels:
        weights[_FIRST] = spread_channels(weights[_FIRST], new.in_channels)
        frozen = ", where they stay, since the encoder is frozen" if options.freeze_encoder else ""
        notes.append(
            f"  {old.in_channels} -> {new.in_channels} image channels: the weights of the first "
            f"convolution are summed and shared out{frozen}"
        )
    if (new.num_classes, new.activation) != (old.num_classes, old.activation):
        weights = {n: value for n, value in weights.items() if not n.startswith(_HEADS)}
        notes.append(
            f"  {_outputs(old)} -> {_outputs(new)}: the head starts anew, all else is taken over"
        )
    left_out = network.load_state_dict(weights, strict=False)
    assert all(key.startswith(_HEADS) for keys in left_out for key in keys)

    training = info.get("training") or {}
    cases = fingerprints((info.get("cases") or {}).get("train"))
    origin = {
        "name": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "data": training.get("data"),
        "cases": len(cases),
        "licence": info.get("licence"),
    }
    if training.get("init"):
        origin["init"] = training["init"]
    said = (*_introduction(origin, new), *notes)
    return Start(network, origin, cases, said, info.get("preprocess"))


def _introduction(origin: dict[str, Any], config: HyMUNetConfig) -> list[str]:
    """What the weights are, whose they are, and what follows for the new model."""
    dims = "-".join(map(str, config.dims))
    lines = [f"starting from {origin['name']}: {config.stages}, {dims} channels"]
    if origin["cases"]:
        lines.append(
            f"  trained on {plural(origin['cases'], 'case')} ({origin['data'] or 'not named'})"
        )
    else:
        lines.append("  it does not list its training cases: whether yours are among them is open")
    if origin["licence"]:
        lines.append(f"  licence {origin['licence']}, which passes on to the new model")
    else:
        lines.append("  it states no licence: ask whose images it was trained on before you share")
    return lines


def _read_start(saved: Path) -> Start:
    network, info = load_model(saved)
    origin, cases = info["training"]["init"], frozenset(info["cases"]["train"])
    return Start(
        network, origin, cases, (f"started from {origin['name']}, as kept in {saved.name}",)
    )


def _check_fits(options: Settings, name: str, config: HyMUNetConfig, spatial_dims: int) -> None:
    """Refuses volumes for a model of pictures, and options that contradict the model.

    Raises:
        HyMUNetError: Saying what the model is and what the data or options are.
    """
    kinds = {2: "pictures (2-D)", 3: "volumes (3-D)"}
    if config.spatial_dims != spatial_dims:
        raise HyMUNetError(
            f"the model {name} is for {kinds[config.spatial_dims]} and the data are "
            f"{kinds[spatial_dims]}, so its weights do not fit; name a model of the same kind by "
            "--init, or leave --init out"
        )
    wanted = {option: getattr(options, option) for option in ("stages", "skip", "stem_stride")}
    differ = [
        f"--{option.replace('_', '-')} is {value} and the model's is {getattr(config, option)}"
        for option, value in wanted.items()
        if value not in (None, getattr(config, option))
    ]
    if options.preset is not None:
        with torch.device("meta"):
            preset = PRESETS[options.preset](spatial_dims=spatial_dims).config
        parts = [
            f"{size} {getattr(config, size)} instead of {getattr(preset, size)}"
            for size in (field.name for field in fields(HyMUNetConfig))
            if size not in _NOT_A_PRESET and getattr(config, size) != getattr(preset, size)
        ]
        if parts:
            differ.append(f"--preset is {options.preset} and the model has {', '.join(parts)}")
    if differ:
        raise HyMUNetError(
            f"the options contradict the model {name}: {'; '.join(differ)}. With --init the "
            "architecture is the model's: leave these options out"
        )


def _outputs(config: HyMUNetConfig) -> str:
    several = "s" if config.num_classes > 1 else ""
    return f"{config.num_classes} output channel{several} ({config.activation})"


def spread_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (out, C, *kernel) for another number of channels, (out, C', *kernel):
    the sum over C, shared equally among C'."""
    return (weight.sum(dim=1, keepdim=True) / channels).repeat_interleave(channels, dim=1)
