"""What is released: pinned with hashes, and built with the licences of code and weights."""

import hashlib
import json
import re
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

import hymunet

REPOSITORY = Path(__file__).resolve().parents[1]
LOCKED = ("core", "all", "tools")
DIST = REPOSITORY / "dist"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Name -> version of a constraints or requirements file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {plain(name): version for name, version in found}


def locked(name: str) -> str:
    return (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def direct(*extras: str) -> set[str]:
    """The packages that pyproject.toml names, those of the extras with them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    names = {plain(re.split(r"[\[<>=!~ ;]", line)[0]) for line in lines}
    return names - {"hymunet"}


@pytest.mark.parametrize("name", LOCKED)
def test_every_package_is_pinned_with_hashes_and_no_index_is_named(name):
    entries = [
        entry
        for entry in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", locked(name)))
        if entry.strip()
    ]
    assert len(entries) > 5
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in locked(name)
    assert not re.search(r"(?m)^\s*--(index|extra-index|find-links|trusted)", locked(name))
    assert re.search(r"==\S*\+", locked(name)) is None, "a local build, such as 2.13.0+cpu"


@pytest.mark.parametrize("name", LOCKED)
def test_hashes_are_of_the_tested_versions(name):
    tested = pins((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    found = pins(locked(name))
    differ = {one: (version, tested[one]) for one, version in found.items()
              if tested.get(one, version) != version}  # fmt: skip
    assert differ == {}, "run `make lock`"


def test_the_locked_sets_hold_all_that_is_asked_for():
    assert direct() <= pins(locked("core")).keys(), "run `make lock`"
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"^USER_EXTRAS := (.*)$", makefile, flags=re.MULTILINE)
    assert extras is not None
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras[1].split()) == set(project["optional-dependencies"]) - {"dev", "dev-all"}
    assert direct(*extras[1].split()) <= pins(locked("all")).keys(), "run `make lock`"


@pytest.fixture(scope="module")
def wheel():
    found = sorted(DIST.glob("hymunet-*.whl"))
    if not found:
        pytest.skip("NOT TESTED: there is no wheel in dist/; `make build` builds and tests it")
    with zipfile.ZipFile(found[0]) as archive:
        yield archive


@pytest.mark.dist
class TestBuilt:
    """What `make build` has left in dist/."""

    def test_the_licences_of_code_and_weights_are_in_the_wheel(self, wheel):
        names = wheel.namelist()
        info = f"hymunet-{hymunet.__version__}.dist-info"
        for path in ("LICENSE", "src/hymunet/weights/NOTICE"):
            assert wheel.read(f"{info}/licenses/{path}") == (REPOSITORY / path).read_bytes()
        metadata = BytesParser().parsebytes(wheel.read(f"{info}/METADATA"))
        assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-NC-4.0"
        assert set(metadata.get_all("License-File")) == {"LICENSE", "src/hymunet/weights/NOTICE"}
        assert metadata["Version"] == hymunet.__version__
        assert "hymunet/weights/NOTICE" in names, "beside the weights as well"

    def test_the_wheel_holds_the_package_and_nothing_else(self, wheel):
        source = REPOSITORY / "src"
        ours = {
            path.relative_to(source).as_posix(): path.read_bytes()
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        built = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
        assert built.keys() == ours.keys()
        differ = [name for name in ours if built[name] != ours[name]]
        assert differ == []

    def test_the_sdist_can_be_tested_and_locked(self, wheel):
        (path,) = DIST.glob("hymunet-*.tar.gz")
        with tarfile.open(path) as archive:
            names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        wanted = {"LICENSE", "README.md", "Makefile", "constraints.txt", "requirements/core.txt",
                  "src/hymunet/weights/NOTICE", "tests/test_package.py",
                  "docs/names.md"}  # fmt: skip
        assert wanted <= names

    def test_the_list_of_components_is_the_locked_set(self, wheel):
        (path,) = DIST.glob("hymunet-*.cdx.json")
        listed = json.loads(path.read_text(encoding="utf-8"))
        assert listed["bomFormat"] == "CycloneDX"
        components = {plain(one["name"]): one["version"] for one in listed["components"]}
        assert components == pins(locked("all"))
        described = listed["metadata"]["component"]
        assert (described["name"], described["version"]) == ("hymunet", hymunet.__version__)
        digests = set(re.findall(r"sha256:([0-9a-f]{64})", locked("all")))
        text = path.read_text(encoding="utf-8")
        assert digests == set(re.findall(r'"content": "([0-9a-f]{64})"', text))

    def test_the_weights_are_those_of_the_repository(self, wheel):
        for path in (REPOSITORY / "src" / "hymunet" / "weights").glob("*.safetensors"):
            built = wheel.read(f"hymunet/weights/{path.name}")
            assert hashlib.sha256(built).digest() == hashlib.sha256(path.read_bytes()).digest()
