"""Peak memory in a child process: more than what must be there, and no crash of ours."""

from dataclasses import asdict

import pytest

from hymunet.errors import HyMUNetError
from hymunet.experiments.dry_run import estimated_bytes
from hymunet.experiments.peak_memory import Job, lack_of_memory, measure_peak
from hymunet.network.config import HyMUNetConfig

CONFIG = HyMUNetConfig(stages="CCCC", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))


def job(side=256, batch=1, train=False, device="cpu"):
    return Job(asdict(CONFIG), side, batch, train, 1, device)


def test_a_pass_takes_what_the_dry_run_says_and_not_much_more():
    answer = measure_peak(job(side=1024, train=True))
    if answer.bytes is None:
        pytest.skip("NOT TESTED: this system does not tell a process's peak memory")
    estimate = estimated_bytes(CONFIG, 1024, train=True)
    assert estimate > 100e6  # or noise would decide
    assert 0.8 * estimate < answer.bytes < 1.6 * estimate
    assert answer.seconds > 0
    assert answer.out_of_memory is None


def test_no_memory_is_an_answer():
    answer = measure_peak(job(side=32, batch=2**40))  # 12 PiB of image: no address space has room
    assert (answer.bytes, answer.seconds) == (None, None)
    assert "memory" in answer.out_of_memory


def test_any_other_failure_is_an_error_with_the_last_words():
    with pytest.raises(HyMUNetError, match=r"should end with 0.*last words.*nowhere"):
        measure_peak(job(device="nowhere"))


def test_what_counts_as_no_memory():
    assert lack_of_memory(MemoryError()) == "no memory left"
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert lack_of_memory(RuntimeError(f"[enforce fail] {text}\nmore")).endswith(text)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        lack_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
