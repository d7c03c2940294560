"""A training that is killed at any moment of its life goes on as if nothing had happened."""

import contextlib
import multiprocessing
import os
import random
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from hymunet.data.phantoms import write_phantoms
from tests.training.short_run import OPTIONS, train_quietly

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

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
    started = time.monotonic()
    finish(warm(tmp_path / "whole"))
    life = time.monotonic() - started
    whole = contents(tmp_path / "whole")
    assert len(whole[3]) == 1 + OPTIONS.epochs

    random_ = random.Random(8)
    kinds = ["warm"] * WARM + ["writing"] * WRITING + ["cold"] * COLD
    found = {"epochs done": [], "half-written files": 0, "no run yet": 0}
    for number, kind in enumerate(kinds):
        run = tmp_path / f"killed-{number}"
        share = random_.random()
        if kind == "cold":
            _kill_cold(data, run, share, life)
        elif kind == "writing":
            _kill_while_writing(warm(run), run, 1 + int(share * OPTIONS.epochs))
        else:
            process = warm(run)
            process.join(share * life)
            process.kill()
            process.join()
        found["half-written files"] += len(list(run.glob(".*partial*")))
        found["no run yet"] += not (run / "config.yaml").exists()
        metrics = run / "metrics.csv"
        done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
        found["epochs done"].append(done)
        finish(warm(run))
        assert_same(contents(run), whole)
        assert not list(run.glob(".*partial*"))
    print(f"{len(kinds)} kills of a training of {life:.1f} s: {found}")


def _kill_cold(data, run, share, life):
    """A new process, imports included, whose life is drawn over both."""
    code = "from tests.training.short_run import train_quietly as t; import sys; t(*sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    imports = [sys.executable, "-c", "import tests.training.short_run, lightning"]
    started = time.monotonic()
    subprocess.run(imports, env=environment, check=True)
    span = time.monotonic() - started + life
    process = subprocess.Popen([sys.executable, "-c", code, str(data), str(run)], env=environment)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(share * span)
    process.kill()
    process.wait()


def _kill_while_writing(process, run, which):
    """At the moment when the checkpoint of epoch `which` has begun to be written."""
    seen, there = 0, False
    while process.is_alive() and seen < which:
        now = any(run.glob(".*.partial.ckpt"))
        seen, there = seen + (now and not there), now
    process.kill()
    process.join()
