"""What is wrong with files on disk, told by the command line: which file, what, what to do."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from hymunet.cli import main
from hymunet.data.image_io import read_image
from hymunet.data.mask_writing import write_mask
from tests.data.dicom_files import dataset, save, slices, volume, write_series
from tests.data.drawn_files import described

SHAPE = (6, 12, 14)  # (depth, height, width)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
CASES = ("a", "b", "c")
BROKEN = "b"  # the case that is damaged; not the first, not the last


def labels(number: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:9, 3 + number : 11] = 1
    return found


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """`values` (depth, height, width) with the axes (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values.T, None)
    image.header.set_zooms((1.0, 1.0, 2.0))
    image.header.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def nifti_data(root: Path) -> Path:
    """images/ and masks/ with three sound volumes, and their masks as another tool's in theirs/."""
    for number, case in enumerate(CASES):
        values = np.random.default_rng(number).normal(100, 10, SHAPE).astype(np.float32)
        write_nifti(root / "data" / "images" / f"{case}.nii.gz", values)
        for folder in ("data/masks", "theirs"):
            write_nifti(root / folder / f"{case}.nii.gz", labels(number))
    return root / "data"


def dicom_data(root: Path) -> Path:
    """The same, the images being series; masks are NIfTI files on their grids."""
    for number, case in enumerate(CASES):
        made = slices(volume(SHAPE, number))
        series = write_series(root / "data" / "images" / case, made)
        like = read_image(series, None)
        for folder in ("data/masks", "theirs"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_mask(root / folder / f"{case}.nii.gz", labels(number), like)
    return root / "data"


def decathlon_data(root: Path) -> Path:
    """The same with a dataset.json."""
    data = nifti_data(root)
    entries = [
        {"image": f"./images/{case}.nii.gz", "label": f"./masks/{case}.nii.gz"} for case in CASES
    ]
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "lesion"},
        "training": entries,
    }
    return described(data, content)


def mapped_data(root: Path) -> Path:
    """The same, with 3 for the lesion in the masks."""
    data = decathlon_data(root)
    content = json.loads((data / "dataset.json").read_text("utf-8"))
    described(data, content | {"labels": {"background": 0, "lesion": 3}})
    for number, case in enumerate(CASES):
        for folder in ("data/masks", "theirs"):
            write_nifti(root / folder / f"{case}.nii.gz", 3 * labels(number))
    return data


def broken_image(data: Path) -> Path:
    return data / "images" / f"{BROKEN}.nii.gz"


def nan_voxels(data: Path) -> None:
    values = np.full(SHAPE, 100, np.float32)
    values[2, 3, 4] = np.nan
    write_nifti(broken_image(data), values)


def affine_of_zeros(data: Path) -> None:
    affine = AFFINE.copy()
    affine[:, 2] = 0
    write_nifti(broken_image(data), np.ones(SHAPE, np.float32), affine)


