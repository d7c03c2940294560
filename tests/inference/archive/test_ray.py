"""`predict --engine ray` on this machine: the plain engine's bytes, through kills and bad files."""

import json
import os
import signal
import subprocess
import time

import pytest
from PIL import Image

from hymunet.inference.predict import predict
from tests.inference.archive.conftest import command, manifest, masks, needs_cluster, run, tables

pytestmark = [pytest.mark.cluster, needs_cluster]

# a process of Ray that opens a file of this name dies as the system's memory killer would have it
KILLER = """
import os, signal, sys
if "default_worker" in " ".join(sys.orig_argv):
    def watch(event, arguments):
        if event == "open" and "poison" in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
"""


@pytest.fixture
def archive(folder):
    """The three pictures of `folder`, a broken one, and twenty more in a subfolder."""
    picture = Image.open(folder / "a.png")
    for number in range(20):
        picture.rotate(17 * number).save(folder / "more" / f"n{number:02d}.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


def test_an_archive_with_a_bad_file_and_again(archive, toy_file, tmp_path):
    output = tmp_path / "out"
    code, said = run(archive, "--model", toy_file, "--output", output)
    assert code == 1, said
    assert "23 of 24 images segmented" in said
    assert "1 failed" in said
    plain = predict(str(archive), model=toy_file, output=tmp_path / "plain")
    assert masks(output) == masks(tmp_path / "plain")
    assert len(masks(output)) == 23
    lines = manifest(output)
    assert len(lines) == len({line["mask"] for line in lines}) == 24
    (failed,) = [line for line in lines if line["status"] == "failed"]
    assert {failed["image"]: failed["reason"]} == plain.failed
    rows = {row["image"]: row for row in tables(output)}
    assert len(rows) == 23
    for expected in plain.measurements:
        row = rows[expected["image"]]
        assert {k: row[k] for k in expected if k != "mask"} == {
            k: v for k, v in expected.items() if k != "mask"
        }
        assert (output / row["mask"]).is_file()
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["images"], summary["done"], summary["failed"]) == (24, 23, 1)

    # mended: only this one is done
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    Image.open(archive / "a.png").save(archive / "broken.png")
    code, said = run(archive, "--model", toy_file, "--output", output)
    assert code == 0, said
    assert "23 of 24 images were done before" in said
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(masks(output)) == len(tables(output)) == 24

    code, said = run(archive, "--model", toy_file, "--output", output, "--threshold", 0.6)
    assert code == 1
    assert "holds results of other settings (threshold: 0.5, now 0.6)" in said


@pytest.mark.slow
def test_an_image_that_kills_its_worker_is_reported_and_costs_no_other(archive, toy_file, tmp_path):
    (archive / "broken.png").rename(archive / "poison.png")
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    output = tmp_path / "out"
    code, said = run(
        archive, "--model", toy_file, "--output", output, more_path=[tmp_path]
    )  # fmt: skip
    assert code == 1, said
    assert "23 of 24 images segmented" in said
    (failed,) = [line for line in manifest(output) if line["status"] == "failed"]
    assert failed["image"] == str(archive / "poison.png")
    assert "its worker was killed 3 times" in failed["reason"]
    assert len(masks(output)) == len(tables(output)) == 23


@pytest.mark.slow
def test_a_killed_call_is_taken_up_by_the_same_command(archive, toy_file, tmp_path):
    (archive / "broken.png").unlink()
    picture = Image.open(archive / "a.png").resize((256, 256))
    for number in range(600):
        picture.rotate(number).save(archive / f"m{number:03d}.png")
    output = tmp_path / "out"
    words, environment = command(archive, "--model", toy_file, "--output", output)
    call = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not manifest(output) and call.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert call.poll() is None
    os.kill(call.pid, signal.SIGKILL)
    call.wait()
    before = manifest(output)
    assert 0 < len(before) < 623
    code, said = run(archive, "--model", toy_file, "--output", output)
    assert code == 0, said
    lines = manifest(output)
    assert lines[: len(before)] == before
    assert len(lines) == len({line["mask"] for line in lines}) == len(masks(output)) == 623
    assert len(tables(output)) == 623
    predict(str(archive), model=toy_file, output=tmp_path / "plain")
    assert masks(output) == masks(tmp_path / "plain")


def test_options_of_the_other_engine_are_refused(folder, toy_file, tmp_path):
    from hymunet.errors import HyMUNetError

    for more in ({"workers": 2}, {"address": "auto"}):
        with pytest.raises(HyMUNetError, match="only --engine ray knows this"):
            predict(str(folder), model=toy_file, output=tmp_path / "out", **more)
    with pytest.raises(HyMUNetError, match="s3://bucket/x: only --engine ray"):
        predict("s3://bucket/x", model=toy_file, output=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "most"), [("64k", 22), ("100k", 23)], ids=["masks", "tables"])
def test_a_full_disk_stops_the_archive_and_loses_nothing(archive, toy_file, tmp_path, size, most):
    """There is no room for the masks, or for them and not for what is said of them."""
    (archive / "broken.png").unlink()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, f"size={size}", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("NOT TESTED ON A FULL DISK: mounting one needs root")
    try:
        output = disk / "out"
        code, said = run(archive, "--model", toy_file, "--output", output)
        assert code == 1
        assert "No space left on device" in said
        assert "the same command goes on" in said
        before = masks(output)
        assert len(before) <= most
        subprocess.run([*mount, "remount,size=8m", "tmpfs", str(disk)], check=True)
        code, said = run(archive, "--model", toy_file, "--output", output)
        assert code == 0, said
        predict(str(archive), model=toy_file, output=tmp_path / "plain")
        assert masks(output) == masks(tmp_path / "plain")
        assert len(tables(output)) == len({row["mask"] for row in tables(output)}) == 23
    finally:
        subprocess.run(["umount", str(disk)], capture_output=True)
