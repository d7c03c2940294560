"""An export replaces its own files only, never somebody else's."""

import pytest

from hymunet import pretrained_names
from hymunet.cli import main
from hymunet.deploy.onnx_export import write_page
from hymunet.deploy.own_folder import make_own_folder
from hymunet.errors import HyMUNetError

NAME = pretrained_names()[0]
OTHERS = {"README.md": "my project", "config.json": "{}", "LICENSE": "mine", "index.html": "home"}


@pytest.fixture
def project(tmp_path):
    """Somebody's folder."""
    folder = tmp_path / "proj"
    folder.mkdir()
    for name, text in OTHERS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("format", ["hub", "bundle"])
def test_a_project_is_left_as_it_is(format, project, capsys):
    if format == "bundle":
        pytest.importorskip("ignite", reason="NOT TESTED: needs the extra `bundle`")
        pytest.importorskip("fire", reason="NOT TESTED: needs the extra `bundle`")
    assert main(["export", NAME, "--format", format, "--output", str(project)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"is not empty and holds no {format} export (LICENSE, README.md" in told
    found = {path.name: path.read_text(encoding="utf-8") for path in project.iterdir()}
    assert found == OTHERS


@pytest.mark.parametrize("format", ["hub", "bundle"])
def test_an_earlier_export_is_replaced(format, tmp_path):
    if format == "bundle":
        pytest.importorskip("ignite", reason="NOT TESTED: needs the extra `bundle`")
        pytest.importorskip("fire", reason="NOT TESTED: needs the extra `bundle`")
    (tmp_path / "out" / ".git").mkdir(parents=True)
    command = ["export", NAME, "--format", format, "--output", str(tmp_path / "out")]
    assert main(command) == 0
    changed = next(tmp_path.rglob("README.md"))
    card = changed.read_bytes()
    changed.write_bytes(card + b"\nold\n")
    assert main(command) == 0
    assert changed.read_bytes() == card
    other = {"hub": "bundle", "bundle": "hub"}[format]
    with pytest.raises(HyMUNetError, match=f"holds no {other} export"):
        make_own_folder(tmp_path / "out", other)


def test_a_page_is_refused_before_the_model_is_traced(project, tmp_path):
    from rich.console import Console

    with pytest.raises(HyMUNetError, match="holds no web export"):
        write_page(tmp_path / "none", project, "float32", None, None, 0.01, None, Console())
    assert (project / "index.html").read_text(encoding="utf-8") == "home"
