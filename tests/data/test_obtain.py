"""An archive becomes a folder: whole, checked, once; or the folder is not there."""

import hashlib
import io
import json
import random
import shutil
import tarfile
import zipfile
from collections import deque

import pytest

from hymunet.data.catalogue import Archive
from hymunet.data.receipts import is_complete, read_receipt, receipt_path
from hymunet.errors import HyMUNetError
from tests.data.file_server import Served

pytest.importorskip("requests")
from hymunet.data.obtain import check_room, obtain
from hymunet.data.transfer import CHUNK, Transfer

FILES = {f"data/{n}.bin": random.Random(n).randbytes(CHUNK) for n in range(4)}


def zipped(files=FILES):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # the same bytes each time
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def get(server, tmp_path, heard):
    """Calls `obtain` on what the server has under /data.zip."""

    def call(md5=None, keep=False, name="data.zip"):
        archive = Archive(f"{server.url}/{name}", "data", md5=md5, whole=("*.bin", 4))
        transfer = Transfer(heard.append, backoff_s=0.0, retries=5)
        obtain(archive, "CC0", tmp_path, transfer, keep=keep, notice=heard.append)
        return archive

    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {f"data/{path.name}": path.read_bytes() for path in (folder / "data").iterdir()}


def test_the_folder_and_a_receipt_are_all_that_stays(server, get, tmp_path, heard):
    server.files["/data.zip"] = Served(zipped())
    archive = get(md5=hashlib.md5(zipped()).hexdigest())
    assert contents(tmp_path) == FILES
    assert names(tmp_path) == ["data", "data.zip.receipt.json"]
    receipt = read_receipt(receipt_path(tmp_path, archive))
    assert receipt.sha256 == hashlib.sha256(zipped()).hexdigest()
    assert receipt.bytes == len(zipped())
    assert receipt.url == archive.url
    assert receipt.checked_against == f"md5:{archive.md5}"
    assert (receipt.files, receipt.unpacked_bytes) == (4, 4 * CHUNK)
    assert (receipt.etag, receipt.licence) == ('"one"', "CC0")
    assert any(receipt.sha256 in line and "MD5 as published" in line for line in heard)
    # once is enough
    asked = len(server.asked)
    get()
    assert len(server.asked) == asked


def test_an_archive_without_its_folder_gets_one(server, get, tmp_path):
    bare = {name.removeprefix("data/"): content for name, content in FILES.items()}
    server.files["/data.zip"] = Served(zipped(bare))
    get()
    assert contents(tmp_path) == FILES
    assert names(tmp_path) == ["data", "data.zip.receipt.json"]


def test_what_else_is_in_the_archive_is_said(server, get, tmp_path, heard):
    server.files["/data.zip"] = Served(zipped(FILES | {"__MACOSX/data/._0.bin": b"junk"}))
    get()
    assert names(tmp_path) == ["data", "data.zip.receipt.json"]
    assert "data.zip also holds __MACOSX: left out" in heard


def test_archives_may_be_kept_and_are_then_used(server, get, tmp_path, heard):
    server.files["/data.zip"] = Served(zipped())
    get(keep=True)
    assert names(tmp_path) == ["data", "data.zip", "data.zip.receipt.json"]
    assert (tmp_path / "data.zip").read_bytes() == zipped()
    shutil.rmtree(tmp_path / "data")
    asked = len(server.asked)
    get()
    assert contents(tmp_path) == FILES
    assert len(server.asked) == asked
    # what was there before is not ours to delete
    assert (tmp_path / "data.zip").exists()
    assert f"{tmp_path / 'data.zip'} is there, and is used" in heard


def test_a_wrong_digest_is_refused_and_the_next_call_starts_anew(server, get, tmp_path):
    right = zipped()
    wrong = bytearray(right)
    wrong[right.index(FILES["data/2.bin"])] ^= 1
    server.files["/data.zip"] = Served(bytes(wrong))
    md5 = hashlib.md5(right).hexdigest()
    with pytest.raises(HyMUNetError, match=f"expected MD5 {md5}, it has .* downloads it again"):
        get(md5=md5)
    assert names(tmp_path) == []
    server.files["/data.zip"].content = right
    get(md5=md5)
    assert contents(tmp_path) == FILES


