"""Every setting of a training, with its default and its help: flags, YAML and Python in one place.

Imports nothing heavy, so that `hymunet train --help` answers at once.
"""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter

from hymunet.errors import HyMUNetError

# what config.yaml holds besides options: arguments of `train` that name files
PLACES = ("data", "output", "images", "masks", "split_file")


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions:
    """Settings of a training run; `config.yaml` in the run folder repeats these names.

    `preset`, `stages` and `skip` have their defaults without `init`; with it they are None where
    they are not given, since the model's are used.

    Attributes:
        preset: Size of the network: tiny (0.8 M parameters; the default), small (2.6 M) or base
            (6.6 M); with --init, the model's.
        init: Start from the weights of this model: a model file, a run folder or the name of
            packaged weights. It brings its architecture along; its licence passes on.
        freeze_encoder: Train the decoder and the head only; the encoder of `init` stays as it is,
            the statistics of its batch norms included.
        encoder_rate: Learning rate of the encoder of `init`, as a fraction of --learning-rate.
        image_size: Side in pixels of the square that the network sees. Ignored by volumes.
        resize: squeeze stretches an image to the square; letterbox keeps its aspect ratio.
        structures: Kinds of structure to segment, the background not counted.
        epochs: Passes over the training cases.
        batch_size: Cases an optimisation step.
        learning_rate: Peak of the schedule: linear warm-up, then cosine to zero.
        optimizer: muon orthogonalises the updates of the hidden matrices and leaves the rest to
            AdamW: half the epochs for the same loss; adamw does it all.
        weight_decay: Decoupled, as AdamW's; norms, biases, A_log and D are never decayed.
        warmup: Fraction of all steps spent warming up.
        clip: Largest gradient norm.
        ema_decay: Decay of the moving average of the weights, which is what is validated and kept.
        cross_entropy_weight: Weight of the cross-entropy term of the hybrid loss.
        dice_weight: Weight of the soft Dice term.
        boundary_weight: Weight of the boundary term.
        augment: Whether training images are flipped, turned, warped, recoloured and blurred.
        hairs: Probability that hairs are drawn across a training picture; for skin.
        jpeg: Probability that a training picture is saved as JPEG of low quality; for 8-bit
            pictures, since 256 shades remain.
        patience: Stop after this many epochs without a better validation Dice; 0 never stops early.
        select: Which weights become best.safetensors: the epoch that was best on validation, or the
            last one (then no case of the validation part has chosen anything).
        skip: How encoder features reach the decoder: mgf (the default), concat or attention; with
            --init, the model's.
        stages: A letter a stage: C convolution, M Visual Mamba, A attention; default CCMM, and with
            --init the model's.
        drop_path: Stochastic depth of the deepest block.
        seed: Of weights, order and augmentation; equal seeds repeat a run.
        precision: auto takes bfloat16 on a GPU that has it, else float32.
        device: auto takes CUDA when there is one, else the CPU.
        workers: Processes that load and augment; auto takes one a core beyond the second, 4 at
            most.
    """

    preset: Literal["tiny", "small", "base"] | None = None
    init: str | None = None
    freeze_encoder: bool = False
    encoder_rate: float = 1.0
    image_size: int = 256
    resize: Literal["squeeze", "letterbox"] = "squeeze"
    structures: int = 1
    epochs: int = 40
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    ema_decay: float = 0.99
    cross_entropy_weight: float = 1.0
    dice_weight: float = 1.0
    boundary_weight: float = 0.5
    augment: Annotated[bool, Parameter(negative="--no-augment")] = True
    hairs: float = 0.0
    jpeg: float = 0.0
    patience: int = 0
    select: Literal["best", "last"] = "best"
    skip: Literal["mgf", "concat", "attention"] | None = None
    stages: str | None = None
    drop_path: float = 0.0
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        self._fill_in()
        at_least = {
            "image_size": 16,
            "structures": 1,
            "epochs": 1,
            "batch_size": 1,
            "patience": 0,
            "seed": 0,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise HyMUNetError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise HyMUNetError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise HyMUNetError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if self.structures > 254 or self.seed >= 2**31:
            raise HyMUNetError(
                f"structures may be 254 at most and seed below {2**31}, not {self.structures} and "
                f"{self.seed}"
            )
        if self.workers != "auto" and self.workers < 0:
            raise HyMUNetError(f"workers must be 'auto' or 0 or more, not {self.workers}")
        for name in ("warmup", "ema_decay", "drop_path", "hairs", "jpeg"):
            if not 0 <= getattr(self, name) < 1:
                raise HyMUNetError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        terms = (self.cross_entropy_weight, self.dice_weight, self.boundary_weight)
        if not (min(terms) >= 0 and 0 < sum(terms) < math.inf):
            raise HyMUNetError(
                f"loss weights must be 0 or more and not all 0, but they are {terms}"
            )
        self._check_init()

    @property
    def start(self) -> str:
        """What the network starts from, in a word: the preset, or from-<model>."""
        return str(self.preset) if self.init is None else f"from-{model_name(self.init)}"

    def _fill_in(self) -> None:
        """The architecture that was not given, where no model brings one."""
        if self.init is not None:
            object.__setattr__(self, "init", str(self.init))  # notebooks pass paths
            return
        for name, value in {"preset": "tiny", "skip": "mgf", "stages": "CCMM"}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check_init(self) -> None:
        if not 0 < self.encoder_rate <= 1:
            raise HyMUNetError(
                f"encoder_rate must be above 0 and at most 1, not {self.encoder_rate}; an encoder "
                "that does not train at all is freeze_encoder"
            )
        if self.init == "":
            raise HyMUNetError("init is empty; name a model file, a run folder or packaged weights")
        for name, given in (
            ("freeze_encoder", self.freeze_encoder),
            ("encoder_rate", self.encoder_rate != 1),
        ):
            if given and self.init is None:
                raise HyMUNetError(
                    f"{name} is about the encoder of a trained model: name it by init "
                    f"(--init MODEL), or leave {name} out"
                )
        if self.freeze_encoder and self.encoder_rate != 1:
            raise HyMUNetError(
                f"freeze_encoder and encoder_rate {self.encoder_rate} contradict each other: a "
                "frozen encoder has no learning rate; give one of them"
            )


def model_name(model: str) -> str:
    """What a model is called: its file without `.safetensors`, a run by its folder."""
    path = Path(model).resolve()
    path = path.parent if path.name == "best.safetensors" else path
    return path.name.removesuffix(".safetensors")


def run_settings(
    options: TrainOptions,
    data: Path,
    output: Path,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
) -> dict[str, Any]:
    """What defines a run: the data, the run folder and every option that is not None, as plain
    values; files are named so that they are found from anywhere."""
    values = {"data": str(data.resolve()), "output": str(output)}
    if images is not None and masks is not None:
        values |= {"images": str(images), "masks": str(masks)}
    if split_file is not None:
        values["split_file"] = str(split_file.resolve())
    values |= {name: value for name, value in asdict(options).items() if value is not None}
    if options.init is not None:
        values["init"] = _place(options.init)
    return values


def _place(model: str) -> str:
    """A file or folder by its absolute path, packaged weights by their name."""
    path = Path(model)
    is_name = len(path.parts) == 1 and path.suffix != ".safetensors" and not path.exists()
    return model if is_name else str(path.resolve())


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a `config.yaml` and, for options that are younger than it, their defaults: a
    new option's default is what was done before there was the option."""
    defaults = {f.name: f.default for f in fields(TrainOptions) if f.default is not None}
    return defaults | values


def config_text(values: dict[str, Any]) -> str:
    """The text of `config.yaml`."""
    return "# repeat this run with: hymunet train --config THIS_FILE --output ANOTHER_FOLDER\n" + (
        yaml.safe_dump(values, sort_keys=False)
    )


def read_config(path: Path) -> dict[str, Any]:
    """The values of a `config.yaml`: `data`, `output`, other places and option names.

    Raises:
        HyMUNetError: If it is missing, no YAML mapping, or has a name that is no option.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HyMUNetError(f"there is no configuration file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HyMUNetError(f"{path} is not YAML: {error}") from error
    known = {*PLACES, *(field.name for field in fields(TrainOptions))}
    if not isinstance(values, dict) or set(values) - known:
        wrong = sorted(set(values) - known) if isinstance(values, dict) else ["no mapping"]
        raise HyMUNetError(
            f"{path} has entries that are no options of train: {', '.join(map(str, wrong))}; "
            "`hymunet train --help` lists them (with _ for -)"
        )
    return values
