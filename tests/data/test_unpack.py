"""Archives of others: unpacked whole, or refused whole; never a file outside the folder."""

import io
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from hymunet.data.unpack import DamagedError, unpack
from hymunet.errors import HyMUNetError

FILES = {"data/a.txt": b"a" * 1000, "data/below/b.bin": bytes(range(256)), "c.txt": b""}


def make_zip(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def add_to_tar(path, **fields):
    """A tar with a harmless file, then a member with these fields."""
    make_tar(path, {"a.txt": b"a"})
    member = tarfile.TarInfo()
    for name, value in fields.items():
        setattr(member, name, value)
    with tarfile.open(path, "a") as archive:
        archive.addfile(member)
    return path


def add_to_zip(path, name, kind=0, content=b"/etc/passwd"):
    make_zip(path, {"a.txt": b"a"})
    info = zipfile.ZipInfo()
    info.filename = name  # not through the constructor, which mends names
    info.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def untouched(tmp_path, archive):
    """Nothing but the archive is there, neither in the folder nor around it."""
    return sorted(path for path in tmp_path.rglob("*")) == [archive]


@pytest.mark.parametrize(
    "make",
    [
        make_zip,
        make_tar,
        lambda path: make_zip(path, compression=zipfile.ZIP_STORED),
        lambda path: make_tar(path, mode="w:gz"),
    ],
    ids=["zip", "tar", "zip stored", "tar.gz"],
)
def test_what_was_packed_comes_out(tmp_path, make):
    archive = make(tmp_path / "archive")
    seen = []
    unpack(archive, tmp_path / "out", lambda *at: seen.append(at))
    assert contents(tmp_path / "out") == FILES
    assert seen[-1] == (1256, 1256)


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "data/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt", "C:out.txt"],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name, kind):
    archive = tmp_path / "archive"
    if kind == "zip":
        add_to_zip(archive, name)
    else:
        add_to_tar(archive, name=name)
    with pytest.raises(DamagedError, match="leaves the folder that it is unpacked into"):
        unpack(archive, tmp_path / "out")
    assert untouched(tmp_path, archive)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "/etc"}, "is a link"),
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "a.txt"}, "is a link"),
        ({"name": "l", "type": tarfile.LNKTYPE, "linkname": "a.txt"}, "is a link"),
        ({"name": "l", "type": tarfile.FIFOTYPE}, "is no plain file"),
        ({"name": "l", "type": tarfile.CHRTYPE}, "is no plain file"),
    ],
    ids=["link out", "link inside", "hard link", "fifo", "device"],
)
def test_a_tar_holds_files_and_folders_only(tmp_path, fields, fault):
    archive = add_to_tar(tmp_path / "archive.tar", **fields)
    with pytest.raises(DamagedError, match=f"'l' {fault}"):
        unpack(archive, tmp_path / "out")
    assert untouched(tmp_path, archive)


@pytest.mark.parametrize(
    ("kind", "fault"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is no plain file")]
)
def test_a_zip_holds_files_and_folders_only(tmp_path, kind, fault):
    archive = add_to_zip(tmp_path / "archive.zip", "l", kind)
    with pytest.raises(DamagedError, match=f"'l' {fault}"):
        unpack(archive, tmp_path / "out")
    assert untouched(tmp_path, archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a.txt", "A.TXT", "./a.txt", "x/../a.txt"])
def test_two_files_of_one_name_are_refused(tmp_path, again):
    archive = add_to_zip(tmp_path / "archive.zip", again)
    with pytest.raises(DamagedError, match=r"stands in it twice|leaves the folder"):
        unpack(archive, tmp_path / "out")


def test_a_folder_may_stand_in_it_twice(tmp_path):
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("data")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "data").is_dir()


def test_each_crc_of_a_zip_is_checked(tmp_path):
    files = {f"{n}.bin": random.Random(n).randbytes(3000) for n in range(5)}
    archive = make_zip(tmp_path / "archive.zip", files, zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    for content in files.values():
        damaged = bytearray(whole)
        damaged[whole.index(content) + 1500] ^= 1
        archive.write_bytes(damaged)
        with pytest.raises(DamagedError, match="damaged or not whole: Bad CRC-32"):
            unpack(archive, tmp_path / "out")
        assert untouched(tmp_path, archive)


@pytest.mark.parametrize("make", [make_zip, make_tar], ids=["zip", "tar"])
def test_a_cut_archive_is_refused(tmp_path, make):
    files = {f"{n}.bin": random.Random(n).randbytes(5000) for n in range(4)}
    archive = make(tmp_path / "archive", files)
    whole = archive.read_bytes()
    for length in (0, 100, 7000, 16_000):
        archive.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=r"no whole \.zip or \.tar|damaged or not whole"):
            unpack(archive, tmp_path / "out")
        assert untouched(tmp_path, archive)


def test_a_page_instead_of_an_archive_is_shown(tmp_path):
    (tmp_path / "archive.zip").write_text("<html>Please log in")
    with pytest.raises(DamagedError, match="it begins with b'<html>Please log in'"):
        unpack(tmp_path / "archive.zip", tmp_path / "out")


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "archive.zip", {"a.txt": b"a"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(content)
    with pytest.raises(DamagedError, match=r"'a.txt' is encrypted"):
        unpack(archive, tmp_path / "out")


def test_more_than_the_disk_holds_is_refused_before_it_is_written(tmp_path):
    # each file says that it has 4.3 GB
    count = shutil.disk_usage(tmp_path).free // 0xFFFFFFFE + 1
    if count > 60_000:
        pytest.skip("the disk is larger than a zip of this kind can say")
    archive = make_zip(tmp_path / "archive.zip", {str(n): b"a" for n in range(count)})
    content = bytearray(archive.read_bytes())
    entry = -1
    for _ in range(count):
        entry = content.index(b"PK\x01\x02", entry + 1)
        content[entry + 24 : entry + 28] = (0xFFFFFFFE).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(HyMUNetError, match=r"unpacks to .* and the disk .* has room for"):
        unpack(archive, tmp_path / "out")
    assert untouched(tmp_path, archive)


@pytest.mark.skipif(sys.platform == "win32", reason="limits a process as POSIX does")
def test_a_disk_that_fills_up_leaves_the_archive_alone(tmp_path):
    archive = make_zip(tmp_path / "archive.zip", {"a.txt": b"a", "b.bin": bytes(300_000)})
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from hymunet.data.unpack import unpack\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HyMUNetError: cannot unpack archive.zip" in done.stderr
    assert "File too large; free the place" in done.stderr
    assert untouched(tmp_path, archive)
