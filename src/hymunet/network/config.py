"""Every size of the network by name, checked before anything is built."""

from dataclasses import dataclass

from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class HyMUNetConfig:
    """Architecture of a `HyMUNet`; what is not said by the paper is our reading, by measurement.

    Args:
        in_channels: Channels of the image.
        num_classes: Output channels; the background counts as one under `softmax`.
        spatial_dims: 2 or 3.
        stages: A letter a stage, finest first: C residual convolution, M Visual Mamba,
            A self-attention. CCMM is HyM-UNet.
        dims: Channels of each stage.
        depths: Blocks of each stage.
        decoder_depth: Residual blocks after each fusion.
        stem_stride: 1, 2 or 4: at what fraction of the resolution the first stage works.
        skip: mgf, concat or attention.
        activation: `sigmoid` (one structure, or nested ones: class k holds class k + 1) or
            `softmax` (exclusive classes, the first is the background).
        d_state: Size of the scan's state a channel.
        expand: Inner channels of a Mamba block, as a multiple of its channels.
        directions: In how many orders a scan visits the tokens, the first of `scan_orders`: 1 reads
            rows, 2 reads them backwards as well; None: all, 4 in 2-D and 6 in 3-D.
        head_channels: Channels of an attention head.
        conv_norm: batch, instance or group.
        drop_path: Stochastic depth of the deepest block; grows linearly from 0.
        deep_supervision: Whether training also returns logits of the coarser decoder levels.

    Raises:
        HyMUNetError: If sizes do not fit each other, naming the field.
    """

    in_channels: int = 3
    num_classes: int = 1
    spatial_dims: int = 2
    stages: str = "CCMM"
    dims: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    decoder_depth: int = 1
    stem_stride: int = 2
    skip: str = "mgf"
    activation: str = "sigmoid"
    d_state: int = 16
    expand: int = 2
    directions: int | None = None
    head_channels: int = 32
    conv_norm: str = "batch"
    drop_path: float = 0.0
    deep_supervision: bool = False

    def __post_init__(self) -> None:
        # lists come from JSON and YAML; a tuple keeps equality and hashing
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "depths", tuple(self.depths))
        if len(self.stages) < 2 or set(self.stages) - set("CMA"):
            raise HyMUNetError(
                f"stages must be two or more of the letters C (convolution), M (Mamba) and "
                f"A (attention), such as 'CCMM', not {self.stages!r}"
            )
        for name in ("dims", "depths"):
            sizes = getattr(self, name)
            if len(sizes) != len(self.stages) or min(sizes) < 1:
                raise HyMUNetError(
                    f"{name} must be {len(self.stages)} positive numbers, one a letter of stages "
                    f"{self.stages!r}, not {sizes}"
                )
        choices = {
            "spatial_dims": (2, 3),
            "stem_stride": (1, 2, 4),
            "skip": ("mgf", "concat", "attention"),
            "activation": ("sigmoid", "softmax"),
            "conv_norm": ("batch", "instance", "group"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise HyMUNetError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        for name in ("in_channels", "num_classes", "d_state", "expand", "head_channels"):
            if getattr(self, name) < 1:
                raise HyMUNetError(f"{name} must be 1 or more, not {getattr(self, name)}")
        most = 2 * self.spatial_dims
        if self.directions is not None and not 1 <= self.directions <= most:
            raise HyMUNetError(
                f"directions must be 1 to {most} in {self.spatial_dims}-D, not {self.directions}"
            )
        if self.activation == "softmax" and self.num_classes < 2:
            raise HyMUNetError(
                "softmax over 1 class is always 1; use num_classes=2 (background and structure) "
                "or activation='sigmoid'"
            )
        if not 0.0 <= self.drop_path < 1.0 or self.decoder_depth < 0:
            raise HyMUNetError(
                f"drop_path must be in [0, 1) and decoder_depth 0 or more, not {self.drop_path} "
                f"and {self.decoder_depth}"
            )

    @property
    def stride(self) -> int:
        """The network halves an image this often: sides must be multiples of it."""
        return self.stem_stride * 2 ** (len(self.stages) - 1)

    @property
    def num_labels(self) -> int:
        """Values of a label map, the background included."""
        return self.num_classes + (self.activation == "sigmoid")

    def drop_path_rates(self, stage: int) -> list[float]:
        """Stochastic depth of each block of `stage`: from 0 to `drop_path`, linear over all."""
        last = max(1, sum(self.depths) - 1)
        first = sum(self.depths[:stage])
        return [self.drop_path * (first + i) / last for i in range(self.depths[stage])]
