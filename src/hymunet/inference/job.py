"""What decides the masks of a call of `predict`, and one case after the other made from it.

Both engines, the plain loop and Ray's workers, segment through these functions: the same image
becomes the same bytes whichever of them runs.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.errors import HyMUNetError
from hymunet.inference.outputs import Targets, stored_values, write_prediction

if TYPE_CHECKING:
    from hymunet.data.image_cases import ImageCase
    from hymunet.inference.predictor import Predictor


@dataclass(frozen=True)
class Job:
    """The options of `predict` that decide masks, of a kind that can be sent to other machines.

    Args:
        models: Model files, run folders, folders of folds or names of packaged models.
        device: As in `Predictor`.
        threshold: As in `Predictor`.
        tta: As in `Predictor`.
        postprocess: As in `Predictor`.
        runtime: As in `Predictor`.
        probability: Whether probability maps are written.
        overlay: Whether overlays are written.
    """

    models: tuple[Path, ...]
    device: str | None = None
    threshold: float | None = None
    tta: bool = False
    postprocess: bool = True
    runtime: str | None = None
    probability: bool = False
    overlay: bool = False

    def predictor(self) -> "Predictor":
        """The model, ready to be applied.

        Raises:
            HyMUNetError: As `Predictor`.
        """
        from hymunet.inference.predictor import Predictor

        return Predictor(
            list(self.models),
            device=self.device,
            threshold=self.threshold,
            tta=self.tta,
            postprocess=self.postprocess,
            runtime=self.runtime,
        )

    def model_digests(self) -> list[str]:
        """SHA-256 of each model file, in the order in which they are used.

        Raises:
            HyMUNetError: If one is missing or cannot be read.
        """
        from hymunet.inference.onnx_runtime import find_onnx
        from hymunet.network.model_file import find_models

        return [
            model_digest(find_onnx(path, self.runtime) or path)
            for model in self.models
            for path in find_models(model)
        ]


def model_digest(file: Path) -> str:
    """SHA-256 of a model file.

    Raises:
        HyMUNetError: If it cannot be read.
    """
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise HyMUNetError(f"the model {file} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class Segmented:
    """What is known of a case whose files are written.

    Args:
        measurements: A row a class.
        suspect: Why its mask should be looked at; None: nothing is odd.
        notes: What the user should know of how it was written.
    """

    measurements: list[dict[str, Any]]
    suspect: str | None
    notes: tuple[str, ...] = ()


def segment_case(
    predictor: "Predictor",
    case: "ImageCase",
    targets: Targets,
    values: tuple[int, ...] | None,
    on_progress: Callable[[float], None] | None = None,
) -> Segmented:
    """Segments one case and writes its files, each whole or not at all.

    Args:
        predictor: The model.
        case: The image.
        targets: Its files.
        values: As `outputs.stored_values` returns.
        on_progress: As in `Predictor.__call__`.

    Raises:
        HyMUNetError: If the case cannot be read, does not fit into memory or cannot be written.
        NoRoomError: If nothing more can be written at all.
    """
    if case.problem is not None:
        raise HyMUNetError(case.problem)
    image = case.files[0] if len(case.files) == 1 else list(case.files)
    try:
        prediction = predictor(image, on_progress)
        write_prediction(prediction, targets, predictor.config.num_labels, values)
    except MemoryError as error:
        raise HyMUNetError(str(error) or "not enough memory") from error
    return Segmented(prediction.measurements, suspicion(float((prediction.mask > 0).mean())))


def suspicion(share: float) -> str | None:
    """Why a mask that covers `share` of its image should be looked at, as `verify` does with
    reference masks; None: nothing is odd."""
    from hymunet.data.verify_masks import NEARLY_FULL

    if share == 0:
        return "the mask is empty"
    if share >= NEARLY_FULL:
        return f"the mask covers {share:.1%} of the image"
    return None


def check_job(job: Job, predictor: "Predictor") -> tuple[int, ...] | None:
    """What masks hold, as `outputs.stored_values` says, if the model can do what is asked for.

    Raises:
        HyMUNetError: If it cannot.
    """
    from hymunet.data.masks_io import listed

    if predictor.config.spatial_dims == 3 and (job.probability or job.overlay):
        raise HyMUNetError(
            "probability maps and overlays are written for pictures only, and "
            f"{listed(model_names(job.models))} segments volumes; leave --probability and "
            "--overlay out"
        )
    return stored_values(predictor.info, predictor.config.num_labels)


def model_names(models: Sequence[Path]) -> list[str]:
    """The model files by their paths; a packaged one by its name, since its path differs from
    installation to installation."""
    from hymunet.network.model_file import find_models
    from hymunet.network.pretrained import pretrained_file

    return [
        str(model) if pretrained_file(model) == path else str(path)
        for model in models
        for path in find_models(model)
    ]


def summary_of(job: Job, predictor: "Predictor", miss_rate: float | None) -> dict[str, Any]:
    """What the tables say of the model beside the measurements.

    Args:
        job: The options.
        predictor: Its model.
        miss_rate: The rate that the threshold keeps; None: none.
    """
    names = model_names(job.models)
    return {
        "model": names[0] if len(names) == 1 else names,
        "licence": predictor.info.get("licence"),
        "domain": predictor.info.get("domain"),
        "threshold": predictor.threshold if predictor.config.activation == "sigmoid" else None,
        "postprocess": predictor.postprocess.to_dict(),
        "miss_rate": miss_rate,
    }
