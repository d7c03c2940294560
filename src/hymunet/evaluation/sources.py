"""Where predictions come from: a model, or a folder of masks that any tool wrote."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case, Dataset
from hymunet.data.dicom_header import is_dicom_file
from hymunet.data.image_io import SUFFIXES, Image, stem_of
from hymunet.data.mask_reading import read_mask
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.network.folds import find_folds

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor

_MASK_SUFFIX = re.compile(r"[_-](masks?|seg|segmentation|labels?|pred|prediction|gt|truth)$", re.I)

_BESIDE = re.compile(r"(_overlay|(_\d+)?_probability)\.png$")


@dataclass(frozen=True)
class Source:
    """Where predictions come from: a model, or a folder of masks.

    Args:
        name: The model file or the folder.
        predict: Gives class indices (*spatial) of a case on its own grid; takes the case and its
            image, None when only masks are at hand.
        classes: Names of the structures, class index 1 first.
        in_channels: Channels that images are read with; None: as they are.
        info: The model file's metadata; None for a folder of masks.
        run: The run folder that the model lies in.
        nested: Whether each structure holds those after it.
        notes: What a reader has to know of how the masks were made.
    """

    name: str
    predict: Callable[[Case, Image | None], np.ndarray]
    classes: list[str]
    in_channels: int | None = None
    info: Mapping[str, Any] | None = None
    run: Path | None = None
    nested: bool = False
    notes: tuple[str, ...] = ()


def find_source(
    prediction: str,
    cases: Sequence[Case],
    dataset: Dataset,
    num_labels: int | None = None,
    device: str | None = None,
    tta: bool = False,
) -> Source:
    """The model or the folder of masks that `prediction` names.

    Args:
        prediction: A model file, a run folder, a folder of folds (all of them together), a packaged
            model's name or a folder of masks.
        cases: Those to predict; each needs a mask when it is a folder of masks.
        dataset: All cases there are; a mask of none of them is refused.
        num_labels: Classes of a folder of masks with the background; None: 2.
        device: For a model; None: chosen by the predictor.
        tta: For a model: the mean over mirrorings and quarter turns.

    Raises:
        HyMUNetError: If it is none of the three, or masks and cases do not match.
    """
    if is_mask_folder(Path(prediction)):
        if tta:
            raise HyMUNetError(
                f"--tta augments what a model predicts, but {prediction} is a folder of masks; "
                "leave it out"
            )
        return _mask_source(
            Path(prediction), cases, dataset, 2 if num_labels is None else num_labels
        )
    return _model_source(prediction, find_run(Path(prediction)), device, tta)


def is_mask_folder(prediction: Path) -> bool:
    """Whether `prediction` is a folder of masks, not a model file or a run folder.

    Raises:
        HyMUNetError: If it is a folder of neither masks nor a model.
    """
    if not prediction.is_dir() or (prediction / "best.safetensors").is_file():
        return False
    if find_folds(prediction):
        return False
    if (prediction / "config.yaml").is_file():
        raise HyMUNetError(
            f"the run folder {prediction} holds no best.safetensors yet; "
            "let the training finish its first validation, then evaluate again"
        )
    if not mask_files(prediction):
        raise HyMUNetError(
            f"expected a model file, a run folder or a folder of masks, got {prediction} "
            f"without best.safetensors and without any {', '.join(SUFFIXES)} file; "
            "name the folder that holds the masks themselves"
        )
    return True


def find_run(prediction: Path) -> Path | None:
    """The run folder that `prediction` is, or whose best.safetensors it is."""
    folder = prediction if prediction.is_dir() else prediction.parent
    looks = (folder / "config.yaml").is_file() and (folder / "metrics.csv").is_file()
    named = prediction.is_dir() or prediction.name == "best.safetensors"
    return folder if named and looks else None


def mask_files(folder: Path) -> list[Path]:
    """The image files directly in a folder; hidden ones, and the overlays and probability maps that
    `hymunet predict` writes beside a mask, left out."""
    found = {
        path.name: path
        for path in folder.iterdir()
        if (path.is_file() and path.name.lower().endswith(SUFFIXES) and path.name[0] != ".")
        or is_dicom_file(path)
    }
    beside = {name for name in found if _BESIDE.sub(".png", name) in found.keys() - {name}}
    return sorted(path for name, path in found.items() if name not in beside)


def case_name(name: str) -> str:
    """A mask's stem without the suffix that says that it is one."""
    return _MASK_SUFFIX.sub("", name)


