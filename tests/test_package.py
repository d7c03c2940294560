"""Laws of the package as a whole: cheap imports, public names, one version, layers that hold."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import hymunet

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = Path(hymunet.__file__).resolve().parents[1]  # src/, or site-packages
HEAVY = {
    "torch",
    "lightning",
    "pytorch_lightning",
    "pytorch_optimizer",
    "monai",
    "matplotlib",
    "numba",
    "nibabel",
    "pydicom",
}


def python(code: str, source: Path = SOURCE, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """Runs `code` in a fresh interpreter that finds the package in `source`."""
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def heavy_imports_of(*modules: str) -> set[str]:
    """Which of the slow libraries a fresh interpreter has loaded after importing `modules`."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = python(code)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def modules_below(package: str) -> list[str]:
    """Names of the package and of every module in it, found as files: nothing is imported."""
    folder = SOURCE.joinpath(*package.split("."))
    names = [package, *(f"{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py")))]
    return [name for name in names if name != "hymunet.__main__"]


def lint_imports(repository: Path) -> subprocess.CompletedProcess:
    """Runs import-linter on the package below `repository`/src with its pyproject.toml."""
    run = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    return python(run, source=repository / "src", cwd=repository)


def test_importing_the_package_loads_no_slow_library():
    assert heavy_imports_of("hymunet") == set()


def test_the_probe_sees_a_slow_library():
    assert heavy_imports_of("hymunet", "matplotlib") == {"matplotlib"}


def test_the_command_line_loads_no_slow_library():
    assert heavy_imports_of("hymunet.cli") == set()


def test_metrics_load_no_slow_library():
    modules = modules_below("hymunet.metrics")
    assert len(modules) > 1
    assert heavy_imports_of(*modules) == set()


@pytest.mark.parametrize(
    "module",
    [
        "case",
        "image_io",
        "formats",
        "splits",
        "duplicates",
        "phantoms",
        "dicom_find",
        "dicom_seg",
        "download",
        "verify",
    ],
)
def test_modules_about_files_load_no_slow_library(module):
    assert heavy_imports_of(f"hymunet.data.{module}") == set()


def test_every_public_name_resolves():
    assert len(hymunet.__all__) == len(set(hymunet.__all__)), "a name stands twice in __all__"
    assert "__version__" in dir(hymunet)
    for name in hymunet.__all__:
        assert getattr(hymunet, name) is not None, name
        assert name in dir(hymunet), f"{name} is public, but dir(hymunet) does not list it"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        hymunet.no_such_name  # noqa: B018 - the access is the test


def test_the_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("hymunet")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hymunet is on the path but not installed: pip install -e . to test this")
    assert installed == hymunet.__version__, "install again: pip install -e ."


def test_the_version_is_the_same_wherever_it_stands():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert citation["version"] == hymunet.__version__
    assert newest[1] == hymunet.__version__


def test_constraints_pin_every_direct_dependency():
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in pins if line and not line.startswith("#")]
    loose = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^\s+]*", line)]
    assert loose == [], "each line is NAME==VERSION, without a local suffix, a path or an address"

    # read from pyproject.toml, not from the installed metadata: those may be of an older install
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(project)["project"]
    wanted = list(tables["dependencies"])
    for extra in tables["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=!~ ;]", line)[0] for line in wanted} - {"hymunet"}

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    assert {plain(name) for name in names} <= {plain(line.split("==")[0]) for line in pins}


@pytest.fixture
def copy_of_the_package(tmp_path):
    shutil.copytree(
        REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_no_layer_imports_from_one_above_it():
    done = lint_imports(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data flows one way KEPT" in done.stdout


@pytest.mark.parametrize(
    ("lower", "upper"), [("scan", "network"), ("network", "data"), ("data", "training")]
)
def test_the_contract_notices_an_import_from_above(copy_of_the_package, lower, upper):
    intruder = copy_of_the_package / "src" / "hymunet" / lower / "intruder.py"
    intruder.write_text(f"from hymunet import {upper}\n", encoding="utf-8")
    done = lint_imports(copy_of_the_package)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "data flows one way BROKEN" in done.stdout
    assert f"hymunet.{lower}.intruder -> hymunet.{upper}" in done.stdout
