"""A training that is killed at any moment of its life goes on as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hymunet.data.phantoms import write_phantoms
from tests.training.short_run import OPTIONS, train_quietly

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads the time of processes in /proc"
)

WARM, WRITING, COLD = 38, 8, 4  # kills


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYMUNET_CACHE", str(folder / "cache"))
        yield write_phantoms(folder / "phantoms", 12, size=(40, 48))


@pytest.fixture(scope="module")
def warm(data):
    """Starts a process by a fork of one that has imported everything, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.short_run", "lightning", "pytorch_optimizer"])

    def start(output):
        process = context.Process(target=train_quietly, args=(data, output))
        process.start()
        return process

    return start


def finish(process):
    process.join(300)
    assert process.exitcode == 0


def contents(run):
    """All that a run has learnt: the best weights, the last checkpoint, the curves."""
    last = torch.load(run / "last.ckpt", weights_only=True)
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    seconds = rows[0].index("seconds")
    curves = [row[:seconds] + row[seconds + 1 :] for row in rows]
    return load_file(run / "best.safetensors"), last["state_dict"], last["epoch"], curves


def assert_same(one, two):
    for first, second in zip(one[:2], two[:2], strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert one[2:] == two[2:]


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(warm, data, tmp_path):
    finish(warm(tmp_path / "warming"))  # the first one fills the cache
    life = _life_of(warm(tmp_path / "whole"))
    whole = contents(tmp_path / "whole")
    assert len(whole[3]) == 1 + OPTIONS.epochs
    cold_life = _life_of(_cold(data, tmp_path / "cold"))
    assert_same(contents(tmp_path / "cold"), whole)

    random_ = random.Random(8)
    kinds = ["warm"] * WARM + ["writing"] * WRITING + ["cold"] * COLD
    found = {"epochs done": [], "half-written files": 0, "no run yet": 0, "came too late": 0}
    for number, kind in enumerate(kinds):
        for attempt in range(20):
            run, share = tmp_path / f"killed-{number}-{attempt}", random_.random()
            if kind == "writing":
                killed = _kill_while_writing(warm(run), run, 1 + int(share * OPTIONS.epochs))
            elif kind == "cold":
                killed = _kill_after(_cold(data, run), share * cold_life)
            else:
                killed = _kill_after(warm(run), share * life)
            if killed:
                break
            found["came too late"] += 1  # a process that has ended cannot be killed
        assert killed
        found["half-written files"] += len(list(run.glob(".*partial*")))
        found["no run yet"] += not (run / "config.yaml").exists()
        metrics = run / "metrics.csv"
        done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
        found["epochs done"].append(done)
        finish(warm(run))
        assert_same(contents(run), whole)
        assert not list(run.glob(".*partial*"))
    print(f"{len(kinds)} kills of a training of {life:.2f} s ({cold_life:.2f} cold): {found}")


def _kill_after(process, seconds):
    """Kills a process that has computed for so long; whether that is what ended it."""
    while _ended(process) is None and _computed(process) < seconds:
        time.sleep(0.002)
    process.kill()
    return _ended(process, wait=True) == -signal.SIGKILL


def _kill_while_writing(process, run, which):
    """At the moment when the checkpoint of epoch `which` has begun to be written."""
    seen, there = 0, False
    while _ended(process) is None and seen < which:
        now = any(run.glob(".*.partial.ckpt"))
        seen, there = seen + (now and not there), now
    return _kill_after(process, 0)


def _life_of(process):
    """Seconds that a process computes until its end."""
    life = 0.0
    while _ended(process) is None:
        life = max(life, _computed(process))
        time.sleep(0.002)
    assert _ended(process) == 0
    return life


def _computed(process):
    """Seconds on a processor: unlike those of a clock, as many on a busy machine as on a quiet
    one, so that moments are drawn over the whole life on either."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ended(process, wait=False):
    """The exit code of a process of either kind; None while it runs."""
    if isinstance(process, subprocess.Popen):
        return process.wait() if wait else process.poll()
    if wait:
        process.join()
    return process.exitcode


def _cold(data, run):
    """A new process, which has everything to import."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "tests.training.short_run", str(data), str(run)]
    return subprocess.Popen(words, env=environment)