def _mask_source(folder: Path, cases: Sequence[Case], dataset: Dataset, num_labels: int) -> Source:
    """Masks by case id; every case needs exactly one, and every mask a case of the data."""
    if num_labels < 2:
        raise HyMUNetError(f"--num-labels counts the background too: at least 2, got {num_labels}")
    files: dict[str, list[Path]] = {}
    for path in mask_files(folder):
        files.setdefault(case_name(stem_of(path)), []).append(path)
    doubled = {str(path) for paths in files.values() if len(paths) > 1 for path in paths}
    if doubled:
        raise HyMUNetError(
            f"several masks are meant for one case: {listed(sorted(doubled))}; keep one"
        )
    keys = {case.id: case_name(case.id.rsplit("/", 1)[-1]) for case in dataset.cases}
    ambiguous = [name for name, count in Counter(keys.values()).items() if count > 1]
    if ambiguous:
        raise HyMUNetError(
            f"{len(ambiguous)} case names differ only in their folder or mask suffix, so a folder "
            f"of masks cannot be matched to them: {listed(sorted(ambiguous))}; rename them"
        )
    missing = {case.id for case in cases if keys[case.id] not in files}
    extra = {files[key][0].name for key in files.keys() - set(keys.values())}
    if missing or extra:
        raise HyMUNetError(
            f"expected one mask for each of the {len(cases)} cases, got {len(missing)} missing"
            + (f" ({listed(sorted(missing))})" if missing else "")
            + f" and {len(extra)} extra"
            + (f" ({listed(sorted(extra))})" if extra else "")
            + f" in {folder}; file names must be those of the cases (suffixes as _mask are ignored)"
        )

    def predict(case: Case, image: Image | None) -> np.ndarray:
        # a mask that another tool made holds the values of the masks it was made from
        file, image_file = files[keys[case.id]][0], next(iter(case.channels), None)
        return read_mask(file, num_labels, image=image_file, label_map=case.label_map).labels

    classes = [f"class {i}" for i in range(1, num_labels)] if num_labels > 2 else ["foreground"]
    return Source(str(folder), predict, classes)


def postprocess_notes(predictor: "Predictor") -> tuple[str, ...]:
    """That masks are cleaned up, where they are."""
    done = predictor.postprocess.describe()
    return (f"masks are post-processed ({done})",) if done else ()


def _model_source(prediction: str, run: Path | None, device: str | None, tta: bool) -> Source:
    from hymunet.inference.predictor import Predictor

    folder = Path(prediction)
    folds = find_folds(folder)
    model = folder / "best.safetensors" if folder.is_dir() and not folds else prediction
    predictor = Predictor(model, device=device, tta=tta)

    def predict(case: Case, image: Image | None) -> np.ndarray:
        if image is None:
            raise HyMUNetError(
                f"case {case.id} has a reference mask but no image to predict on; name a data set "
                "with images, or evaluate a folder of masks"
            )
        return predictor(image).mask

    config = predictor.config
    return Source(
        f"{model}{f' ({len(folds)} folds together)' if folds else ''}"
        f"{' with test-time augmentation' if tta else ''}",
        predict,
        predictor.classes,
        config.in_channels,
        predictor.info,
        run,
        nested=config.activation == "sigmoid" and len(predictor.classes) > 1,
        notes=(*predictor.notes, *postprocess_notes(predictor)),
    )