def test_without_a_published_digest_the_archives_own_sums_are_checked(server, get, tmp_path, heard):
    right = zipped()
    wrong = bytearray(right)
    wrong[right.index(FILES["data/2.bin"])] ^= 1
    server.files["/data.zip"] = Served(bytes(wrong))
    with pytest.raises(HyMUNetError, match=r"Bad CRC-32 for file 'data/2.bin'; it was removed"):
        get()
    assert names(tmp_path) == []
    server.files["/data.zip"].content = right
    get()
    assert any("no digest is published for it" in line for line in heard)


def test_a_bad_archive_that_was_there_already_is_not_deleted(get, tmp_path):
    (tmp_path / "data.zip").write_bytes(zipped()[:1000])
    with pytest.raises(HyMUNetError, match=r"move .*data.zip away, and the same command downloads"):
        get()
    assert names(tmp_path) == ["data.zip"]


def test_unsafe_archives_leave_nothing(server, get, tmp_path):
    server.files["/data.zip"] = Served(zipped(FILES | {"../out.txt": b"out"}))
    with pytest.raises(HyMUNetError, match="leaves the folder"):
        get()
    buffer = io.BytesIO(tarred(FILES))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        member = tarfile.TarInfo("data/link")
        member.type, member.linkname = tarfile.SYMTYPE, "../../out"
        archive.addfile(member)
    server.files["/data.tar"] = Served(buffer.getvalue())
    with pytest.raises(HyMUNetError, match="'data/link' is a link"):
        get(name="data.tar")
    assert names(tmp_path) == []
    assert not (tmp_path.parent / "out.txt").exists()


def test_cuts_and_errors_on_the_way_change_nothing(server, get, tmp_path):
    cuts, answers = deque([CHUNK, 0, CHUNK + 1]), deque([(500, {})])
    server.files["/data.zip"] = Served(zipped(), cuts=cuts, answers=answers)
    get(md5=hashlib.md5(zipped()).hexdigest())
    assert contents(tmp_path) == FILES


# --- later downloads --------------------------------------------------------------------------


def test_a_later_download_is_compared_with_the_receipt(server, get, tmp_path):
    server.files["/data.zip"] = Served(zipped())
    archive = get()
    shutil.rmtree(tmp_path / "data")
    get()  # the same again
    assert contents(tmp_path) == FILES
    shutil.rmtree(tmp_path / "data")
    changed = FILES | {"data/3.bin": b"x" * CHUNK}
    server.files["/data.zip"] = Served(zipped(changed), etag='"two"')
    with pytest.raises(HyMUNetError, match=r"is not the data.zip of 20.*: expected SHA-256"):
        get()
    assert not (tmp_path / "data").exists()
    # accepted by deleting the receipt; what has come is not fetched again
    receipt_path(tmp_path, archive).unlink()
    asked = len(server.gets())
    get()
    assert contents(tmp_path) == changed
    assert len(server.gets()) == asked


def test_what_is_not_whole_is_not_overwritten(server, get, tmp_path):
    server.files["/data.zip"] = Served(zipped(FILES | {"data/empty.txt": b""}))
    get()
    (tmp_path / "data" / "empty.txt").unlink()
    with pytest.raises(HyMUNetError, match="it holds 4 files of"):
        get()
    (tmp_path / "data" / "empty.txt").touch()
    (tmp_path / "data" / "extra.csv").write_text("mine")  # more is no harm
    get()
    (tmp_path / "data" / "extra.csv").unlink()
    (tmp_path / "data" / "0.bin").write_bytes(b"half")
    with pytest.raises(HyMUNetError, match=r"not whole, it holds 5 files of .* move it away"):
        get()
    (tmp_path / "data" / "0.bin").unlink()
    with pytest.raises(HyMUNetError, match="it holds 4 files of"):
        get()
    receipt_path(tmp_path, Archive("/data.zip", "data")).unlink()
    with pytest.raises(HyMUNetError, match=r"it holds 3 files \*.bin of 4"):
        get()
    assert len(server.gets()) == 1


