"""Peak memory in a child process: what must be there and not much more, and no crash of ours."""

from dataclasses import asdict

import pytest

from hymunet.experiments.peak_memory import Job, Pass, lack_of_memory, measure_peak, measure_peaks
from hymunet.experiments.profile.dry_run import estimated_bytes
from hymunet.network.config import HyMUNetConfig

CONFIG = HyMUNetConfig(stages="CCCC", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))


def a_pass(side, batch=1, train=False, make="hymunet.network.hymunet:HyMUNet"):
    return Pass(make, asdict(CONFIG), (batch, 3, side, side), 1, train)


def job(side=256, batch=1, train=False, device="cpu"):
    return Job(a_pass(32, 2, train), a_pass(side, batch, train), 1, device)


def test_a_pass_takes_what_the_dry_run_says_and_not_much_more():
    answer = measure_peak(job(side=1024, train=True))
    if answer.bytes is None:
        pytest.skip("NOT TESTED: this system does not tell a process's peak memory")
    estimate = estimated_bytes(CONFIG, 1024, train=True)
    assert estimate > 100e6  # or noise would decide
    assert 0.8 * estimate < answer.bytes < 1.6 * estimate
    assert answer.seconds > 0
    assert (answer.out_of_memory, answer.failed) == (None, None)


def test_no_memory_is_an_answer():
    answer = measure_peak(job(side=32, batch=2**40))  # 12 PiB of image: no address space has room
    assert (answer.bytes, answer.seconds, answer.failed) == (None, None, None)
    assert "memory" in answer.out_of_memory


def test_any_other_failure_is_an_answer_too_and_the_next_job_is_done():
    nobody = Pass("hymunet.network.hymunet:Nobody", {}, (1, 3, 32, 32))
    found = measure_peaks(
        {"a": job(32, device="nowhere"), "b": Job(nobody, nobody, 1), "c": job(32)}
    )
    assert list(found) == ["a", "b", "c"]
    assert "nowhere" in found["a"].failed
    assert found["b"].failed.startswith("AttributeError: ")
    assert found["c"].seconds > 0


def test_what_counts_as_no_memory():
    assert lack_of_memory(MemoryError()) == "no memory left"
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert lack_of_memory(RuntimeError(f"[enforce fail] {text}\nmore")).endswith(text)
    assert lack_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
