"""Where predictions come from: a model, or a folder of masks that any tool wrote."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case, Dataset
from hymunet.data.dicom_header import is_dicom_file
from hymunet.data.image_io import SUFFIXES, Image, stem_of
from hymunet.data.mask_reading import read_mask, read_stored_mask
from hymunet.data.masks_io import Mask, is_volume, listed
from hymunet.data.volume_io import same_grid
from hymunet.errors import HyMUNetError
from hymunet.evaluation.structures import Structures, structures_of, structures_of_model
from hymunet.network.folds import BEST, find_folds
from hymunet.network.hub import WEIGHTS

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
        classes: Names of the classes, index 1 first.
        in_channels: Channels that images are read with; None: as they are.
        info: The model file's metadata; None for a folder of masks.
        run: The run folder that the model lies in.
        nested: Whether each structure holds those after it.
        regions: Name -> class indices of what is scored instead of the classes; None: the classes.
        notes: What a reader has to know of the structures and of how the masks were made.
    """

    name: str
    predict: Callable[[Case, Image | None], np.ndarray]
    classes: list[str]
    in_channels: int | None = None
    info: Mapping[str, Any] | None = None
    run: Path | None = None
    nested: bool = False
    regions: Mapping[str, tuple[int, ...]] | None = None
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
        num_labels: Classes of a folder of masks with the background; None: see `structures_of`.
        device: For a model; None: chosen by the predictor.
        tta: For a model: the mean over mirrorings and quarter turns.

    Raises:
        HyMUNetError: If it is none of the three, masks and cases do not match, or the model's
            structures are not those of the data.
    """
    if is_mask_folder(Path(prediction)):
        if tta:
            raise HyMUNetError(
                f"--tta augments what a model predicts, but {prediction} is a folder of masks; "
                "leave it out"
            )
        return _mask_source(Path(prediction), cases, dataset, num_labels)
    source = _model_source(prediction, find_run(Path(prediction)), device, tta)
    found = structures_of_model(source.classes, source.nested, dataset)
    return replace(source, regions=found.regions, notes=(*source.notes, *found.notes))


def is_mask_folder(prediction: Path) -> bool:
    """Whether `prediction` is a folder of masks, not a model file or a run folder.

    Raises:
        HyMUNetError: If it is a folder of neither masks nor a model.
    """
    if not prediction.is_dir() or any((prediction / name).is_file() for name in (BEST, WEIGHTS)):
        return False
    if find_folds(prediction):
        return False
    if (prediction / "config.yaml").is_file():
        raise HyMUNetError(
            f"the run folder {prediction} holds no best.safetensors yet; "
            "let the training finish its first validation, then evaluate again"
        )
    if (prediction / "compare.json").is_file():
        raise HyMUNetError(
            f"{prediction} holds a comparison; name one of its models, such as "
            f"{prediction}/CCMM-seed0"
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


def _mask_source(
    folder: Path, cases: Sequence[Case], dataset: Dataset, num_labels: int | None
) -> Source:
    """Masks by case id; every case needs exactly one, and every mask a case of the data."""
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

    found = structures_of(dataset, num_labels)

    def predict(case: Case, image: Image | None) -> np.ndarray:
        file, image_file = files[keys[case.id]][0], next(iter(case.channels), None)
        # a mask that another tool made holds the values of the masks it was made from
        labels = len(found.classes) + 1
        mask = read_mask(file, labels, image=image_file, label_map=case.label_map)
        _check_mask(case, file, mask, image, found)
        return mask.labels

    return Source(str(folder), predict, found.classes, regions=found.regions, notes=found.notes)


def _check_mask(
    case: Case, file: Path, mask: Mask, image: Image | None, structures: Structures
) -> None:
    """Raises HyMUNetError if a mask lies elsewhere than its case, or holds what no reference does;
    sizes are compared when it is scored."""
    affine = image.affine if image is not None else None
    if image is None and mask.affine is not None and case.label and is_volume(case.label):
        affine = read_stored_mask(case.label).affine
    if affine is not None and mask.affine is not None and not same_grid(affine, mask.affine):
        apart = np.abs(affine - mask.affine).max()
        raise HyMUNetError(
            f"case {case.id}: the mask {file} lies on another grid than the "
            f"{'image' if image is not None else 'reference'}: their affines differ by up to "
            f"{apart:.4g}; expected the same place, voxel size and orientation: resample the mask "
            "onto it (nearest neighbour)"
        )
    if structures.values is not None:
        unknown = sorted(set(np.unique(mask.labels).tolist()) - structures.values)
        if unknown:
            raise HyMUNetError(
                f"case {case.id}: the mask {file} holds {listed(unknown)}, which no reference mask "
                f"does (they hold {listed(sorted(structures.values))}); correct the mask, or say "
                "how many classes there are (--num-labels, the background counted)"
            )


def postprocess_notes(predictor: "Predictor") -> tuple[str, ...]:
    """That masks are cleaned up, where they are."""
    done = predictor.postprocess.describe()
    return (f"masks are post-processed ({done})",) if done else ()


def _model_source(prediction: str, run: Path | None, device: str | None, tta: bool) -> Source:
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import find_model

    folder = Path(prediction)
    folds = find_folds(folder)
    model = find_model(folder) if folder.is_dir() and not folds else prediction
    predictor = Predictor(model, device=device, tta=tta)
    name = (
        f"{model}{f' ({len(folds)} folds together)' if folds else ''}"
        f"{' with test-time augmentation' if tta else ''}"
    )
    return source_of(predictor, name, run)


def source_of(predictor: "Predictor", name: str, run: Path | None = None) -> Source:
    """A model that is in memory already, as a source; its regions are the classes.

    Args:
        predictor: The model.
        name: What results call it.
        run: The run folder that it lies in.
    """

    def predict(case: Case, image: Image | None) -> np.ndarray:
        if image is None:
            raise HyMUNetError(
                f"case {case.id} has a reference mask but no image to predict on; name a data set "
                "with images, or evaluate a folder of masks"
            )
        return predictor(image).mask

    config = predictor.config
    return Source(
        name,
        predict,
        predictor.classes,
        config.in_channels,
        predictor.info,
        run,
        nested=config.activation == "sigmoid" and len(predictor.classes) > 1,
        notes=(*predictor.notes, *postprocess_notes(predictor)),
    )
