"""Images behind addresses: found by the same names as on a disk, fetched whole."""

import uuid
import zipfile
from pathlib import Path

import fsspec
import pytest

from hymunet.data.image_cases import find_image_cases
from hymunet.data.remote import fetched, find_remote_cases, is_url, local_path
from hymunet.errors import HyMUNetError

SEQUENCES = ("flair", "t1", "t1ce", "t2", "seg")
TREES = {
    "plain": ["a.png", "b.JPG", "more/a.png", "more/deep/c.tif", "notes.txt", ".hidden.png"],
    "data set": ["data/images/1.png", "data/images/2.png", "data/masks/1.png", "data/masks/2.png"],
    "brats": [
        f"C{n}/C{n}_{k}.nii.gz" for n in (1, 2) for k in ("flair", "t1", "t1ce", "t2", "seg")
    ],
    "nnunet": [f"imagesTs/case{n}_000{c}.nii.gz" for n in (1, 2) for c in range(4)],
    "lacking": ["imagesTs/x_0000.nii.gz", "imagesTs/x_0002.nii.gz", "imagesTs/y_0000.nii.gz"],
    "hidden": [".git/a.png", "b.png"],
}


@pytest.fixture
def store():
    """An empty folder of the memory's store, and its address."""
    folder = f"/{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    memory.makedirs(folder)
    yield memory, folder, f"memory:/{folder}"
    memory.rm(folder, recursive=True)


def fill(memory, folder, names):
    for name in names:
        memory.pipe_file(f"{folder}/{name}", name.encode())


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_store_holds_what_a_folder_of_the_same_names_holds(tmp_path, store, kind, channels):
    memory, folder, url = store
    fill(memory, folder, TREES[kind])
    for name in TREES[kind]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    here = [
        (
            case.name,
            case.below,
            [path.relative_to(tmp_path).as_posix() for path in case.files],
            case.problem and case.problem.replace(str(tmp_path), url),
        )
        for case in find_image_cases([tmp_path], channels)[0]
    ]
    there = [
        (
            one.case.name,
            one.case.below,
            [address.removeprefix(f"{url}/") for address in one.urls],
            one.case.problem,
        )
        for one in find_remote_cases(url, channels, [])
    ]
    assert sorted(there, key=str) == sorted(here, key=str)
    assert there


def test_what_is_passed_over_is_said(store):
    memory, folder, url = store
    fill(memory, folder, ["images/1.png", "masks/1.png", "images/notes.txt", "images/slice.dcm"])
    notes = []
    assert [one.label for one in find_remote_cases(url, 3, notes)] == [f"{url}/images/1.png"]
    assert len(notes) == 1
    assert "3 files or folders passed over" in notes[0]
    assert "masks/" in notes[0]
    assert "slice.dcm" in notes[0]


def test_patterns_and_single_files(store):
    memory, folder, url = store
    fill(memory, folder, ["a.png", "b.jpg", "more/c.png", "scan.dcm"])
    assert [one.label for one in find_remote_cases(f"{url}/*.png", 3, [])] == [f"{url}/a.png"]
    deep = [one.label for one in find_remote_cases(f"{url}/**/*.png", 3, [])]
    assert f"{url}/more/c.png" in deep
    (single,) = find_remote_cases(f"{url}/scan.dcm", 3, [])
    assert (single.case.name, single.case.below, single.urls) == (
        "scan", Path(), (f"{url}/scan.dcm",)
    )  # fmt: skip


def test_a_file_that_changes_has_another_stamp(store):
    memory, folder, url = store
    fill(memory, folder, ["a.png"])
    (before,) = find_remote_cases(url, 3, [])
    (same,) = find_remote_cases(url, 3, [])
    memory.pipe_file(f"{folder}/a.png", b"longer than before")
    (after,) = find_remote_cases(url, 3, [])
    assert before.stamp == same.stamp != after.stamp


def test_files_in_a_zip_are_fetched_for_the_time_of_a_block(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in/a.png", b"A")
        archive.writestr("in/b.png", b"B")
    url = f"zip://in::file://{tmp_path}/all.zip"
    first, second = find_remote_cases(url, 3, [])
    assert first.label == f"zip://in/a.png::file://{tmp_path}/all.zip"
    with fetched([*first.urls, *second.urls]) as files:
        assert [file.name for file in files] == ["a.png", "b.png"]
        assert [file.read_bytes() for file in files] == [b"A", b"B"]
    assert not any(file.exists() for file in files)


def test_files_of_this_machine_are_not_copied(tmp_path):
    (tmp_path / "a.png").write_bytes(b"A")
    url = f"file://{tmp_path}"
    assert local_path(url) == tmp_path
    (case,) = find_remote_cases(url, 3, [])
    with fetched(case.urls) as files:
        assert files == [tmp_path / "a.png"]
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://bucket/x", "nosuch://bucket/x cannot be opened: Protocol not known: nosuch"),
        ("memory://not-there-at-all", "memory://not-there-at-all"),
    ],
)
def test_what_cannot_be_listed_is_said(url, words):
    with pytest.raises(HyMUNetError, match=words):
        list(find_remote_cases(url, 3, []))


def test_addresses_are_told_from_paths():
    assert is_url("s3://bucket/folder")
    assert is_url("zip://*.png::s3://bucket/a.zip")
    assert not is_url("folder/file.png")
    assert not is_url(r"C:\images\a.png")
