"""Pairs of image and mask files, recognised by the names of their folders and their own."""

import re
from pathlib import Path

from hymunet.data.case import Case
from hymunet.data.dicom_find import is_dicom_entry
from hymunet.data.image_io import SUFFIXES, stem_of
from hymunet.data.masks_io import listed
from hymunet.data.tables import check_unique, part_name
from hymunet.errors import HyMUNetError
from hymunet.wording import plural, some_of

_ISIC_IMAGES = re.compile(r"ISIC2018_Task1.*?_(.+)_Input", re.IGNORECASE)
_ISIC_MASKS = re.compile(r"ISIC2018_Task1_(.+)_GroundTruth", re.IGNORECASE)
# an imagesTs folder without labels is a challenge's hidden test set: only Tr and plain names pair
_IMAGES = re.compile(r"(images?|imgs?)([-_]?(tr|train|training))?", re.IGNORECASE)
_MASKS = re.compile(
    r"(masks?|labels?|annotations?|ground[-_ ]?truths?|gts?|segmentations?|segs?)"
    r"([-_]?(tr|train|training))?",
    re.IGNORECASE,
)
_MASK_ENDING = re.compile(
    r"[-_. ](masks?|seg|segmentation|gt|ground[-_]?truth|labels?|annotation)$", re.IGNORECASE
)
_PART = re.compile(r"[-_]?(ts|test|testing|va|val|valid|validation)$", re.IGNORECASE)
_MANUAL = re.compile(r"(1st|2nd)_manual", re.IGNORECASE)  # DRIVE's
_NOT_IMAGES = re.compile(r"_superpixels$", re.IGNORECASE)  # ISIC ships them among its inputs


def find_pairs(folder: Path) -> tuple[str, list[tuple[str | None, Path, Path]]]:
    """Name of the layout, and (part or None, images, masks) for each pair of folders in `folder`.

    Returns:
        No pairs where nothing in `folder` is named like images or masks.

    Raises:
        HyMUNetError: If one half of a pair is missing, or it is unclear which folders are meant.
    """
    folders = folders_in(folder)
    inputs = {m[1].lower(): path for path in folders if (m := _ISIC_IMAGES.fullmatch(path.name))}
    truths = {m[1].lower(): path for path in folders if (m := _ISIC_MASKS.fullmatch(path.name))}
    if inputs or truths:
        phases = sorted(inputs.keys() & truths.keys())
        if not phases:
            raise HyMUNetError(
                f"{folder} has {listed(path.name for path in [*inputs.values(), *truths.values()])}"
                "; expected an _Input folder and the _GroundTruth folder of the same phase: unpack "
                "both archives side by side"
            )
        several = len(phases) > 1
        return "ISIC 2018 Task 1", [
            (part_name(phase) if several else None, inputs[phase], truths[phase])
            for phase in phases
        ]
    images = [path for path in folders if _IMAGES.fullmatch(path.name)]
    masks = [path for path in folders if _MASKS.fullmatch(path.name)]
    if len(images) > 1 or len(masks) > 1:
        names = listed(path.name for path in [*images, *masks])
        raise HyMUNetError(
            f"{folder} has several folders of images or masks ({names}); say which with --images "
            "and --masks"
        )
    if len(images) + len(masks) == 1:
        have, lack = ("images", "masks") if images else ("masks", "images")
        raise HyMUNetError(
            f"{folder} has {have} in {(images or masks)[0].name}/ but no folder of {lack}; "
            f"expected {lack}/ beside it, or name both with --images and --masks"
        )
    return "folder pairs", [(None, images[0], masks[0])] if images else []


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly in `folder`, sorted."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def folders_left(root: Path, used: set[Path]) -> list[str]:
    """Names of folders of images that no pair in `used` took, such as a test set without masks."""
    left = [path for path in folders_in(root) if path not in used]
    return [
        path.name
        for pattern in (_IMAGES, _ISIC_IMAGES)
        for path in left
        if pattern.match(path.name)
    ]


