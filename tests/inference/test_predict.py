"""`hymunet predict`: what is written, what is refused beforehand, and what fails alone."""

import csv
import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from hymunet import HyMUNet, Predictor, pretrained_names
from hymunet.cli import main
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.errors import HyMUNetError
from hymunet.inference.job import suspicion
from hymunet.inference.overlay import draw_overlay
from hymunet.inference.predict import predict
from hymunet.network.model_file import read_info, save_model
from tests.data.dicom_files import photo, slices, volume, write_series

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def names(folder):
    """All files below `folder`; the input has b.png in a subfolder more/, and so has the output."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def png(path):
    return np.asarray(Image.open(path))


def cut_short(path):
    """A picture that ends in the middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def output(tmp_path):
    return tmp_path / "results" / "masks"  # its parent does not exist either


def test_a_folder_becomes_a_mask_an_image(folder, toy_file, output):
    report = predict(str(folder), model=toy_file, output=output)
    assert report.exit_code == 0
    assert report.failed == {}
    assert names(output) == [
        "a.png", "c.png", "measurements.csv", "measurements.json", "more/b.png"
    ]  # fmt: skip
    assert report.written == [output / "a.png", output / "c.png", output / "more" / "b.png"]
    predictor = Predictor(toy_file)
    for source in (folder / "a.png", folder / "more" / "b.bmp", folder / "c.tif"):
        expected = predictor(source).mask
        mask = Image.open((output / source.relative_to(folder)).with_suffix(".png"))
        assert mask.size == Image.open(source).size
        np.testing.assert_array_equal(np.asarray(mask), expected * 255)
    assert 0 < expected.mean() < 1


