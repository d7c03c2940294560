"""The command: what it asks, what it fetches, what it leaves; against a server on this machine."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from hymunet.cli import main
from hymunet.data.catalogue import Archive, Source, isic2018
from hymunet.data.formats import find_dataset
from hymunet.data.partial import Partial
from hymunet.data.receipts import read_receipt, receipt_path
from tests.data.file_server import Served

pytest.importorskip("requests")
from hymunet.data.download import download, download_source
from hymunet.data.transfer import CHUNK

posix = pytest.mark.skipif(
    sys.platform == "win32", reason="signals and terminals as POSIX has them"
)
TRAINING = "ISIC2018_Task1-2_Training_Input"
NUMBERS = {"Training": (1, 2, 3), "Validation": (11,), "Test": (21, 22)}


def picture(kind, shade):
    buffer = io.BytesIO()
    Pillow.fromarray(np.full((6, 8), shade, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def isic(server):
    """A mirror of ISIC 2018 Task 1 with six small cases."""
    for archive in isic2018().archives:
        phase = archive.folder.split("_")[2]
        files = {f"{archive.folder}/LICENSE.txt": b"CC BY-NC 4.0"}
        for n in NUMBERS[phase]:
            if archive.folder.endswith("Input"):
                files[f"{archive.folder}/ISIC_{n:07d}.jpg"] = picture("JPEG", n)
            else:
                files[f"{archive.folder}/ISIC_{n:07d}_segmentation.png"] = picture("PNG", 255)
        server.files[f"/2018/{archive.name}"] = Served(zipped(files))
    return f"{server.url}/2018/"


@pytest.fixture
def large(isic, server):
    """The training images of that mirror, three chunks long."""
    file = server.files[f"/2018/{TRAINING}.zip"]
    with zipfile.ZipFile(buffer := io.BytesIO(file.content), "a") as archive:
        archive.writestr(f"{TRAINING}/noise.bin", random.Random(0).randbytes(3 * CHUNK))
    file.content = buffer.getvalue()
    return file


def ranges_of(server, path):
    return [given for method, asked, given in server.asked if (method, asked) == ("GET", path)]


def command(output, mirror, *more):
    return ["download", "isic2018", "--output", str(output), "--mirror", mirror, *more]


def run(*arguments, **options):
    """The command in a process of its own, as in a terminal or a script; a test run in the
    background of a shell ignores SIGINT, which its children would inherit."""
    if os.name == "posix":
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-m", "hymunet.cli", *arguments],
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | options,
    )


def test_isic_2018_becomes_a_data_set(isic, server, tmp_path, capsys):
    output = tmp_path / "isic"
    assert main(command(output, isic, "--accept-licence")) == 0
    printed = capsys.readouterr().err
    for expected in ("CC BY-NC 4.0", "1902.03368", "sdata.2018.161", "6 cases with masks"):
        assert expected in printed
    found = find_dataset(output)
    assert found.name == "ISIC 2018 Task 1"
    assert [case.id for case in found.cases] == [f"ISIC_{n:07d}" for n in (1, 2, 3, 11, 21, 22)]
    assert sorted(found.split.values()) == ["test", "test", "train", "train", "train", "val"]
    for archive in isic2018().archives:
        assert read_receipt(receipt_path(output, archive)).checked_against is None
        assert not (output / archive.name).exists()
    assert len(server.gets()) == 6
    # again: no question, no request, no licence to accept
    asked = len(server.asked)
    result = download("isic2018", output=output, mirror=isic)
    assert result.folder == output
    assert result.downloaded == ()
    assert len(server.asked) == asked
    assert "nothing is downloaded" in capsys.readouterr().err


def test_only_what_is_missing_is_fetched(isic, server, tmp_path):
    first = download("isic2018", output=tmp_path / "isic", mirror=isic, accept_licence=True)
    assert len(first.downloaded) == 6
    for path in (tmp_path / "isic" / "ISIC2018_Task1_Test_GroundTruth").iterdir():
        path.unlink()
    (tmp_path / "isic" / "ISIC2018_Task1_Test_GroundTruth").rmdir()
    del server.asked[:]
    again = download("isic2018", output=tmp_path / "isic", mirror=isic, accept_licence=True)
    assert again.downloaded == ("ISIC2018_Task1_Test_GroundTruth.zip",)
    assert server.asked == [
        ("HEAD", "/2018/ISIC2018_Task1_Test_GroundTruth.zip", None),
        ("GET", "/2018/ISIC2018_Task1_Test_GroundTruth.zip", None),
    ]


def test_a_task_of_the_decathlon_becomes_a_data_set(server, tmp_path):
    files = {"imagesTr/hippocampus_001.nii.gz": b"i", "labelsTr/hippocampus_001.nii.gz": b"l"}
    pairs = [
        {"image": "./imagesTr/hippocampus_001.nii.gz", "label": "./labelsTr/hippocampus_001.nii.gz"}
    ]
    files["dataset.json"] = json.dumps({"training": pairs, "test": []}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(f"Task04_Hippocampus/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    server.files["/Task04_Hippocampus.tar"] = Served(buffer.getvalue())
    archive = Archive(
        f"{server.url}/Task04_Hippocampus.tar",
        "Task04_Hippocampus",
        md5=hashlib.md5(buffer.getvalue()).hexdigest(),
    )
    source = Source("a task", "CC BY-SA 4.0", "", (), "", (archive,))
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    result = download_source(source, tmp_path, console, accepted=True)
    for step in ("downloading", "checking", "unpacking"):  # the bars of a terminal
        assert f"{step} Task04_Hippocampus.tar" in console.file.getvalue()
    assert result.folder == tmp_path / "Task04_Hippocampus"
    assert [case.id for case in find_dataset(result.folder).cases] == ["hippocampus_001"]


def test_a_file_that_is_not_the_published_one_is_refused(server, tmp_path, capsys):
    server.files["/Task04_Hippocampus.tar"] = Served(b"another")
    arguments = ["download", "decathlon", "Task04_Hippocampus", "--output", str(tmp_path)]
    assert main([*arguments, "--mirror", server.url, "--accept-licence"]) == 1
    printed = capsys.readouterr().err
    assert "expected MD5 9d24dba78a72977dbd1d2e110310f31b" in printed
    assert "Antonelli" in printed
    assert "CC BY-SA 4.0" in printed
    assert not (tmp_path / "Task04_Hippocampus").exists()


def test_an_archive_that_is_missing_is_said_before_anything_comes(isic, server, tmp_path, capsys):
    del server.files["/2018/ISIC2018_Task1_Test_GroundTruth.zip"]
    assert main(command(tmp_path / "isic", isic, "--accept-licence")) == 1
    assert "ISIC2018_Task1_Test_GroundTruth.zip answered 404 Not Found" in capsys.readouterr().err
    assert server.gets() == []


def test_contradictions_are_refused(tmp_path, capsys):
    assert main(["download", "isic2018", "Task02_Heart"]) == 1
    assert "only the Decathlon has tasks" in capsys.readouterr().err
    assert main(["download", "decathlon"]) == 1
    assert "name one, as in" in capsys.readouterr().err
    assert main(["download", "decathlon", "Task11_Nose"]) == 2
    assert main(["download", "imagenet"]) == 2


def test_nothing_comes_when_the_folder_cannot_be_written(isic, server, tmp_path, capsys):
    (tmp_path / "isic").write_text("a file")
    assert main(command(tmp_path / "isic" / "below", isic, "--accept-licence")) == 1
    assert "cannot write into the folder" in capsys.readouterr().err
    assert server.asked == []


def test_without_its_extra_the_command_says_what_to_install(isic, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'requests':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = run(
        *command(tmp_path / "isic", isic, "--accept-licence"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    printed = done.communicate()[1]
    assert done.returncode == 1
    assert "downloading needs requests, not installed here; install with: pip install" in printed
    assert '"hymunet[download]"' in printed


# --- the licence ------------------------------------------------------------------------------


def test_without_a_terminal_the_licence_is_refused(isic, server, tmp_path):
    done = run(*command(tmp_path / "isic", isic))
    printed = done.communicate()[1]
    assert done.returncode == 1
    assert "CC BY-NC 4.0" in printed
    assert "add --accept-licence" in printed
    assert server.asked == []
    assert not (tmp_path / "isic").exists()


@posix
@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)])
def test_at_a_terminal_it_is_asked(isic, server, tmp_path, typed, code):
    import pty

    ours, theirs = pty.openpty()
    done = run(*command(tmp_path / "isic", isic), stdin=theirs)
    os.close(theirs)
    os.write(ours, typed.encode())
    printed = done.communicate()[1]
    os.close(ours)
    assert done.returncode == code
    assert "Do you accept the licence?" in printed
    assert (tmp_path / "isic").exists() == (code == 0)
    assert bool(server.asked) == (code == 0)


# --- interrupted ------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_goes_on_and_is_alone_while_it_runs(
    isic, large, server, tmp_path, capsys, how
):
    large.hold = threading.Event()
    large.cuts.append(2 * CHUNK)
    arguments = command(tmp_path / "isic", isic, "--accept-licence")
    first = run(*arguments)
    part = Partial(tmp_path / "isic" / f"{TRAINING}.zip.part")
    for _ in range(1200):
        if part.size == 2 * CHUNK:
            break
        time.sleep(0.05)
    assert main(arguments) == 1
    assert "another process is downloading" in capsys.readouterr().err
    first.send_signal(how)
    printed = first.communicate()[1]
    assert first.returncode == (130 if how == signal.SIGINT else -how)
    assert ("same command goes on" in printed) == (how == signal.SIGINT)
    assert not (tmp_path / "isic" / TRAINING).exists()
    large.hold.set()
    assert main(arguments) == 0
    assert ranges_of(server, f"/2018/{TRAINING}.zip") == [None, f"bytes={2 * CHUNK}-"]
    assert len(find_dataset(tmp_path / "isic").cases) == 6


@posix
def test_a_full_disk_is_said_and_the_command_goes_on_when_there_is_room(
    isic, large, server, tmp_path
):
    limit = CHUNK + 1000
    arguments = command(tmp_path / "isic", isic, "--accept-licence")
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from hymunet.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "File too large; 263.1 kB of 788.3 kB are kept: make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert main(arguments) == 0
    assert ranges_of(server, f"/2018/{TRAINING}.zip") == [None, f"bytes={limit}-"]
    assert len(find_dataset(tmp_path / "isic").cases) == 6