def test_what_somebody_else_unpacked_is_recognised(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.bin").touch()
    assert is_complete(tmp_path, Archive("/data.zip", "data", whole=("*.bin", 4)))
    listing = {
        "training": [{"image": "./images/a.nii.gz", "label": "./labels/a.nii.gz"}],
        "test": ["./more/b.nii.gz"],
    }
    archive = Archive("/data.tar", "data")
    with pytest.raises(HyMUNetError, match=r"not whole, it holds not dataset.json"):
        is_complete(tmp_path, archive)
    (folder / "dataset.json").write_text(json.dumps(listing))
    for name in ("images/a", "labels/a", "more/b"):
        with pytest.raises(HyMUNetError, match=f"it holds not ./{name}.nii.gz"):
            is_complete(tmp_path, archive)
        (folder / name).parent.mkdir()
        (folder / f"{name}.nii.gz").touch()
    assert is_complete(tmp_path, archive)
    assert not is_complete(tmp_path / "elsewhere", archive)


@pytest.mark.parametrize("name", ["../a.nii.gz", "/etc/passwd", "images/../../a", "C:\\a", "..\\a"])
def test_lists_that_lead_out_of_their_folder_are_refused(tmp_path, name):
    (tmp_path / "data").mkdir()
    listing = {"training": [{"image": name, "label": name}], "test": []}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(HyMUNetError, match="lies outside of its folder: refused"):
        is_complete(tmp_path, Archive("/data.tar", "data"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"training": [], "test": 3}'])
def test_a_list_that_is_none(tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text(content)
    with pytest.raises(HyMUNetError, match="is no list of a Decathlon task"):
        is_complete(tmp_path, Archive("/data.tar", "data"))


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_receipt_that_is_none(tmp_path, content):
    archive = Archive("/data.zip", "data", whole=("*.bin", 4))
    (tmp_path / "data").mkdir()
    receipt_path(tmp_path, archive).write_text(content)
    with pytest.raises(HyMUNetError, match=r"is no receipt of a download .*delete it"):
        is_complete(tmp_path, archive)


# --- the disk ---------------------------------------------------------------------------------


def test_room_is_asked_for_before_anything_comes(server, tmp_path, heard):
    server.files["/data.zip"] = Served(b"0123456789")
    server.files["/more.zip"] = Served(b"01234")
    archives = [Archive(f"{server.url}/{name}.zip", name) for name in ("data", "more")]
    transfer = Transfer(heard.append)
    # contents of both, and the larger archive beside its contents
    assert check_room(archives, tmp_path, transfer, keep=False) == (15, 15, 25)
    assert check_room(archives, tmp_path, transfer, keep=True) == (15, 15, 30)
    (tmp_path / "data.zip.part").write_bytes(b"0123")
    assert check_room(archives, tmp_path, transfer, keep=False) == (15, 11, 21)
    (tmp_path / "data.zip").write_bytes(b"0123456789")
    assert check_room(archives, tmp_path, transfer, keep=False) == (15, 5, 20)
    server.files["/more.zip"].head = False
    assert check_room(archives[1:], tmp_path, transfer, keep=False) is None
    assert heard == [f"{server.url}/more.zip: the server does not say how large it is"]
    assert server.gets() == []


def test_too_little_room_is_said_before_anything_comes(server, tmp_path):
    file = server.files["/data.zip"] = Served(b"")
    file.content = Pretended(shutil.disk_usage(tmp_path).free // 2 + 1)
    archive = Archive(f"{server.url}/data.zip", "data")
    with pytest.raises(HyMUNetError, match=r"free; about .* are needed.*make room"):
        check_room([archive], tmp_path, Transfer(print), keep=False)
    assert server.gets() == []


class Pretended(bytes):
    """A file of a size that no memory holds; only its length is asked for."""

    def __new__(cls, length):
        made = super().__new__(cls)
        made.length = length
        return made

    def __len__(self):
        return self.length