def test_measurements_as_csv_and_json(folder, toy_file, output):
    report = predict(str(folder), model=toy_file, output=output)
    assert len(report.measurements) == 3
    written = json.loads((output / "measurements.json").read_text())
    assert written == {
        "measurements": report.measurements,
        "failed": {},
        "suspects": report.suspects,
        "model": str(toy_file),
        "licence": "CC0-1.0",
        "domain": None,
        "threshold": 0.5,
        "postprocess": {},
        "miss_rate": None,
    }
    with open(output / "measurements.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, report.measurements, strict=True):
        assert row == {name: str(value) for name, value in expected.items()}
        assert int(row["area_px"]) == (png(row["mask"]) == 255).sum()
        assert row["class"] == "lesion"


@pytest.mark.parametrize("kind", ["file", "glob", "several", "twice", "relative"])
def test_inputs_of_every_kind(folder, toy_file, output, kind, monkeypatch):
    monkeypatch.chdir(folder)
    inputs, expected = {
        "file": ([str(folder / "a.png")], ["a"]),
        "glob": ([str(folder / "*.*")], ["a", "c"]),
        "several": ([str(folder / "c.tif"), str(folder / "more")], ["b", "c"]),
        "twice": ([str(folder / "a.png"), str(folder / "*.png"), "a.png"], ["a"]),
        "relative": (["**/*.bmp", "a.png"], ["a", "b"]),
    }[kind]
    report = predict(*inputs, model=toy_file, output=output)
    assert sorted(path.stem for path in report.written) == expected
    assert sorted(path.stem for path in output.rglob("*.png")) == expected


def test_probabilities_in_sixteen_bits(folder, toy_file, output):
    predict(str(folder), model=toy_file, output=output, probability=True)
    for name, source in (("a", folder / "a.png"), ("more/b", folder / "more" / "b.bmp")):
        written = Image.open(output / f"{name}_probability.png")
        assert written.mode == "I;16"
        expected = Predictor(toy_file)(source).probability[0]
        np.testing.assert_allclose(np.asarray(written) / 65535.0, expected, atol=1 / 65535)
        assert expected.std() > 0.001


def test_overlays(folder, toy_file, output):
    predict(str(folder), model=toy_file, output=output, overlay=True)
    assert {"a_overlay.png", "more/b_overlay.png", "c_overlay.png"} <= set(names(output))
    image = read_image(folder / "c.tif")
    expected = draw_overlay(image.pixels, Predictor(toy_file)(image).mask)
    np.testing.assert_array_equal(png(output / "c_overlay.png"), expected)
    assert (expected != np.moveaxis(image.pixels, 0, -1)).any()


def test_the_threshold_is_honoured(folder, toy_file, output):
    predictor = Predictor(toy_file)
    probability = predictor(folder / "a.png").probability[0]
    threshold = float(np.quantile(probability, 0.8))
    predict(str(folder / "a.png"), model=toy_file, output=output, threshold=threshold)
    np.testing.assert_array_equal(png(output / "a.png") == 255, probability >= threshold)
    with pytest.raises(HyMUNetError, match="threshold must lie between 0 and 1"):
        predict(str(folder), model=toy_file, output=output, threshold=0.0)


def test_several_classes_are_written_as_indices(folder, output, tmp_path, picture):
    """Also where only the first occurs, which would otherwise look like a binary mask."""
    torch.manual_seed(3)
    network = HyMUNet(3, 3, activation="softmax", **TOY)
    with torch.no_grad():
        network.head.logits.bias += torch.tensor([0.0, 100.0, 0.0])
    model = save_model(tmp_path / "three.safetensors", network)
    predict(str(folder / "a.png"), model=model, output=output, probability=True)
    assert (png(output / "a.png") == 1).all()
    probabilities = [png(output / f"a_{i}_probability.png") / 65535.0 for i in range(3)]
    np.testing.assert_allclose(sum(probabilities), 1.0, atol=3 / 65535)
    rows = json.loads((output / "measurements.json").read_text())["measurements"]
    assert [(row["class"], row["fraction"]) for row in rows] == [("class 1", 1.0), ("class 2", 0.0)]


def test_a_second_call_replaces_the_first(folder, toy_file, output):
    predict(str(folder), model=toy_file, output=output, probability=True)
    before = {name: (output / name).read_bytes() for name in names(output)}
    predict(str(folder), model=toy_file, output=output, probability=True)
    assert {name: (output / name).read_bytes() for name in names(output)} == before


# one bad input among good ones


def test_a_broken_picture_does_not_stop_the_others(folder, toy_file, output, capsys):
    Image.open(folder / "a.png").save(folder / "broken.png")
    cut_short(folder / "broken.png")
    report = predict(str(folder), model=toy_file, output=output)
    assert report.exit_code == 1
    assert list(report.failed) == [str(folder / "broken.png")]
    assert "is broken or cut short" in report.failed[str(folder / "broken.png")]
    assert [path.name for path in report.written] == ["a.png", "c.png", "b.png"]
    assert names(output) == [
        "a.png", "c.png", "measurements.csv", "measurements.json", "more/b.png"
    ]  # fmt: skip
    written = json.loads((output / "measurements.json").read_text())
    assert written["failed"] == report.failed
    assert len(written["measurements"]) == 3
    with open(output / "measurements.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    shown = " ".join(capsys.readouterr().err.split())
    assert "3 of 4 images segmented" in shown
    assert "1 failed" in shown
    assert "broken.png" in shown


def test_all_broken(folder, toy_file, output):
    cut_short(folder / "a.png")
    report = predict(str(folder / "a.png"), model=toy_file, output=output)
    assert (report.exit_code, report.written) == (1, [])
    assert names(output) == ["measurements.csv", "measurements.json"]


def test_a_mask_that_cannot_be_written_does_not_stop_the_others(folder, toy_file, output):
    (output / "a.png").mkdir(parents=True)  # in the way
    report = predict(str(folder), model=toy_file, output=output)
    assert "cannot write" in report.failed[str(folder / "a.png")]
    assert [path.name for path in report.written] == ["c.png", "b.png"]
    assert not [name for name in names(output) if "partial" in name]


LIMITED = """
import resource, sys
from hymunet.cli import main
warm, *arguments = sys.argv[1:]
assert main(["predict", warm, *arguments[1:-1], arguments[-1] + "-warm"]) == 0
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**27,) * 2)
sys.exit(main(["predict", *arguments]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited by RLIMIT_AS")
def test_an_image_that_does_not_fit_into_memory_does_not_stop_the_others(folder, output, tmp_path):
    """128 MiB are free; the widest feature of a 512 x 512 picture takes 256 MiB."""
    network = HyMUNet(3, 1, stages="CC", dims=(256, 4), depths=(1, 1), stem_stride=1)
    model = save_model(tmp_path / "wide.safetensors", network)
    Image.new("RGB", (512, 512)).save(folder / "b_large.png")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder / "a.png"), str(folder), "--model", str(model),
         "--device", "cpu", "--output", str(output)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    written = json.loads((output / "measurements.json").read_text())
    assert list(written["failed"]) == [str(folder / "b_large.png")]
    assert "does not fit into the memory of cpu" in written["failed"][str(folder / "b_large.png")]
    assert {"a.png", "more/b.png", "c.png"} <= set(names(output))


# refusals, before anything is written


def test_two_inputs_of_one_name(folder, toy_file, output):
    Image.open(folder / "a.png").save(folder / "a.tif")
    with pytest.raises(
        HyMUNetError, match=r"a\.png and .*a\.tif would both be written to .*a\.png"
    ):
        predict(str(folder), model=toy_file, output=output)
    assert not output.exists()


def test_subfolders_are_repeated_so_that_equal_names_do_not_meet(folder, toy_file, output):
    Image.open(folder / "a.png").save(folder / "more" / "a.png")
    assert predict(str(folder), model=toy_file, output=output).exit_code == 0
    assert (output / "a.png").is_file()
    assert (output / "more" / "a.png").is_file()


def test_two_results_of_one_name(folder, toy_file, output):
    """The probability map of a is the mask of an image that is called a_probability."""
    Image.open(folder / "a.png").save(folder / "a_probability.bmp")
    with pytest.raises(HyMUNetError, match=r"would both be written to .*a_probability\.png"):
        predict(str(folder), model=toy_file, output=output, probability=True)
    assert not output.exists()
    assert predict(str(folder), model=toy_file, output=output).exit_code == 0


def test_the_input_folder_as_output(folder, toy_file):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        HyMUNetError, match=r"would overwrite its own input .*a\.png; choose another"
    ):
        predict(str(folder), model=toy_file, output=folder)
    with pytest.raises(HyMUNetError, match="would overwrite its own input"):
        predict(str(folder / "*.png"), model=toy_file, output=folder / "more" / "..")
    with pytest.raises(HyMUNetError, match=r"is an input folder, .* masks for images; choose"):
        predict(str(folder / "more"), model=toy_file, output=folder / "more")  # b.bmp -> b.png
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_file_in_the_place_of_the_output(folder, toy_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HyMUNetError, match=f"cannot write into the folder {output}"):
            predict(str(folder), model=toy_file, output=output)
    assert (tmp_path / "file").read_text() == "in the way"


def test_inputs_that_are_none(folder, toy_file, output, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    cases = {
        "matches nothing": [str(folder / "*.jpg")],
        "holds no images": [str(tmp_path / "empty")],
        "is no image by its name": [str(tmp_path / "notes.txt")],
        "no input is given": [],
    }
    for words, inputs in cases.items():
        with pytest.raises(HyMUNetError, match=words):
            predict(*inputs, model=toy_file, output=output)
    assert not output.exists()


def test_a_model_that_is_none(folder, output, tmp_path):
    with pytest.raises(HyMUNetError, match="there is no model file"):
        predict(str(folder), model=tmp_path / "none.safetensors", output=output)
    with pytest.raises(HyMUNetError, match=r"holds no best\.safetensors"):
        predict(str(folder), model=tmp_path, output=output)
    assert not output.exists()


# volumes


@pytest.fixture
def volumes(tmp_path):
    """A model of volumes, and two volumes on a grid that is turned, mirrored and shifted."""
    torch.manual_seed(4)
    network = HyMUNet(2, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)
    model = save_model(tmp_path / "volumes.safetensors", network)
    cos, sin = np.cos(0.2), np.sin(0.2)
    affine = np.array(
        [[0, -0.8, 0, 12], [0.9 * cos, 0, -3 * sin, -7.5], [0.9 * sin, 0, 3 * cos, 100], [0] * 4]
    )
    affine[3, 3] = 1
    folder = tmp_path / "volumes"
    folder.mkdir()
    values = np.random.default_rng(0).random((2, 7, 12, 19), np.float32)
    for name, array in (("one.nii.gz", values), ("two.nii", values[:, ::-1])):
        nibabel.save(nibabel.Nifti1Image(array.T, affine), folder / name)
    return model, folder, affine


def test_volumes_become_masks_on_their_grid(volumes, output):
    model, folder, affine = volumes
    report = predict(str(folder), model=model, output=output)
    assert report.exit_code == 0
    assert names(output) == ["measurements.csv", "measurements.json", "one.nii.gz", "two.nii.gz"]
    for name, source in (("one.nii.gz", "one.nii.gz"), ("two.nii.gz", "two.nii")):
        written = nibabel.load(output / name)
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        assert written.get_data_dtype() == np.uint8
        expected = Predictor(model)(folder / source).mask
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected.T)
        assert len(np.unique(expected)) > 1
    voxel = float(np.prod(np.linalg.norm(affine[:3, :3], axis=0)))
    for row in report.measurements:
        assert row["volume_mm3"] == pytest.approx(row["volume_voxels"] * voxel, rel=1e-4)


def test_a_dicom_series_becomes_one_mask_on_its_grid(tmp_path, output):
    torch.manual_seed(4)
    network = HyMUNet(1, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)
    model = save_model(tmp_path / "ct.safetensors", network)
    made = [slices(volume((4, 12, 19), seed)) for seed in range(3)]
    write_series(tmp_path / "in" / "case" / "ct", made[0])
    both = write_series(tmp_path / "in" / "both", made[1] + made[2])
    (both / "cut.dcm").write_bytes((both / "IM0000.dcm").read_bytes()[:150])
    write_series(tmp_path / "in", [photo(volume((6, 8)))], name="flat.dcm")

    report = predict(str(tmp_path / "in"), model=model, output=output)
    # a slice cut short is named three times: by itself, and by the two series it may belong to
    assert len(report.failed) == 4
    assert sum("cut.dcm is broken or cut short" in why for why in report.failed.values()) == 3
    assert "CANARY" not in json.dumps(report.failed)
    (both / "cut.dcm").unlink()

    for given in (tmp_path / "in", tmp_path / "in" / "case" / "ct"):
        predict(str(given), model=model, output=output)
    uids = sorted(series[0].SeriesInstanceUID for series in made[1:])
    expected = [output / "both" / f"{uid}.nii.gz" for uid in uids]
    expected += [output / "case" / "ct.nii.gz", output / "ct.nii.gz"]
    assert sorted(output.rglob("*.nii.gz")) == expected
    image = read_image(tmp_path / "in" / "case" / "ct", None)
    written = nibabel.load(output / "ct.nii.gz")
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    found = read_mask(output / "ct.nii.gz", 3, image=tmp_path / "in" / "case" / "ct").labels
    np.testing.assert_array_equal(found, Predictor(model)(image).mask)


@pytest.mark.parametrize("option", ["probability", "overlay"])
def test_pictures_of_volumes_are_refused_before_anything_is_written(volumes, output, option):
    model, folder, _ = volumes
    with pytest.raises(HyMUNetError, match=r"for pictures only, and .* segments volumes; leave"):
        predict(str(folder), model=model, output=output, **{option: True})
    assert not output.exists()


# the command line


def test_exit_codes(folder, toy_file, output, tmp_path, capsys):
    command = ["predict", str(folder), "--model", str(toy_file), "--output", str(output)]
    assert main([*command, "--overlay", "--threshold", "0.4"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert f"model {toy_file}: trained on drawn lesions (7 cases) licence: CC0-1.0" in shown
    assert "3 of 3 images segmented" in shown
    cut_short(folder / "a.png")
    assert main(command) == 1
    assert main([*command[:3], str(tmp_path / "none"), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert "error: there is no model file" in error
    assert "Traceback" not in error


def test_json_on_the_command_line_is_all_of_standard_output(folder, toy_file, output, capsys):
    cut_short(folder / "c.tif")
    command = ["predict", str(folder), "--model", str(toy_file), "--output", str(output)]
    assert main([*command, "--json"]) == 1
    printed = capsys.readouterr().out
    assert printed == (output / "measurements.json").read_text()
    assert list(json.loads(printed)["failed"]) == [str(folder / "c.tif")]


@pytest.mark.parametrize("name", pretrained_names())
def test_a_packaged_model_by_its_name(folder, output, name, capsys, monkeypatch, tmp_path):
    """Its terms are said once, on standard error, and stand in what machines read."""
    info = read_info(name)
    monkeypatch.chdir(tmp_path)  # names do not depend on where one is
    command = ["predict", str(folder / "a.png"), "--model", name, "--output", str(output)]
    assert main([*command, "--json"]) == 0
    printed, said = capsys.readouterr()
    results = json.loads(printed)
    assert (results["model"], results["licence"]) == (name, info["licence"])
    assert results["domain"] == info["domain"]
    for words in (f"model {name}: for {info['domain']}", f"licence: {info['licence']}",
                  "not a medical device"):  # fmt: skip
        assert said.count(words) == 1, words
    mask = png(output / "a.png")
    np.testing.assert_array_equal(mask, Predictor(name)(folder / "a.png").mask * 255)


def test_names_with_brackets_and_other_letters(folder, toy_file, tmp_path, capsys):
    """Brackets are markup to what prints the table, and patterns to what searches files."""
    odd = tmp_path / "odd[" / "bold]Größe 日本[red].png"
    odd.parent.mkdir()
    Image.open(folder / "a.png").save(odd)
    output = tmp_path / "out[" / "x]"
    assert predict(str(odd), model=toy_file, output=output).exit_code == 0
    assert (output / odd.name).is_file()
    # "[red]" would be swallowed, and "[/x]" of the output is a closing tag without an opening one
    assert odd.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("threshold", "words"), [(1 - 1e-7, "is empty"), (1e-7, "covers 100.0% of the image")]
)
def test_suspect_masks_are_written_and_told(folder, toy_file, output, threshold, words, capsys):
    report = predict(str(folder), model=toy_file, output=output, threshold=threshold)
    assert report.exit_code == 0
    assert len(report.suspects) == len(report.written) == 3
    assert all(words in why for why in report.suspects.values())
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folder / 'a.png'}: the mask {words}" in said
    assert "3 masks of 3 to look at" in said


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "is empty"), (1e-6, None), (0.5, None), (0.949, None), (0.95, "95.0%"), (1.0, "100")],
)
def test_masks_of_nothing_or_of_nearly_everything_are_suspects(share, words):
    found = suspicion(share)
    assert (found is None) == (words is None)
    assert words is None or words in found


def test_the_results_of_an_archive_are_left_alone(folder, toy_file, output):
    (output / "manifest").mkdir(parents=True)
    (output / "manifest" / "settings.json").write_text("{}")
    with pytest.raises(HyMUNetError, match="holds results of --engine ray"):
        predict(str(folder), model=toy_file, output=output)


def test_ctrl_c_keeps_the_tables_of_what_is_done(folder, toy_file, output, monkeypatch, capsys):
    from hymunet.inference import predict as module

    segment, count = module.segment_case, []

    def until_the_second(*arguments):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return segment(*arguments)

    monkeypatch.setattr(module, "segment_case", until_the_second)
    assert main(["predict", str(folder), "--model", str(toy_file), "--output", str(output)]) == 130
    said = capsys.readouterr().err
    assert "1 of 3 images are segmented and whole, measurements.csv" in said
    assert said.rstrip().endswith("interrupted")  # nothing goes on by itself here
    with open(output / "measurements.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 1


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_workers_are_counted_from_one(folder, toy_file, output, capsys, workers):
    flags = ["--model", str(toy_file), "--output", str(output), "--engine", "ray"]
    assert main(["predict", str(folder), *flags, "--workers", workers]) == 1
    assert "--workers must be 1 or more" in capsys.readouterr().err
