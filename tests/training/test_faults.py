"""What goes wrong around a training: disks, checkpoints, clocks, data, a second training."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from hymunet.data.phantoms import write_phantoms
from hymunet.errors import HyMUNetError
from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import RunFolder
from tests.training.short_run import OPTIONS, train_toy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYMUNET_CACHE", str(folder / "cache"))
        yield write_phantoms(folder / "phantoms", 12, size=(40, 48))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    train_toy(data, output, console=Console(quiet=True))
    return output


@pytest.fixture
def own_data(data, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(data, tmp_path / "own"))


def said_by(data, output, options=OPTIONS):
    console = Console(record=True, file=open(os.devnull, "w"), width=300)  # noqa: SIM115
    train_toy(data, output, options, console)
    return console.export_text()


def learnt(run):
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    seconds = rows[0].index("seconds")
    return load_file(run / "best.safetensors"), [r[:seconds] + r[seconds + 1 :] for r in rows]


def assert_same(one, two):
    (first, rows), (second, other_rows) = learnt(one), learnt(two)
    assert rows == other_rows
    assert all(torch.equal(first[name], second[name]) for name in first)


def unfinished_copy(run, output):
    """The run as it was after its last checkpoint, before it was marked as finished."""
    shutil.copytree(run, output)
    provenance = json.loads((output / "provenance.json").read_text())
    (output / "provenance.json").write_text(json.dumps(provenance | {"finished": False}))
    return output


def stop_after_epoch(patch, epoch, act=lambda run: None):
    """Ends a training, or does something to it, when the checkpoint of `epoch` is written."""
    save = Recorder._save_checkpoint

    def saved(self, trainer):
        save(self, trainer)
        if len(self.rows) == epoch:
            act(self.run.path)

    patch.setattr(Recorder, "_save_checkpoint", saved)


def interrupt(run):
    raise KeyboardInterrupt


# checkpoints


@pytest.mark.parametrize("member", ["data/0", "data.pkl", "version"])
def test_a_checkpoint_with_one_wrong_byte_falls_back_to_the_one_before(
    whole, data, tmp_path, member
):
    run = unfinished_copy(whole, tmp_path / "run")
    with zipfile.ZipFile(run / "last.ckpt") as archive:
        place = next(m for m in archive.infolist() if m.filename.endswith("/" + member))
    content = bytearray((run / "last.ckpt").read_bytes())
    start = place.header_offset + 30
    names = int.from_bytes(content[start - 4 : start - 2], "little")
    extra = int.from_bytes(content[start - 2 : start], "little")
    content[start + names + extra + place.file_size // 2] ^= 1
    (run / "last.ckpt").write_bytes(content)
    said = said_by(data, run)
    assert "last.ckpt cannot be read" in said
    assert "going on from the checkpoint before it" in said
    assert f"resuming from {run / 'previous.ckpt'}" in said
    assert_same(run, whole)


def test_a_run_that_ran_out_of_patience_before_it_was_killed_does_not_go_on(data, tmp_path):
    options = replace(OPTIONS, learning_rate=1e-12, ema_decay=0.0, epochs=6, patience=2)
    said_by(data, tmp_path / "run", options)
    rows = (tmp_path / "run" / "metrics.csv").read_text()
    assert len(rows.splitlines()) - 1 == 3
    run = unfinished_copy(tmp_path / "run", tmp_path / "again")
    said_by(data, run, options)
    assert (run / "metrics.csv").read_text() == rows


# two trainings on one folder


def _hold(path, held):
    with RunFolder(path).held():
        held.send(True)
        time.sleep(600)


def test_a_second_training_is_refused_and_a_dead_one_does_not_block(whole, data, tmp_path):
    run = unfinished_copy(whole, tmp_path / "run")
    (run / ".0123456789ab.partial.ckpt").write_bytes(b"half")
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    here, there = context.Pipe()
    other = context.Process(target=_hold, args=(run, there))
    other.start()
    assert here.recv()
    with pytest.raises(HyMUNetError, match="another training is writing to the run folder"):
        said_by(data, run)
    other.kill()
    other.join()
    (run / ".0123456789ab.partial.ckpt").write_bytes(b"half")
    said_by(data, run)
    assert not list(run.glob(".*partial*"))
    assert_same(run, whole)


# clocks


def test_a_clock_that_jumps_changes_nothing(whole, data, tmp_path, monkeypatch):
    random_ = random.Random(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: random_.uniform(-1e9, 4e9))
        patch.setattr(time, "time_ns", lambda: int(random_.uniform(0, 4e18)))
        stop_after_epoch(patch, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            said_by(data, tmp_path / "run")
    run = tmp_path / "run"
    os.utime(run / "previous.ckpt", (4e9, 4e9))  # written long after the last one, by the clock
    os.utime(run / "last.ckpt", (1, 1))
    assert f"resuming from {run / 'last.ckpt'}" in said_by(data, run)
    assert_same(run, whole)


# data that change under a run


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_case_that_has_changed_since_the_run_began_is_refused(
    own_data, tmp_path, monkeypatch, part
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after_epoch(patch, 1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            said_by(own_data, run)
    path = sorted((own_data / f"{part}s").iterdir())[2]
    before = path.read_bytes()
    pixels = np.array(Image.open(path))
    pixels[20, 20] = 255 - pixels[20, 20]
    Image.fromarray(pixels).save(path)
    words = rf"data have changed since .*1 case differ.* {path.stem} \({part}\)\. Bring them back"
    with pytest.raises(HyMUNetError, match=words):
        said_by(own_data, run)
    path.write_bytes(before)
    assert "resuming from" in said_by(own_data, run)
    # a finished run's report is not made anew of other data either
    Image.fromarray(pixels).save(path)
    with pytest.raises(HyMUNetError, match=words):
        said_by(own_data, run)
    path.write_bytes(before)
    assert "finished already" in said_by(own_data, run)


# disks


class Disk:
    """A small disk of its own, which may grow, or be covered by one that is read-only."""

    def __init__(self, place):
        self.place = place

    def mount(self, *options, at=None):
        words = ["mount", *options, str(at or self.place)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def resize(self, size):
        assert self.mount("-o", f"remount,size={size}")

    def cover(self, folder):
        assert self.mount("-t", "tmpfs", "-o", "ro", "tmpfs", at=folder)

    def uncover(self, folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    made = Disk(place)
    if shutil.which("mount") is None or not made.mount("-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        pytest.skip("NOT TESTED ON A FULL OR READ-ONLY DISK: only root may mount one")
    yield made
    subprocess.run(["umount", "--recursive", str(place)], check=True)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_space(whole, data, disk):
    sizes = {path.name: path.stat().st_size for path in whole.iterdir()}
    # room for the first checkpoint and half of the second
    room = int(1.5 * sizes["last.ckpt"]) + sum(sizes.values()) - 2 * sizes["last.ckpt"]
    disk.resize(room)
    run = disk.place / "run"
    with pytest.raises(HyMUNetError, match=r"cannot write .*No space left on device"):
        said_by(data, run)
    torch.load(run / "last.ckpt", weights_only=True)
    assert not list(run.glob(".*partial*"))
    disk.resize("64m")
    assert "resuming from" in said_by(data, run)
    assert_same(run, whole)


def test_a_disk_that_becomes_read_only_is_said(whole, data, disk, monkeypatch):
    run = disk.place / "run"
    with monkeypatch.context() as patch:
        stop_after_epoch(patch, 2, disk.cover)
        with pytest.raises(HyMUNetError, match=r"cannot write .*Read-only file system"):
            said_by(data, run)
    with pytest.raises(HyMUNetError, match=r"cannot write into the folder .*Read-only file system"):
        said_by(data, run)
    disk.uncover(run)
    assert "resuming from" in said_by(data, run)
    assert_same(run, whole)
