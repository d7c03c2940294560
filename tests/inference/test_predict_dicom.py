"""`hymunet predict --output-format dicom-seg`: from a study to objects that belong to it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("highdicom", reason="NOT TESTED: DICOM output needs the extra `dicom`")

import pydicom

from hymunet import HyMUNet, Predictor
from hymunet.cli import main
from hymunet.data.dicom_seg_writing import write_dicom
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.inference import dicom_outputs
from hymunet.inference.predict import predict
from hymunet.network.model_file import save_model
from tests.data.dicom_files import (
    ORIENTATIONS,
    enhanced,
    photo,
    save,
    slices,
    volume,
    write_series,
)

pytestmark = pytest.mark.dicom

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of volumes: two structures, and the background."""
    torch.manual_seed(4)
    network = HyMUNet(1, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)
    info = {"classes": ["liver", "thing"]}
    return save_model(tmp_path_factory.mktemp("model") / "ct.safetensors", network, info)


@pytest.fixture
def study(tmp_path):
    """A folder with two series below it, each in a folder of its own."""
    for seed, name in enumerate(("a", "b")):
        made = slices(volume((4, 12, 19), seed), ORIENTATIONS["oblique"])
        write_series(tmp_path / "study" / name, made)
    return tmp_path / "study"


def command(*words):
    return main(["predict", *map(str, words), "--output-format", "dicom-seg"])


def test_a_study_becomes_a_segmentation_a_series(study, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(study, "--model", model, "--output", out) == 0
    said = capsys.readouterr().err
    assert "coded: liver as Liver (SCT 10200004)" in said
    assert "no code is known for thing" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "a.dcm", "b.dcm", "measurements.csv", "measurements.json"
    ]  # fmt: skip
    rows = json.loads((out / "measurements.json").read_text())["measurements"]
    assert {row["mask"] for row in rows} == {str(out / "a.dcm"), str(out / "b.dcm")}
    for name in ("a", "b"):
        expected = Predictor(model)(study / name).mask
        found = read_mask(out / f"{name}.dcm", 3, image=study / name).labels
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(expected)) > 1
    seg = pydicom.dcmread(out / "a.dcm")
    by = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert by.AlgorithmName.endswith("/ct.safetensors")
    assert "sha256:" in by.AlgorithmParameters


def test_evaluate_takes_them_as_truth_and_as_prediction(study, model, tmp_path):
    out = tmp_path / "out"
    predict(str(study), model=model, output=out, output_format="dicom-seg")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(study)
    (data / "masks").mkdir()
    for name in ("a.dcm", "b.dcm"):
        (out / name).rename(data / "masks" / name)
    again = tmp_path / "again"
    predict(str(study), model=model, output=again, output_format="dicom-seg")
    scores = evaluate(again, data, num_labels=3)
    assert len(scores.cases) == 4
    assert {row["dice"] for row in scores.cases} == {1.0}
    assert {row["unit"] for row in scores.cases} == {"mm"}


@pytest.mark.parametrize("frames", [False, True], ids=["files", "frames"])
def test_a_model_of_pictures_goes_slice_by_slice(tmp_path, toy_file, frames):
    """Each as if its file had been given alone."""
    # 12 of 16 bits: a picture's range is that of its bits
    array = volume((5, 20, 24)) & 0xFFF
    made = slices(array, ORIENTATIONS["sagittal"], BitsStored=12, HighBit=11)
    folder = write_series(tmp_path / "ct", made)
    source = folder
    if frames:
        whole = enhanced(array, ORIENTATIONS["sagittal"])
        whole.BitsStored, whole.HighBit = 12, 11
        source = save(whole, tmp_path / "whole" / "mr.dcm")
    out = tmp_path / "out"
    report = predict(str(source), model=toy_file, output=out, output_format="dicom-seg")
    (path,) = report.written
    found = read_mask(path, 2, image=source).labels
    alone = Predictor(toy_file)
    for depth, ds in enumerate(made):
        one = save(ds, tmp_path / "alone" / f"{depth}.dcm")
        np.testing.assert_array_equal(found[depth], alone(one).mask)
    assert 0 < found.mean() < 1
    (row,) = report.measurements
    assert row["volume_mm3"] == pytest.approx(row["volume_voxels"] * 0.7 * 0.9 * 2.5, rel=1e-4)


