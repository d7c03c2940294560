"""nnU-Net's raw data, second version: imagesTr/CASE_0000.nii.gz, ... and labelsTr/CASE.nii.gz.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

import re
from pathlib import Path
from typing import Any

from hymunet.data.case import Case, Dataset
from hymunet.data.dataset_json import NAME, check_there, inside, licence_of, not_named
from hymunet.data.image_io import SUFFIXES
from hymunet.data.label_scheme import LabelScheme
from hymunet.data.masks_io import VOLUME_SUFFIXES, listed
from hymunet.data.tables import check_case_name
from hymunet.errors import HyMUNetError
from hymunet.wording import plural, some_of


def nnunet_dataset(
    root: Path, content: dict[str, Any], scheme: LabelScheme, channels: tuple[str, ...] | None
) -> Dataset:
    """The training cases of `root`, as its dataset.json describes them.

    Args:
        root: Holds dataset.json, imagesTr and labelsTr, or the files that `dataset` names.
        content: Of dataset.json: `file_ending`, and `dataset` where it names the files.
        scheme: Its labels.
        channels: Names of its channels; a picture of its own may hold three of them.

    Raises:
        HyMUNetError: If a case lacks a channel or a label, a label its image, or files are named
            that do not exist or lie elsewhere.
    """
    where = root / NAME
    ending = content.get("file_ending")
    if channels is None or not isinstance(ending, str) or not ending.startswith("."):
        raise HyMUNetError(
            f"{where}: channel_names are {channels}, file_ending is {ending!r:.40}; expected both, "
            'as in {"0": "T1"} and ".nii.gz"'
        )
    if not ending.lower().endswith(SUFFIXES):
        raise HyMUNetError(
            f"{where}: the files end in {ending}; expected {listed(SUFFIXES, 20)}: convert them"
        )
    notes: list[str] = []
    listing = content.get("dataset")
    found = _named(root, listing) if listing else _by_folder(root, ending)
    _check_channels(found, channels, ending, where)
    files = {path for images, label in found.values() for path in (*images, label)}
    if listing:
        check_there(sorted(files), root, where)
    said = content.get("numTraining")
    if isinstance(said, int) and said != len(found):
        notes.append(f"{NAME} speaks of {said} training cases, there are {len(found)}")
    if (root / "imagesTs").is_dir():
        notes.append("imagesTs, the test images, are not used")
    cases = tuple(
        Case(
            id,
            images,
            label,
            label_map=scheme.label_map,
            ignore_label=scheme.ignore_label,
        )
        for id, (images, label) in found.items()
    )
    told = f"channels: {', '.join(channels)}"
    notes = [told, *scheme.describe(), *not_named(root, files), *notes]
    return Dataset(
        "nnU-Net raw",
        root,
        cases,
        None,
        tuple(notes),
        channels,
        scheme.names,
        scheme.regions,
        licence_of(content),
    )


def _named(root: Path, entries: object) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """Case -> images and label, as the entry `dataset` names them."""
    where = root / NAME
    if not isinstance(entries, dict):
        raise HyMUNetError(f"{where}: dataset is {entries!r:.100}; expected cases by their names")
    found = {}
    for id, entry in entries.items():
        check_case_name(id, where)
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not images or not entry.get("label"):
            raise HyMUNetError(
                f"{where}: the case {id} is {entry!r:.100}; expected "
                '{"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}'
            )
        paths = tuple(inside(root, name, where) for name in images)
        found[id] = paths, inside(root, entry["label"], where)
    return found


def _by_folder(root: Path, ending: str) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """Case -> images and label, as imagesTr and labelsTr hold them."""
    images, labels = root / "imagesTr", root / "labelsTr"
    for folder in (images, labels):
        if not folder.is_dir():
            raise HyMUNetError(
                f"{root} has a {NAME} but no folder {folder.name}; expected imagesTr and labelsTr "
                "beside it"
            )
    numbered = re.compile(rf"([^.].*)_(\d{{4}}){re.escape(ending)}")
    channels: dict[str, dict[int, Path]] = {}
    for path in sorted(images.iterdir()):
        if match := numbered.fullmatch(path.name):
            channels.setdefault(match[1], {})[int(match[2])] = path
    masks = {
        path.name.removesuffix(ending): path
        for path in sorted(labels.iterdir())
        if path.name.endswith(ending) and not path.name.startswith(".")
    }
    lonely, orphans = sorted(channels.keys() - masks.keys()), sorted(masks.keys() - channels.keys())
    problems = []
    if not channels:
        problems.append("imagesTr holds no image")
    if lonely:
        problems.append(
            f"{some_of(len(lonely), len(channels), 'case', ('has', 'have'))} no label "
            f"({listed(lonely)})"
        )
    if orphans:
        problems.append(
            f"{some_of(len(orphans), len(masks), 'label', ('has', 'have'))} no image "
            f"({listed(orphans)})"
        )
    if problems:
        raise HyMUNetError(
            f"{root}: {' and '.join(problems)}; expected imagesTr/CASE_0000{ending}, ... and "
            f"labelsTr/CASE{ending} for each case: add what is missing or move the rest away"
        )
    gaps = [id for id, files in channels.items() if sorted(files) != list(range(len(files)))]
    if gaps:
        raise HyMUNetError(
            f"{plural(len(gaps), f'case of {images} lacks', f'cases of {images} lack')} a channel "
            f"({listed(gaps, 5)}); expected files numbered from _0000{ending} on without gaps"
        )
    return {
        id: (tuple(files[index] for index in sorted(files)), masks[id])
        for id, files in channels.items()
    }


def _check_channels(
    found: dict[str, tuple[tuple[Path, ...], Path]],
    channels: tuple[str, ...],
    ending: str,
    where: Path,
) -> None:
    # a colour picture is one file of three channels
    counts = {len(channels)}
    if len(channels) == 3 and not ending.lower().endswith(VOLUME_SUFFIXES):
        counts.add(1)
    odd = [id for id, (images, _) in sorted(found.items()) if len(images) not in counts]
    if odd:
        raise HyMUNetError(
            f"{where}: {some_of(len(odd), len(found), 'case', ('does', 'do'))} not have a file for "
            f"each of the {plural(len(channels), 'channel')} {listed(channels)}: {listed(odd, 5)}; "
            "bring the missing files, or correct channel_names"
        )
