"""What every test shares: fixed seeds, repeatable property tests, and the way to real images."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

os.environ.setdefault("MPLBACKEND", "Agg")  # figures are drawn to files; no test opens a window

# the same examples in each run: a failure on another machine is a failure here. No deadline: the
# first call of a function may import torch. `pytest --hypothesis-profile=search` looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may still draw from the global state
    # not imported here: tests of files and metrics need no torch, and a torch that a test imports
    # later starts from its own fixed seed
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images: HYMUNET_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("HYMUNET_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        where = "HYMUNET_DATA names" if named else "HYMUNET_DATA is not set and the default is"
        pytest.skip(
            f"NOT TESTED ON REAL IMAGES: {where} {root}, which is not a folder; "
            "set HYMUNET_DATA to the folder that holds the data sets"
        )
    return root