def is_images_folder(folder: Path) -> bool:
    """Whether a folder is named as images are in a data set, of whatever part of it."""
    names = (folder.name, _PART.sub("", folder.name))
    return any(map(_IMAGES.fullmatch, names)) or bool(_ISIC_IMAGES.fullmatch(folder.name))


def is_masks_folder(folder: Path) -> bool:
    """Whether a folder is named as masks are in a data set, fields of view among them."""
    names = (folder.name, _PART.sub("", folder.name))  # as it is too: gts
    return any(map(_MASKS.fullmatch, names)) or bool(
        _ISIC_MASKS.fullmatch(folder.name) or _MANUAL.fullmatch(folder.name)
    )


def pair_files(images: Path, masks: Path, notes: list[str]) -> list[Case]:
    """A case for each image in the folder `images`, with its mask in `masks`, by stem.

    Args:
        images: Folder of images.
        masks: Folder of masks, of the same names or ending in _mask, _seg and the like.
        notes: What was left aside is added to it.

    Raises:
        HyMUNetError: If an image has no mask or several, or a mask no image.
    """
    pictures = _by_stem(images, notes, _NOT_IMAGES)
    labels = _by_stem(masks, notes)
    mask_of: dict[str, list[Path]] = {}
    for stem, path in labels.items():
        # an image whose own name ends in "_seg" is paired as it stands
        mask_of.setdefault(stem if stem in pictures else _MASK_ENDING.sub("", stem), []).append(
            path
        )
    lonely = sorted(pictures.keys() - mask_of.keys())
    orphans = sorted(mask_of.keys() - pictures.keys())
    if lonely or orphans:
        what = []
        if lonely:
            what.append(
                f"{some_of(len(lonely), len(pictures), 'image', ('has', 'have'))} no mask "
                f"({listed(lonely)})"
            )
        if orphans:
            names = listed(path.name for stem in orphans for path in mask_of[stem])
            what.append(
                f"{some_of(len(orphans), len(labels), 'mask', ('has', 'have'))} no image ({names})"
            )
        raise HyMUNetError(
            f"{' and '.join(what)} in {images} and {masks}; expected one mask of the same name for "
            "each image (or ending in _mask, _seg, _segmentation, _gt, _label): add what is "
            "missing or move the rest away; an image that shows nothing needs an all-black mask"
        )
    for stem, paths in mask_of.items():
        if len(paths) > 1:
            raise HyMUNetError(
                f"image {stem} has {plural(len(paths), 'mask')} "
                f"({listed(path.name for path in paths)}); keep one in the folder"
            )
    return [Case(stem, (pictures[stem],), mask_of[stem][0]) for stem in sorted(pictures)]


def _by_stem(
    folder: Path, notes: list[str], skip: re.Pattern[str] | None = None
) -> dict[str, Path]:
    entries = sorted(folder.iterdir())
    chosen = [
        path
        for path in entries
        if (is_image(path) or is_dicom_entry(path))
        and not (skip is not None and skip.search(stem_of(path)))
    ]
    rest = [path.name for path in entries if path not in set(chosen)]
    if not chosen:
        content = (
            f"holds none of {plural(len(rest), 'file or folder', 'files or folders')}"
            if rest
            else "is empty"
        )
        raise HyMUNetError(
            f"the folder {folder} {content}; expected images directly in it "
            f"({listed(SUFFIXES, 20)}, .dcm, or a folder with DICOM files for each)"
        )
    if rest:
        notes.append(f"{len(rest)} entries of {folder.name} are no images, ignored: {listed(rest)}")
    check_unique(((stem_of(path), path) for path in chosen), f"files in {folder}")
    return {stem_of(path): path for path in chosen}


def is_image(path: Path) -> bool:
    """Whether `path` is a file that ends like an image and is not hidden; a link to nothing counts,
    so that reading it fails by name instead of passing it over."""
    name = path.name.lower()
    there = path.is_file() or (path.is_symlink() and not path.exists())
    return name.endswith(SUFFIXES) and not name.startswith(".") and there
