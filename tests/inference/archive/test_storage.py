"""A folder and a store keep files in the same way."""

import uuid

import pytest

from hymunet.errors import HyMUNetError
from hymunet.inference.archive.storage import Storage


@pytest.fixture(params=["folder", "file address", "store"])
def storage(request, tmp_path):
    if request.param == "folder":
        return Storage(tmp_path / "out")
    if request.param == "file address":
        return Storage(f"file://{tmp_path}/out")
    return Storage(f"memory://{uuid.uuid4().hex}/out")


def test_what_is_written_is_read_and_listed(storage):
    assert storage.read("deep/a.bin") is None
    assert storage.names("deep") == []
    storage.write("deep/b.bin", b"first")
    storage.write("deep/b.bin", b"second")
    storage.write("deep/a.bin", b"")
    storage.write("c.bin", b"c")
    assert storage.names("deep") == ["a.bin", "b.bin"]
    assert storage.read("deep/b.bin") == b"second"
    assert storage.where("deep/b.bin").endswith("out/deep/b.bin")
    storage.remove("deep/b.bin")
    assert storage.names("deep") == ["a.bin"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(HyMUNetError, match="cannot write into the folder"):
        Storage(tmp_path / "out").make()
