"""`hymunet profile` from the command line: files, tables, what is refused, a kill in between."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

import hymunet
from hymunet.cli import main
from hymunet.errors import HyMUNetError
from hymunet.experiments import timing
from hymunet.network.hymunet import HyMUNet, hymunet_tiny
from hymunet.network.model_file import save_model
from hymunet.network.summary import summarise
from hymunet.workflows.profile import profile


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """`profile --quick` of a hybrid and of the same skeleton with attention."""
    folder = tmp_path_factory.mktemp("profile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TURN_S", 0.0)
        result = profile(quick=True, output=folder)
    return folder, result


def test_the_cells_are_counted_timed_and_weighed(quick):
    _, result = quick
    rows = result.summary["cells"]
    assert [(row["network"], row["size"]) for row in rows] == [
        ("CCMM", 32), ("CCMM", 64), ("CCAA", 32), ("CCAA", 64),
    ]  # fmt: skip
    assert result.exit_code == 0
    for row in rows:
        known = summarise(hymunet_tiny(stages=row["network"]), (row["size"],) * 2)
        assert row["parameters"] == known.parameters
        assert row["multiply_adds"] == known.multiply_adds
        assert row["scan_updates"] == row["scan_exps"] == known.scan_updates
        assert row["scan_multiply_adds"] == 5 * known.scan_updates
        assert 0 < row["fastest_s"] <= row["median_s"] <= row["slowest_s"]
        assert (row["rounds"], row["status"], row["reason"]) == (2, "measured", None)
        assert row["estimated_bytes"] > 4 * row["parameters"]
        if sys.platform == "linux":
            assert row["peak_bytes"] > 4 * row["parameters"]


def test_growth_is_fitted_to_the_cells(quick):
    _, result = quick
    for network in result.summary["networks"]:
        assert network["time"]["sizes"] == [32, 64]
        fit = network["time"]["exponent"]
        assert fit["low"] <= fit["value"] <= fit["high"]
        assert fit["value"] == pytest.approx(network["time"]["steps"][0]["estimate"]["value"])
        assert network["depth"] is None
    hybrid, attention = result.summary["networks"]
    assert hybrid["arithmetic"]["exponent"]["value"] == pytest.approx(1.0)
    assert attention["arithmetic"]["exponent"]["value"] > 1.0


def test_parts_add_up_to_the_whole(quick):
    folder, result = quick
    for network in result.summary["networks"]:
        found = network["breakdown"]
        known = summarise(hymunet_tiny(stages=network["name"]), (64, 64))
        assert found["size"] == 64
        assert [part["name"] for part in found["parts"]] == [
            *(part.name for part in known.parts), "rest",
        ]  # fmt: skip
        for key in ("parameters", "multiply_adds", "scan_updates"):
            assert sum(part[key] for part in found["parts"]) == getattr(known, key)
        kept = json.loads((folder / "cells" / f"{network['name']}-64px.json").read_text())
        wholes = [sum(parts.values()) for parts in kept["stages_s"]]
        assert sum(part["seconds"] for part in found["parts"]) == pytest.approx(found["seconds"])
        assert found["seconds"] in wholes


def test_files_say_the_same(quick):
    folder, result = quick
    written = json.loads((folder / "profile.json").read_text("utf-8"))
    assert written["cells"] == json.loads(json.dumps(result.summary["cells"]))
    assert written["notes"] == result.notes
    with open(folder / "profile.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["median_s"]) for row in rows] == [
        row["median_s"] for row in result.summary["cells"]
    ]


def test_the_page_is_one_file_with_charts(quick):
    folder, result = quick
    page = (folder / "profile.html").read_text("utf-8")
    assert result.report == folder / "profile.html"
    assert not re.search(r"<script|<link|https?://|src=", page)
    assert not re.search(r"#0([1-9])0\1", page)  # each drawn colour has become one of the page's
    charts = re.findall(r'aria-label="([^"]*)"', page)
    assert sum("against the side" in text for text in charts) == 2
    assert sum("% of the time" in text for text in charts) == 2
    assert all(name in page for name in ("Is it linear", "encoder 3", "decoder 1", "rest"))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_folder_goes_on_and_prints_a_table(quick, capsys):
    """Nothing is measured again: the figures are the same to the last digit."""
    folder, result = quick
    assert main(["profile", "--quick", "--output", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("is it linear in the pixels?", "CCMM", "CCAA", "mult-adds", "scan", "note:"):
        assert words in shown
    again = json.loads((folder / "profile.json").read_text("utf-8"))
    assert again["cells"] == json.loads(json.dumps(result.summary["cells"]))
    assert main(["profile", "--quick", "--json", "--output", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == again["cells"]


def test_another_machine_or_preset_is_another_folder(quick, capsys):
    folder, _ = quick
    assert main(["profile", "--quick", "--preset", "small", "--output", str(folder)]) == 1
    assert "give another --output" in capsys.readouterr().err
    assert main(["profile", "--quick", "--batch", "3", "--output", str(folder)]) == 1
    assert "with batch 1, now it is 3" in capsys.readouterr().err


def test_a_killed_profile_goes_on(tmp_path, monkeypatch):
    arguments = ["profile", "--words", "CCCC", "--sizes", "32", "48", "--repeats", "1"]
    arguments += ["--depths", "2", "--output", str(tmp_path)]
    source = os.path.dirname(os.path.dirname(hymunet.__file__))
    child = subprocess.Popen(
        [sys.executable, "-m", "hymunet.cli", *arguments],
        env=os.environ | {"PYTHONPATH": source},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = tmp_path / "cells" / "CCCC-32px.json"
    try:
        for _ in range(6000):
            if first.exists() or child.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    before = json.loads(first.read_text())
    assert before["first_pass_s"] > 0
    assert not (tmp_path / "profile.json").exists()
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    assert main(arguments) == 0
    after = json.loads(first.read_text())
    kept = ("first_pass_s", "peak_bytes", "estimated_bytes", "parts")
    assert [after[key] for key in kept] == [before[key] for key in kept]
    rows = json.loads((tmp_path / "profile.json").read_text())["cells"]
    assert [row["status"] for row in rows] == ["measured", "measured"]


def test_a_training_step_of_a_model_file_and_depths_of_a_word(tmp_path, monkeypatch):
    """Depths are words' only: a model file has the depth that it has."""
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    network = HyMUNet(1, 2, stages="CM", dims=(4, 8), depths=(1, 2), d_state=2)
    path = save_model(tmp_path / "toy.safetensors", network)
    options = {"train": True, "batch": 2, "repeats": 1, "depths": (1, 2), "sizes": (16,)}
    found = profile(model=(str(path),), output=tmp_path / "one", **options).summary
    (row,) = found["cells"]
    assert (row["network"], row["size"], row["depth"]) == ("toy", 16, None)
    assert row["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["conditions"]["pass"] == "training step"
    assert found["networks"][0]["time"] is None  # a single size has no exponent
    assert (tmp_path / "one" / "profile.html").is_file()
    deep = profile(
        words=("CCCC",), output=tmp_path / "two", depth_size=32, **(options | {"sizes": (32,)})
    ).summary
    assert [row["depth"] for row in deep["cells"]] == [None, 1, 2]
    depth = deep["networks"][0]["depth"]
    block = asdict(summarise(hymunet_tiny(stages="CCCC", depths=(2,) * 4), (32, 32)))
    less = asdict(summarise(hymunet_tiny(stages="CCCC", depths=(1,) * 4), (32, 32)))
    assert depth["parameters"]["a_block"]["value"] == block["parameters"] - less["parameters"]
    one, two = (row["median_s"] for row in deep["cells"][1:])
    assert depth["time"]["a_block"]["value"] == pytest.approx(two - one)
    assert "blocks in every encoder stage" in (tmp_path / "two" / "profile.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"words": ("CCM",)}, "words must be four letters.*not 'CCM'"),
        ({"words": ()}, "there is nothing to profile"),
        ({"words": ("CCXX",)}, "words must be four letters.*not 'CCXX'"),
        ({"sizes": (100,)}, "--sizes must be multiples of 16, the stride of CCMM.*100 came"),
        ({"sizes": (16,), "train": True}, "at least 32; 16 came"),
        ({"depth_size": 40}, "--depth-size must be multiples of 16"),
        ({"depths": (0, 1)}, "--depths must be 1 block or more, 0 came"),
        ({"repeats": 0}, "--repeats must be at least 1, 0 came"),
        ({"batch": 0}, "--batch must be at least 1, 0 came"),
        ({"depth_size": 0}, "--depth-size must be at least 1, 0 came"),
        ({"limit": float("nan")}, "--limit is a number of seconds above 0, not nan"),
        ({"limit": -1.0}, "above 0, not -1"),
        ({"model": ("nowhere.safetensors",)}, "there is no model file"),
        ({"device": "nowhere"}, "there is no device 'nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(tmp_path, options, words):
    with pytest.raises(HyMUNetError, match=words):
        profile(output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
