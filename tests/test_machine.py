"""What ran: a name for the processor, versions of what is installed and of nothing else."""

import platform

import torch

import hymunet
from hymunet.machine import machine, processor, versions


def test_versions_are_of_what_is_installed():
    found = versions("torch", "no-such-package")
    assert found["hymunet"] == hymunet.__version__
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])
    assert "no-such-package" not in found


def test_a_machine_has_what_a_time_is_quoted_with():
    found = machine("numpy")
    assert found["processor"] == processor() != ""
    assert found["threads"] == torch.get_num_threads()
    assert {"cores", "system", "torch", "numpy"} <= found.keys()