def test_pictures_and_their_captures(tmp_path, toy_file, picture):
    rgb = np.ascontiguousarray(np.moveaxis(picture, 0, -1))
    save(photo(rgb), tmp_path / "in" / "photo.dcm")
    out = tmp_path / "out"
    assert command(tmp_path / "in", "--model", toy_file, "--output", out, "--overlay") == 0
    found = read_mask(out / "photo.dcm", 2, image=tmp_path / "in" / "photo.dcm").labels
    np.testing.assert_array_equal(found, Predictor(toy_file)(picture).mask)
    drawn = pydicom.dcmread(out / "photo_overlay" / "0001.dcm").pixel_array
    assert drawn.shape == rgb.shape
    assert (drawn != rgb).any()
    np.testing.assert_array_equal(drawn[found == 0], rgb[found == 0])
    # the captures beside it do not look like masks to `evaluate`
    (tmp_path / "data" / "masks").mkdir(parents=True)
    (tmp_path / "in").rename(tmp_path / "data" / "images")
    shutil.copy(out / "photo.dcm", tmp_path / "data" / "masks")
    scored = evaluate(out, tmp_path / "data", num_labels=2)
    assert scored.cases[0]["dice"] == 1.0


def test_a_series_of_captures(study, model, tmp_path):
    out = tmp_path / "out"
    predict(str(study / "a"), model=model, output=out, output_format="dicom-seg", overlay=True)
    files = sorted((out / "a_overlay").iterdir())
    assert [path.name for path in files] == [f"{k:04d}.dcm" for k in range(1, 5)]
    captures = [pydicom.dcmread(path) for path in files]
    assert len({one.SeriesInstanceUID for one in captures}) == 1
    assert captures[0].SeriesInstanceUID != pydicom.dcmread(out / "a.dcm").SeriesInstanceUID
    values = read_image(study / "a", None).pixels[0]
    mask = read_mask(out / "a.dcm", 3, image=study / "a").labels
    outside = [one.pixel_array[mask[k] == 0, 0] for k, one in enumerate(captures)]
    # one grey scale for all slices
    shown = np.concatenate(outside).astype(float)
    stored = np.concatenate([values[k][mask[k] == 0] for k in range(4)]).astype(float)
    order = np.argsort(stored)
    assert (np.diff(shown[order]) >= 0).all()


