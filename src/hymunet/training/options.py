"""Every setting of a training, with its default and its help: flags, YAML and Python in one place.

Imports nothing heavy, so that `hymunet train --help` answers at once.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hymunet.errors import HyMUNetError
from hymunet.network.folds import BEST
from hymunet.network.hub import WEIGHTS

# what the plan decides from the data where it is not given; see hymunet.training.planning
OPEN = (
    "structures",
    "preset",
    "resize",
    "spacing_mm",
    "stem_stride",
    "image_size",
    "patch_size",
    "normalisation",
    "intensity_range",
    "class_weights",
    "batch_size",
    "patches",
    "epochs",
)
_SEVERAL = Parameter(consume_multiple=True)


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions:
    """Settings of a training run; `config.yaml` in the run folder repeats these names.

    What is None is decided before the run starts: from the data (`hymunet plan` shows how), or,
    with `init`, as the model has it.

    Attributes:
        preset: Size of the network: tiny (0.8 M parameters), small (2.6 M) or base (6.6 M);
            default: tiny on a CPU, small on a GPU; with --init, the model's.
        init: Start from the weights of this model: a model file, a run folder or the name of
            packaged weights. It brings its architecture along; its licence passes on.
        freeze_encoder: Train the decoder and the head only; the encoder of `init` stays as it is,
            the statistics of its batch norms included.
        encoder_rate: Learning rate of the encoder of `init`, as a fraction of --learning-rate.
        structures: Kinds of structure to segment, the background not counted; default: what the
            data name, else what the masks hold.
        resize: squeeze stretches a picture to a square; letterbox keeps its aspect ratio; native
            leaves it; window reads it, or a volume, in overlapping windows of --patch-size.
        image_size: Side in pixels of the square that squeeze and letterbox make.
        patch_size: Sides of a window, (depth,) height, width: multiples of the network's stride.
        spacing_mm: Size of a pixel or voxel that windows are cut at, (depth,) height, width.
        stem_stride: At what fraction of the resolution the first stage works: 1, 2 or 4.
        normalisation: By what intensities are centred and scaled: the training images' statistics
            (dataset), each image's own (image), or its own where it is not 0 (nonzero).
        intensity_range: Lowest and highest intensity that are told apart: a CT window.
        class_weights: Weights of the classes in the cross-entropy, the background's first; default:
            all alike.
        batch_size: Cases or patches an optimisation step.
        patches: Patches of each case an epoch, under window.
        foreground: Share of the patches that are placed on a structure, each as often.
        epochs: Passes over the training cases.
        steps_per_epoch: Optimisation steps until the next look at the validation part; default: a
            pass over the training cases.
        budget: Time for the training, such as 45m or 2h: as many epochs as fit, by steps measured
            on this machine; instead of --epochs. Where few whole passes would fit, epochs are
            shorter, so that the time is used up.
        groups: Regular expression that finds the patient in a case's name, such as '^[^_]+':
            cases of one patient stay on one side of a drawn split.
        val_share: Share of the cases that watch the training and choose the epoch, where the data
            name no such part.
        test_share: Share of the cases that are held out and judge the model, likewise; 0 for none.
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
            most. Each of several training processes has its own.
        devices: Training processes on this machine, on a GPU each or sharing the CPU; a batch of
            --batch-size is shared out among them.
        num_nodes: Machines, each with --devices processes that torchrun or srun has started.
        strategy: What several processes share: ddp keeps the whole network in each, fsdp a slice
            of it and of the optimiser.
    """

    preset: Literal["tiny", "small", "base"] | None = None
    init: str | None = None
    freeze_encoder: bool = False
    encoder_rate: float = 1.0
    structures: int | None = None
    resize: Literal["squeeze", "letterbox", "native", "window"] | None = None
    image_size: int | None = None
    patch_size: Annotated[tuple[int, ...] | None, _SEVERAL] = None
    spacing_mm: Annotated[tuple[float, ...] | None, _SEVERAL] = None
    stem_stride: Literal[1, 2, 4] | None = None
    normalisation: Literal["dataset", "image", "nonzero"] | None = None
    intensity_range: tuple[float, float] | None = None
    class_weights: Annotated[tuple[float, ...] | None, _SEVERAL] = None
    batch_size: int | None = None
    patches: int | None = None
    foreground: float = 0.5
    epochs: int | None = None
    steps_per_epoch: int | None = None
    budget: str | None = None
    groups: str | None = None
    val_share: float = 0.15
    test_share: float = 0.15
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
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        self._fill_in()
        at_least = {
            "image_size": 16,
            "structures": 1,
            "epochs": 1,
            "steps_per_epoch": 1,
            "batch_size": 1,
            "patches": 1,
            "patience": 0,
            "seed": 0,
            "devices": 1,
            "num_nodes": 1,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise HyMUNetError(f"{name} must be {least} or more, not {value}")
        if self.budget is not None:
            seconds_of(self.budget)
            if self.epochs is not None:
                raise HyMUNetError(
                    f"epochs {self.epochs} and budget {self.budget} both say how long to train; "
                    "give one of them"
                )
        weights = self.class_weights
        if weights is not None and not (
            weights and all(0 <= w < math.inf for w in weights) and max(weights) > 0
        ):
            raise HyMUNetError(
                f"class_weights must be 0 or more and not all 0, not {list(weights)}"
            )
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise HyMUNetError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise HyMUNetError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if (self.structures or 0) > 254 or self.seed >= 2**31:
            raise HyMUNetError(
                f"structures may be 254 at most and seed below {2**31}, not {self.structures} and "
                f"{self.seed}"
            )
        if not (self.val_share > 0 and 0 <= self.test_share < 1 - self.val_share):
            raise HyMUNetError(
                "val_share must be above 0, test_share 0 or more, and both together below 1, not "
                f"{self.val_share} and {self.test_share}"
            )
        if not 0 <= self.foreground <= 1:
            raise HyMUNetError(f"foreground must be in [0, 1], not {self.foreground}")
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
        processes = self.devices * self.num_nodes
        if self.strategy == "fsdp" and processes == 1:
            raise HyMUNetError(
                "strategy fsdp slices the network among several processes, and there is one: give "
                "devices 2 or more (--devices), or leave strategy out"
            )
        if self.batch_size is not None and self.batch_size < processes:
            raise HyMUNetError(
                f"a batch of {self.batch_size} cannot be shared out among {processes} processes; "
                "batch_size counts over all of them: raise it, or lower devices or num_nodes"
            )
        self._check_init()

    @property
    def start(self) -> str:
        """What the network starts from, in a word: the preset where one is given, or from-<model>;
        empty where the plan chooses."""
        return self.preset or "" if self.init is None else f"from-{model_name(self.init)}"

    def _fill_in(self) -> None:
        """Lists, from YAML, as tuples; the architecture's words where no model brings them."""
        for name in ("patch_size", "spacing_mm", "intensity_range", "class_weights"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.init is not None:
            object.__setattr__(self, "init", str(self.init))  # notebooks pass paths
            return
        for name, value in {"skip": "mgf", "stages": "CCMM"}.items():
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


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as 45m, 1h30m, 90s or 2h.

    Raises:
        HyMUNetError: If it is none, or not above 0.
    """
    match = _DURATION.fullmatch(str(duration).strip().lower())
    parts = [float(part or 0) for part in match.groups()] if match else []
    seconds = sum(n * unit for n, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise HyMUNetError(f"a time budget is written as 45m, 1h30m or 90s, not {duration!r}")
    return seconds


def model_name(model: str) -> str:
    """What a model is called: its file without `.safetensors`, a run by its folder."""
    path = Path(model).resolve()
    path = path.parent if path.name in (BEST, WEIGHTS) else path
    return path.name.removesuffix(".safetensors")
