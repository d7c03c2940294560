"""What ran a measurement or a training: processor, threads, versions; no time is quoted without."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from hymunet import __version__


def processor() -> str:
    """The processor's name where the system tells it, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Of hymunet, Python and `packages`; one that is not installed is left out."""
    found = {"hymunet": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, threads of torch, system and versions, in one flat mapping.

    Args:
        *packages: Packages whose versions matter besides torch's.
    """
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        **versions("torch", *packages),
    }