def test_captures_of_another_study_do_not_stay(tmp_path, model, monkeypatch):
    out = tmp_path / "out"
    drawn = out / "x_overlay"
    for seed, count in enumerate((6, 3)):
        made = slices(volume((count, 12, 19), seed), ORIENTATIONS["axial"])
        folder = write_series(tmp_path / str(seed) / "x", made)
        predict(str(folder), model=model, output=out, output_format="dicom-seg", overlay=True)
        if seed == 0:
            for name in ("mine.dcm", "0001.txt", "12.dcm"):
                (drawn / name).write_text("kept")
            (drawn / "0009.dcm").mkdir()
    names = sorted(path.name for path in drawn.iterdir())
    assert names == [
        "0001.dcm", "0001.txt", "0002.dcm", "0003.dcm", "0009.dcm", "12.dcm", "mine.dcm"
    ]  # fmt: skip
    study = made[0].StudyInstanceUID
    captures = [pydicom.dcmread(drawn / f"{k:04d}.dcm") for k in (1, 2, 3)]
    assert {one.StudyInstanceUID for one in captures} == {study}
    # nor beside the first of the next, should the call be killed there

    def killed(path, made):
        if path.parent == drawn and path.stem == "0002":
            raise KeyboardInterrupt
        write_dicom(path, made)

    monkeypatch.setattr(dicom_outputs, "write_dicom", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(str(tmp_path / "0" / "x"), model=model, output=out, output_format="dicom-seg",
                overlay=True)  # fmt: skip
    left = sorted(path.name for path in drawn.glob("0*.dcm") if path.is_file())
    assert left == ["0001.dcm"]
    assert pydicom.dcmread(drawn / "0001.dcm").StudyInstanceUID != study


def test_what_is_not_dicom(folder, study, model, toy_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(HyMUNetError, match=r"needs DICOM images, and 3 images are none .*PNG"):
        predict(str(folder), model=toy_file, output=out, output_format="dicom-seg")
    assert not out.exists()
    save(photo(volume((20, 24), 0, 0, 256, np.uint8)), folder / "photo.dcm")
    report = predict(str(folder), model=toy_file, output=out, output_format="dicom-seg")
    assert [path.name for path in report.written] == ["photo.dcm"]
    assert len(report.failed) == 3
    assert all("is no DICOM image" in why for why in report.failed.values())
    assert report.exit_code == 1


def test_options_that_do_not_go_together(study, model, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(HyMUNetError, match="leave --probability or --output-format out"):
        predict(str(study), model=model, output=out, output_format="dicom-seg", probability=True)
    with pytest.raises(HyMUNetError, match="add --output-format dicom-seg"):
        predict(str(study), model=model, output=out, codes=tmp_path / "codes.yaml")
    assert not out.exists()


def test_codes_of_the_users_own(study, model, tmp_path, capsys):
    codes = tmp_path / "codes.yaml"
    codes.write_text("thing: {type: ['7', 99KLINIK, Ding], category: [260787004, SCT, Thing]}\n")
    out = tmp_path / "out"
    assert command(study / "a", "--model", model, "--output", out, "--codes", codes) == 0
    assert "thing as Ding (99KLINIK 7)" in capsys.readouterr().err
    item = pydicom.dcmread(out / "a.dcm").SegmentSequence[1]
    assert item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Ding"


def test_nested_structures_are_named_for_what_is_in_their_segment(study, tmp_path):
    torch.manual_seed(4)
    network = HyMUNet(1, 2, spatial_dims=3, activation="sigmoid", conv_norm="group", **TOY)
    info = {"classes": ["tumour", "core"], "threshold": 0.45}
    nested = save_model(tmp_path / "nested.safetensors", network, info)
    out = tmp_path / "out"
    predict(str(study / "a"), model=nested, output=out, output_format="dicom-seg")
    seg = pydicom.dcmread(out / "a.dcm")
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    assert labels == ["tumour without core", "core"]
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    found = read_mask(out / "a.dcm", 3, image=study / "a").labels
    np.testing.assert_array_equal(found, Predictor(nested)(study / "a").mask)


def test_without_highdicom_the_extra_is_named(study, model, tmp_path):
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] == 'highdicom':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from hymunet.cli import main\n"
        f"sys.exit(main(['predict', {str(study)!r}, '--model', {str(model)!r}, '--output', "
        f"{str(tmp_path / 'out')!r}, '--output-format', 'dicom-seg']))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert 'needs highdicom, not installed here; install with: pip install "hymunet[dicom]"' in (
        " ".join(ran.stderr.split())
    )
    assert not (tmp_path / "out").exists()


def test_files_are_opened_as_pictures_by_their_names(tmp_path, toy_file, picture):
    """A PNG that is called .dcm is said to be broken, not taken for a study."""
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.dcm")
    report = predict(
        str(tmp_path / "x.dcm"), model=toy_file, output=tmp_path / "o", output_format="dicom-seg"
    )
    assert list(report.failed) == [str(tmp_path / "x.dcm")]
