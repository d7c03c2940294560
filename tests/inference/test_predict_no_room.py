"""A disk that is full or read-only: said at once, nothing that was done is lost."""

import csv
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from hymunet.errors import HyMUNetError, NoRoomError
from hymunet.files import room_kept, write_bytes
from hymunet.inference.predict import predict


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of so many KiB in memory; needs root."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size, more=""):
        options = f"size={size}k{more}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"NOT TESTED ON A FULL DISK: mount says {done.stderr.decode().strip()}")
        return place

    try:
        yield mount
    finally:
        subprocess.run(["umount", str(place)], capture_output=True)


@pytest.fixture
def pictures(tmp_path):
    """Sixty small ones."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def test_a_disk_that_fills_up_stops_all_and_keeps_what_is_done(disk, pictures, toy_file, tmp_path):
    output = disk(200) / "out"
    with pytest.raises(NoRoomError) as said:
        predict(str(pictures), model=toy_file, output=output, probability=True)
    masks = sorted(path.stem for path in output.glob("??.png"))
    done = json.loads((output / "measurements.json").read_text())
    measured = [row["mask"] for row in done["measurements"]]
    assert 0 < len(measured) < 60
    assert f"{len(measured)} of 60 images are segmented and whole" in str(said.value)
    assert "No space left on device" in str(said.value)
    assert "measurements.csv and measurements.json hold them" in str(said.value)
    assert done["failed"] == {}
    with open(output / "measurements.csv", newline="") as file:
        assert [row["mask"] for row in csv.DictReader(file)] == measured
    predict(str(pictures), model=toy_file, output=tmp_path / "whole", probability=True)
    for name in masks:  # whole or not there; the last may lack its probability map
        written = (output / f"{name}.png").read_bytes()
        assert written == (tmp_path / "whole" / f"{name}.png").read_bytes()
    assert not [path for path in output.iterdir() if "partial" in path.name]


def test_a_disk_without_room_for_the_tables_is_told_before_the_work(disk, pictures, toy_file):
    output = disk(40) / "out"
    with pytest.raises(NoRoomError, match=r"has not .* MiB left, which the tables"):
        predict(str(pictures), model=toy_file, output=output)
    assert list(output.iterdir()) == []


def test_a_read_only_disk_is_told_before_the_work(disk, pictures, toy_file):
    output = disk(400, ",ro") / "out"
    with pytest.raises(NoRoomError, match=r"cannot write into the folder .*Read-only file system"):
        predict(str(pictures), model=toy_file, output=output)


def test_room_that_was_kept_is_there_when_freed(disk):
    place = disk(100)
    with room_kept(place, 60_000) as free_room:
        with pytest.raises(NoRoomError, match="No space left on device; nothing was left"):
            write_bytes(place / "a.bin", bytes(60_000))
        free_room()
        write_bytes(place / "a.bin", bytes(60_000))
    assert [path.name for path in place.iterdir()] == ["a.bin"]


def test_one_file_that_cannot_be_written_is_no_full_disk(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(HyMUNetError, match="cannot write") as said:
        write_bytes(tmp_path / "a.bin", b"x")
    assert not isinstance(said.value, NoRoomError)
