"""The command line: help, exit codes, errors without tracebacks."""

import os
import subprocess
import sys

import pytest
import yaml

from hymunet.cli import VERBS, main, make_app
from hymunet.training.run_config import beneath


def test_help_lists_every_verb_with_a_line(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for verb, (_, line) in VERBS.items():
        assert verb in printed
        assert line.split(".")[0][:40] in printed


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_its_docstring(verb, capsys):
    assert main([verb, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    function = make_app(verb)[verb].default_command
    description = " ".join(function.__doc__.split("Args:")[0].replace("`", "").split())
    assert description in printed
    assert "--" in printed


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_loads_neither_torch_nor_anything_slow(arguments):
    code = (
        f"import sys; from hymunet.cli import main; main({arguments!r});"
        "print([n for n in ('torch', 'monai', 'lightning', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    import hymunet

    assert main(["--version"]) == 0
    assert hymunet.__version__ in capsys.readouterr().out


def test_a_mistake_is_one_line_without_a_traceback(tmp_path, capsys):
    assert main(["train", str(tmp_path / "nowhere")]) == 1
    printed = capsys.readouterr().err
    assert "error:" in printed
    assert "nowhere" in printed
    assert "Traceback" not in printed


def test_wrong_options_name_the_option(capsys):
    assert main(["train", "data", "--epoch", "3"]) == 2
    assert "--epoch" in "".join(capsys.readouterr())
    assert main(["train", "data", "--preset", "huge"]) == 2
    assert "huge" in "".join(capsys.readouterr())
    assert main(["predict", "photo.jpg"]) == 2


def test_an_impossible_value_is_refused_before_anything_is_read(tmp_path, capsys):
    assert main(["train", str(tmp_path), "--epochs", "0"]) != 0
    assert "epochs must be 1 or more, not 0" in "".join(capsys.readouterr())


def test_values_of_a_configuration_stand_behind_what_is_typed(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": str(tmp_path / "from file"), "epochs": 3}))
    assert main(["train", "--config", str(path)]) == 1
    assert "from file" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "typed"), f"--config={path}"]) == 1
    assert "typed" in capsys.readouterr().err
    path.write_text(yaml.safe_dump({"epochs": 0}))
    assert main(["train", str(tmp_path), "--config", str(path)]) != 0
    assert "epochs must be 1 or more" in "".join(capsys.readouterr())


def test_what_is_typed_takes_its_alternatives_in_a_configuration_out(tmp_path, capsys):
    path, data = tmp_path / "config.yaml", tmp_path / "nowhere"
    settled = {"data": str(data), "image_size": 64, "resize": "squeeze"}
    settled |= {"epochs": 3, "steps_per_epoch": 70}
    path.write_text(yaml.safe_dump(settled | {"preset": "tiny", "skip": "mgf", "stages": "CCMM"}))
    for typed in (
        ["--budget", "10m"],
        ["--budget=10m"],
        ["--patch-size", "64", "64"],
        ["--resize", "native"],
        ["--init", "isic2018-tiny"],
    ):
        assert main(["train", "--config", str(path), *typed]) == 1, typed
        assert "nowhere" in capsys.readouterr().err  # not a word of what contradicts what
    assert beneath(settled, ["budget"]) == dict(list(settled.items())[:3])
    assert beneath(settled, ["seed"]) == settled
    path.write_text(yaml.safe_dump({"data": str(data), "budget": "5m"}))
    assert main(["train", "--config", str(path), "--epochs", "2"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_an_extra_that_is_missing_names_its_install_command(tmp_path):
    # a fresh interpreter in which the packages of the extra cannot be found
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('lightning', 'monai', 'matplotlib', 'jinja2'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    }

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "hymunet.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    done = call("train", str(tmp_path))
    assert done.returncode == 1
    assert 'pip install "hymunet[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    # what needs no training works without the extra
    assert call("info", "--preset", "tiny").returncode == 0
    done = call("evaluate", "masks", "data", "--output", str(tmp_path / "report"))
    assert "a report (--output) needs matplotlib, jinja2" in done.stderr