def sheared_affine(data: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.3
    write_nifti(broken_image(data), np.ones(SHAPE, np.float32), affine)


def cut_gzip(data: Path) -> None:
    content = broken_image(data).read_bytes()
    broken_image(data).write_bytes(content[: len(content) * 2 // 3])


def series_files(data: Path) -> list[Path]:
    """The slices of the damaged case by their position."""
    files = (data / "images" / BROKEN).iterdir()
    return sorted(files, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def missing_slice(data: Path) -> None:
    series_files(data)[2].unlink()


def doubled_slice(data: Path) -> None:
    first, second = (pydicom.dcmread(path) for path in series_files(data)[1:3])
    second.ImagePositionPatient = first.ImagePositionPatient
    save(second, series_files(data)[2])


def slice_of_another_size(data: Path) -> None:
    path = series_files(data)[2]
    old = pydicom.dcmread(path)
    kept = {
        name: getattr(old, name)
        for name in (
            "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PixelSpacing",
            "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "InstanceNumber",
        )
    }  # fmt: skip
    save(dataset(np.zeros((SHAPE[1], SHAPE[2] + 2), np.uint16), **kept), path)


def mask_elsewhere(data: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = 5.0
    write_nifti(data / "masks" / f"{BROKEN}.nii.gz", labels(1), affine)


def mask_of_another_size(data: Path) -> None:
    write_nifti(data / "masks" / f"{BROKEN}.nii.gz", labels(1)[:, :, :-2])


def undeclared_label(data: Path) -> None:
    found = labels(1)
    found[4, 5, 6] = 7
    write_nifti(data / "masks" / f"{BROKEN}.nii.gz", found)


def name_instead(data: Path, name: str) -> None:
    """Lets dataset.json name another file for the image of the damaged case."""
    content = json.loads((data / "dataset.json").read_text("utf-8"))
    content["training"][CASES.index(BROKEN)]["image"] = name
    described(data, content)


@dataclass(frozen=True)
class Damage:
    """A way to break a data set, and what its message must say.

    Args:
        make: Writes a sound data set.
        harm: Breaks it.
        file: A part of the name of the file at fault.
        wrong: Words on what is wrong with it.
        advice: Words on what to do.
        whole: Whether the data set as a whole cannot be understood: then there are no cases.
    """

    make: Callable[[Path], Path]
    harm: Callable[[Path], None]
    file: str
    wrong: str
    advice: str
    whole: bool = False


DAMAGES = {
    "NaN": Damage(nifti_data, nan_voxels, "b.nii.gz", "holds 1 NaN", "replace them"),
    "zero affine": Damage(
        nifti_data, affine_of_zeros, "b.nii.gz", "axes of length 1.0, 1.0, 0.0", "Write the right"
    ),
    "sheared affine": Damage(
        nifti_data, sheared_affine, "b.nii.gz", "sheared", "resample the volume"
    ),
    "truncated gzip": Damage(nifti_data, cut_gzip, "b.nii.gz", "cut short", "export it again"),
    "missing slice": Damage(
        dicom_data, missing_slice, "images/b", "missing: about 1", "copy the series again"
    ),
    "doubled slice": Damage(
        dicom_data,
        doubled_slice,
        "images/b",
        "the position of another one",
        "move the copy elsewhere",
    ),
    "slice of another size": Damage(
        dicom_data, slice_of_another_size, "images/b", "are of 2 sizes", "Move the files"
    ),
    "mask elsewhere": Damage(
        nifti_data, mask_elsewhere, "masks/b.nii.gz", "lies on another grid", "resample"
    ),
    "mask of another size": Damage(
        nifti_data, mask_of_another_size, "masks/b.nii.gz", "(6, 12, 12)", "resample"
    ),
    "undeclared label": Damage(
        decathlon_data, undeclared_label, "masks/b.nii.gz", "7", "rewrite the mask"
    ),
    "label that is not in the map": Damage(
        mapped_data,
        undeclared_label,
        "masks/b.nii.gz",
        "no label of its data set (1, 7)",
        "correct the mask",
    ),
    "named file missing": Damage(
        decathlon_data,
        lambda data: name_instead(data, "./images/z.nii.gz"),
        "dataset.json",
        "do not exist: images/z.nii.gz",
        "bring them",
        whole=True,
    ),
    "absolute path": Damage(
        decathlon_data,
        lambda data: name_instead(data, "/etc/passwd"),
        "dataset.json names the file /etc/passwd",
        "not in its folder",
        "correct them",
        whole=True,
    ),
    "path of Windows": Damage(
        decathlon_data,
        lambda data: name_instead(data, "C:\\scans\\b.nii.gz"),
        "dataset.json names the file C:\\scans\\b.nii.gz",
        "not in its folder",
        "correct them",
        whole=True,
    ),
    "path out of the folder": Damage(
        decathlon_data,
        lambda data: name_instead(data, "./images/../../theirs/b.nii.gz"),
        "dataset.json names the file ./images/../../theirs/b.nii.gz",
        "not in its folder",
        "correct them",
        whole=True,
    ),
}


def told(verb: str, root: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of a verb on the command line, and the messages of its errors."""
    arguments = {
        "verify": [str(data), "--output", str(root / "page"), "--json"],
        "evaluate": [str(root / "theirs"), str(data)],
        "train": [str(data), "--output", str(root / "run"), "--epochs", "1"],
    }
    code = main([verb, *arguments[verb]])
    out, err = capsys.readouterr()
    if verb == "verify" and out:
        found = json.loads(out)["findings"]
        return code, "\n".join(one["message"] for one in found if one["level"] == "error")
    return code, err


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("make", [nifti_data, dicom_data, mapped_data], ids=lambda f: f.__name__)
def test_sound_data_raise_no_error(tmp_path, capsys, make):
    data = make(tmp_path)
    assert told("verify", tmp_path, data, capsys) == (0, "")
    code, err = told("evaluate", tmp_path, data, capsys)
    assert code == 0
    assert "error" not in err


@pytest.mark.parametrize("verb", ["verify", "evaluate", "train"])
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_is_said_with_its_file_and_a_remedy(tmp_path, capsys, name, verb):
    damage = DAMAGES[name]
    data = damage.make(tmp_path)
    damage.harm(data)
    code, said = told(verb, tmp_path, data, capsys)
    said = said.replace("\n", " ")
    assert code == 1
    for words in (damage.file, damage.wrong, damage.advice):
        assert words in said
    assert "Traceback" not in said


def test_verify_names_each_broken_case_and_looks_at_the_rest(tmp_path, capsys):
    data = nifti_data(tmp_path)
    harms = [name for name, one in DAMAGES.items() if one.make is nifti_data and not one.whole]
    for name in harms:
        # each damage on a copy of the damaged case of its own
        DAMAGES[name].harm(nifti_data(tmp_path / name))
        for folder in ("images", "masks"):
            broken = tmp_path / name / "data" / folder / f"{BROKEN}.nii.gz"
            (data / folder / f"{name}.nii.gz").write_bytes(broken.read_bytes())
    code = main(["verify", str(data), "--output", str(tmp_path / "page"), "--json"])
    found = json.loads(capsys.readouterr().out)
    broken = {
        one["cases"][0]: one["message"] for one in found["findings"] if one["level"] == "error"
    }
    assert code == 1
    assert broken.keys() == set(harms)
    for name, said in broken.items():
        assert DAMAGES[name].wrong in said
        assert DAMAGES[name].advice in said
    assert found["facts"]["readable"] == f"{len(CASES)}"
