"""A working folder with drawn lesions and a user's own networks, and a cache of its own."""

import sys

import pytest

from hymunet.data.phantoms import write_phantoms
from tests.experiments.compare.networks import write_networks

COUNT = 14


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The working folder, with `data` and small_networks.py."""
    folder = tmp_path_factory.mktemp("work")
    write_networks(folder)
    data = write_phantoms(folder / "data", COUNT, size=(40, 48))
    names = sorted(path.stem for path in (data / "images").iterdir())
    parts = ["test"] * 4 + ["val"] * 2 + ["train"] * (COUNT - 6)
    rows = [f"{name},{part}\n" for name, part in zip(names, parts, strict=True)]
    (data / "split.csv").write_text("case,split\n" + "".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYMUNET_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr("hymunet.experiments.timing.TURN_S", 0.0)
        path = list(sys.path)
        sys.modules.pop("small_networks", None)
        yield folder
        sys.path[:] = path
        sys.modules.pop("small_networks", None)
