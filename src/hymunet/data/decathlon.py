"""The layout of the Medical Segmentation Decathlon: dataset.json names images and labels.

Source: Antonelli et al. 2022, https://doi.org/10.1038/s41467-022-30695-9. nnU-Net's first version
and MONAI's data lists keep to it as well; what they add (a file per channel, a list of validation
cases) is understood.
"""

from pathlib import Path
from typing import Any

from hymunet.data.case import Case, Dataset
from hymunet.data.dataset_json import (
    NAME,
    channels_of,
    check_there,
    inside,
    licence_of,
    not_named,
    read_dataset_json,
)
from hymunet.data.image_io import stem_of
from hymunet.data.label_scheme import LabelScheme, label_scheme
from hymunet.data.nnunet import nnunet_dataset
from hymunet.data.tables import check_case_name, check_unique
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

_PARTS = {"training": "train", "validation": "val", "test": "test"}


def find_decathlon(folder: Path) -> Dataset | None:
    """The data set that `folder`/dataset.json describes, in the Decathlon's or nnU-Net's form; None
    where there is no such file.

    Raises:
        HyMUNetError: If what it says cannot be used, or files that it names do not exist.
    """
    content = read_dataset_json(folder)
    if content is None:
        return None
    where = folder / NAME
    scheme = label_scheme(content["labels"], content.get("regions_class_order"), where)
    channels = channels_of(content, where)
    if "file_ending" in content or "channel_names" in content:
        return nnunet_dataset(folder, content, scheme, channels)
    return _decathlon(folder, content, scheme, channels)


def _decathlon(
    root: Path,
    content: dict[str, Any],
    scheme: LabelScheme,
    channel_names: tuple[str, ...] | None,
) -> Dataset:
    where = root / NAME
    cases: list[Case] = []
    split: dict[str, str] = {}
    unlabelled = 0
    for key, part in _PARTS.items():
        entries = content.get(key) or []
        if not isinstance(entries, list):
            raise HyMUNetError(f"{where}: {key} is {entries!r:.100}; expected a list of cases")
        for entry in entries:
            if key != "training" and not (isinstance(entry, dict) and entry.get("label")):
                unlabelled += 1
                continue
            case = _case(root, entry, scheme, len(channel_names or ()))
            cases.append(case)
            split[case.id] = part
    if not cases:
        raise HyMUNetError(
            f"{where} names no training cases; expected "
            '"training": [{"image": ..., "label": ...}, ...]'
        )
    check_unique(((case.id, case.channels[0]) for case in cases), f"cases of {where}")
    files = [path for case in cases for path in (*case.channels, case.label) if path is not None]
    check_there(files, root, where)
    notes = [*scheme.describe(), *not_named(root, set(files))]
    if channel_names:
        notes.insert(0, f"channels: {', '.join(channel_names)}")
    if unlabelled:
        notes.append(
            f"{plural(unlabelled, f'case of {NAME} has', f'cases of {NAME} have')} no label, as "
            "hidden test cases, not used"
        )
    said = content.get("numTraining")
    trained = sum(part == "train" for part in split.values())
    if isinstance(said, int) and said != trained:
        notes.append(f"{NAME} speaks of {said} training cases and names {trained}")
    given = len(set(split.values())) > 1
    if given:
        notes.append(f"split taken from {NAME}")
    return Dataset(
        "Medical Segmentation Decathlon",
        root,
        tuple(cases),
        split if given else None,
        tuple(notes),
        channel_names,
        scheme.names,
        scheme.regions,
        licence_of(content),
    )


def _case(root: Path, entry: object, scheme: LabelScheme, channels: int) -> Case:
    where = root / NAME
    if not isinstance(entry, dict) or not entry.get("image") or not entry.get("label"):
        raise HyMUNetError(
            f"{where}: a training case is {entry!r:.100}; expected "
            '{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}'
        )
    image = entry["image"]
    files = [inside(root, name, where) for name in (image if isinstance(image, list) else [image])]
    id = stem_of(files[0])
    check_case_name(id, where)
    if len(files) == 1 and not files[0].exists():
        # nnU-Net's first version names a.nii.gz where a_0000.nii.gz, a_0001.nii.gz, ... lie
        ending = files[0].name[len(id) :]
        parts = [files[0].with_name(f"{id}_{n:04d}{ending}") for n in range(max(channels, 1))]
        files = parts if parts[0].exists() else files
    label = inside(root, entry["label"], where)
    return Case(
        id,
        tuple(files),
        label,
        label_map=scheme.label_map,
        ignore_label=scheme.ignore_label,
    )
