"""Files are whole or not there."""

import os

import pytest

from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, replacing, write_bytes, write_text, write_with


def test_what_is_written_is_read(tmp_path):
    write_text(tmp_path / "a.txt", "Größe\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "Größe\n"
    write_with(tmp_path / "b.bin", lambda path: path.write_bytes(b"x"))
    assert (tmp_path / "b.bin").read_bytes() == b"x"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.safetensors"
    write_bytes(path, b"old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_suffix_is_kept_for_writers_that_look_at_it(tmp_path):
    with replacing(tmp_path / "mask.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said(tmp_path):
    def write_to_full(path):
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)

    with pytest.raises(HyMUNetError, match="No space left on device; nothing was left"):
        write_with(tmp_path / "a.bin", write_to_full)
    assert os.listdir(tmp_path) == []


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HyMUNetError, match="cannot write into the folder"):
            make_folder(path)
    assert make_folder(tmp_path / "a" / "b").is_dir()
