"""What a worker makes of an image is what the plain engine makes of it; what goes wrong is told."""

import os
import uuid
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from hymunet.data.dicom_find import find_series
from hymunet.data.image_cases import find_image_cases
from hymunet.errors import HyMUNetError
from hymunet.inference.archive import entries as entries_module
from hymunet.inference.archive.entries import find_entries
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.worker import Worker
from hymunet.inference.job import Job
from hymunet.inference.predict import predict
from tests.data.dicom_files import slices, volume, write_series
from tests.inference.archive.conftest import masks


def entries(predictor, job, output, *inputs):
    return list(find_entries(list(map(str, inputs)), predictor.config, job, Storage(output), []))


@pytest.fixture(scope="module")
def job(toy_file):
    return Job((toy_file,), device="cpu", overlay=True, probability=True)


@pytest.fixture(scope="module")
def predictor(job):
    return job.predictor()


@pytest.fixture
def plain(folder, toy_file, tmp_path):
    output = tmp_path / "plain"
    report = predict(
        str(folder), model=toy_file, output=output, overlay=True, probability=True, device="cpu"
    )
    return masks(output), report


def test_files_are_those_of_the_plain_engine(folder, job, predictor, tmp_path, plain):
    worker = Worker(job, str(tmp_path / "out"), job.model_digests())
    found = entries(predictor, job, tmp_path / "out", folder)
    outcomes = [worker.outcome(entry) for entry in found]
    assert masks(tmp_path / "out") == plain[0]
    assert len(plain[0]) == 9  # a mask, a probability and an overlay each
    measured = [row for outcome in outcomes for row in outcome["measurements"]]
    names = ("image", "mask")
    expected = [{k: v for k, v in row.items() if k not in names} for row in plain[1].measurements]
    assert measured == expected
    assert [entry.label for entry in found] == [row["image"] for row in plain[1].measurements]


def test_from_a_zip_into_a_store(folder, job, predictor, tmp_path, plain):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    place = f"memory://{uuid.uuid4().hex}/out"
    worker = Worker(job, place, job.model_digests())
    for entry in entries(predictor, job, place, f"zip://::file://{tmp_path}/all.zip"):
        assert worker.outcome(entry)["status"] == "done"
    memory = fsspec.filesystem("memory")
    root = place.removeprefix("memory:/")
    written = {name.removeprefix(f"{root}/"): memory.cat_file(name) for name in memory.find(root)}
    assert written == plain[0]


def test_a_broken_image_is_an_outcome_that_names_it(folder, job, predictor, tmp_path):
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:200])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(folder / "a.png", "a.png")
    url = f"zip://::file://{tmp_path}/all.zip"
    for place in (folder, url):
        worker = Worker(job, str(tmp_path / "out"), job.model_digests())
        entry = entries(predictor, job, tmp_path / "out", place)[0]
        outcome = worker.outcome(entry)
        assert outcome["status"] == "failed"
        assert entry.label in outcome["reason"]
        assert "is broken or cut short" in outcome["reason"]


def test_a_problem_of_the_names_is_an_outcome(job, predictor, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("c_t1.nii.gz", "c_flair.nii.gz"):
        (tmp_path / "in" / name).write_bytes(b"")
    (case,) = find_image_cases([tmp_path / "in"], 3)[0]
    (entry,) = entries(predictor, job, tmp_path / "out", tmp_path / "in")
    outcome = Worker(job, str(tmp_path / "out"), job.model_digests()).outcome(entry)
    assert outcome == {"status": "failed", "reason": case.problem}


def test_another_model_under_the_same_name_stops_all(folder, job, predictor, tmp_path):
    entry = entries(predictor, job, tmp_path / "out", folder)[0]
    outcome = Worker(job, str(tmp_path / "out"), ["another"]).outcome(entry)
    assert outcome["status"] == "stopped"
    assert "a model file differs between the machines" in outcome["reason"]


def test_the_checks_of_the_plain_engine_hold(folder, job, predictor):
    with pytest.raises(HyMUNetError, match="would overwrite its own input"):
        entries(predictor, job, folder, folder)
    with pytest.raises(HyMUNetError, match="does not exist and matches nothing"):
        entries(predictor, job, folder / "out", folder / "nothing")


def test_addresses_are_not_overwritten_however_they_are_spelt(folder, job, predictor, tmp_path):
    place = f"memory://{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{place}/in/a.png", (folder / "a.png").read_bytes())
    (tmp_path / "link").symlink_to(folder)
    for given, output in (
        (f"file://{folder}", folder), (f"file://{folder}/", tmp_path / "link"),
        (f"{place}/in", f"{place}/in/"),
    ):  # fmt: skip
        with pytest.raises(HyMUNetError, match=r"overwrite its own input .*a\.png"):
            entries(predictor, job, output, given)
    assert entries(predictor, job, f"{place}/out", f"{place}/in")
    assert entries(predictor, job, tmp_path / "out", f"file://{folder}")


def test_a_series_that_changed_has_another_stamp(job, predictor, tmp_path):
    write_series(tmp_path / "ct", slices(volume((3, 6, 8))), name="IM{}")
    write_series(tmp_path / "two", slices(volume((3, 6, 8))) + slices(volume((3, 6, 8))))
    for path in (tmp_path / "ct", next(iter(find_series(tmp_path / "two")))):
        before = entries_module._stamp(path)
        file = next(path.iterdir() if path.is_dir() else path.parent.iterdir())
        file.write_bytes(file.read_bytes())
        os.utime(file, ns=(1, 2**62))
        assert entries_module._stamp(path) != before
    assert entries_module._stamp(tmp_path / "gone" / "a.png") == ""


@pytest.mark.parametrize("kind", ["apart", "nested", "twice", "with files", "output inside"])
def test_inputs_are_found_as_by_the_plain_engine(tmp_path, job, predictor, kind):
    for name in ("a/1.png", "a/deep/2.png", "b/3.png", "b/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    a, b = tmp_path / "a", tmp_path / "b"
    inputs, output = {
        "apart": ([a, b], tmp_path / "out"),
        "nested": ([a / "deep", a, b], tmp_path / "out"),
        "twice": ([b, a, f"{b}/"], tmp_path / "out"),
        "with files": ([a / "1.png", b], tmp_path / "out"),
        "output inside": ([b, a], a / "out"),
    }[kind]
    found = entries(predictor, job, output, *inputs)
    expected, _ = find_image_cases(list(map(str, inputs)), 3)
    assert sorted((entry.label, Path(entry.below)) for entry in found) == sorted(
        (case.label, case.below) for case in expected
    )
    assert len(found) == len({entry.mask for entry in found}) == 4 - (kind == "with files")
