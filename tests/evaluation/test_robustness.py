"""The verb on drawn lesions: the same judge as evaluate, the same pictures each time, refusals."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image as Picture

from hymunet.cli import main
from hymunet.data.corruptions import CORRUPTIONS
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.held_out import limited
from hymunet.evaluation.robustness import robustness
from hymunet.evaluation.robustness_page import change_axis
from hymunet.evaluation.robustness_summary import summarise
from hymunet.evaluation.robustness_terminal import by_kind, format_change
from hymunet.metrics.statistics import bootstrap_mean
from tests.evaluation.small_models import save_small, write_data

NAMES = ["clean", *(one.key for one in CORRUPTIONS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "phantoms")


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return save_small(data, tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def measured(data, model, tmp_path_factory):
    """One measurement of the test part, with its folder."""
    folder = tmp_path_factory.mktemp("out") / "robust"
    return robustness(model, data, split="test", output=folder), folder


def test_every_case_is_scored_under_every_corruption_and_clean_as_evaluate_does(
    measured, data, model
):
    result, folder = measured
    assert [row["corruption"] for row in result.cases] == NAMES * 2
    expected = {row["case"]: row for row in evaluate(model, data, split="test").cases}
    for row in result.cases:
        if row["corruption"] == "clean":
            for name in ("dice", "iou", "tp", "fp", "fn", "tn"):
                assert row[name] == expected[row["case"]][name]
            assert (row["dice_change"], row["iou_change"]) == (0, 0)
        # what came into view from outside the frame does not count
        share = (row["tp"] + row["fp"] + row["fn"] + row["tn"]) / (48 * 64)
        if row["corruption"] == "zoom out, x 0.6":
            assert share == pytest.approx(0.36, abs=0.03)
        else:
            assert share == 1 or (row["corruption"].startswith("rotation") and 0.7 < share < 1)
    with open(folder / "robustness.csv", encoding="utf-8", newline="") as handle:
        written = list(csv.DictReader(handle))
    assert [float(row["dice"]) for row in written] == [row["dice"] for row in result.cases]
    assert [row["kind"] for row in written[:2]] == ["clean", "blur"]


def test_the_summary_is_made_of_the_rows(measured):
    result, folder = measured
    written = json.loads((folder / "robustness.json").read_text("utf-8"))
    assert written["n"] == written["groups"] == 2
    assert [entry["corruption"] for entry in written["corruptions"]] == NAMES[1:]
    clean = {row["case"]: row for row in result.cases if row["corruption"] == "clean"}
    assert written["clean"]["dice"]["mean"] == pytest.approx(
        np.mean([row["dice"] for row in clean.values()])
    )
    for entry in written["corruptions"]:
        own = [row for row in result.cases if row["corruption"] == entry["corruption"]]
        changes = [row["dice"] - clean[row["case"]]["dice"] for row in own]
        expected = bootstrap_mean(changes, [row["group"] for row in own])
        found = entry["dice_change"]
        assert (found["mean"], found["low"], found["high"]) == pytest.approx(
            (expected.mean, expected.low, expected.high)
        )
        assert entry["iou"]["mean"] == pytest.approx(np.mean([row["iou"] for row in own]))
        assert entry["fell"] == sum(change < -0.1 for change in changes)
    losses = [entry["dice_change"]["mean"] for entry in written["corruptions"]]
    worst = [NAMES[1:][i] for i in np.argsort(losses, kind="stable")]
    assert written["worst"] == worst
    assert min(losses) < -0.01  # or nothing was corrupted
    assert written["made"]["command"].startswith("hymunet robustness ")


def test_the_same_command_gives_the_same_figures(measured, data, model):
    first, _ = measured
    again = robustness(model, data, split="test")
    assert again.cases == first.cases
    assert again.report is None


def test_several_structures_count_their_mean():
    rows = []
    for case, scores in {"a": (0.9, 0.5), "b": (0.7, 0.1)}.items():
        for corruption, loss in (("clean", 0.0), (CORRUPTIONS[0].key, 0.3)):
            for name, score in zip(("lesion", "core"), scores, strict=True):
                change = -loss if name == "core" else 0.0
                row = {"case": case, "group": case, "class": name, "corruption": corruption}
                row |= {"dice": score + change, "iou": score, "dice_change": change}
                rows.append(row | {"iou_change": 0.0, "tp": 1, "fp": 0, "fn": 1, "tn": 3})
    summary = summarise(rows, CORRUPTIONS[:1])
    assert summary["clean"]["dice"]["mean"] == pytest.approx((0.7 + 0.4) / 2)
    (entry,) = summary["corruptions"]
    assert entry["dice_change"] == pytest.approx({"mean": -0.15, "low": -0.15, "high": -0.15})
    assert (entry["n"], entry["fell"], entry["emptied"]) == (2, 2, 0)
    assert summary["classes"] == ["lesion", "core"]


def test_a_truth_that_leaves_the_frame_is_counted_and_told(data, model, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Picture.new("RGB", (60, 60), (200, 160, 140)).save(tmp_path / "images" / "corner.png")
    mask = np.zeros((60, 60), np.uint8)
    mask[:5, :5] = 255
    Picture.fromarray(mask).save(tmp_path / "masks" / "corner.png")
    result = robustness(model, tmp_path)
    emptied = {e["corruption"]: e["emptied"] for e in result.summary["corruptions"]}
    assert emptied.pop("zoom in, x 1.5") == 1
    emptied.pop("rotation, 30 degrees")  # whichever way it turned
    assert set(emptied.values()) == {0}
    assert any("zoom in, x 1.5 moves the truth of 1 case out" in note for note in result.notes)
    assert result.summary["clean"]["dice"]["low"] is None  # one case has no interval


def test_the_page_shows_every_corruption_and_needs_nothing_else(measured):
    result, folder = measured
    text = (folder / "robustness.html").read_text("utf-8")
    assert result.report == folder / "robustness.html"
    assert text.count('<figure class="case">') == len(NAMES)
    for name in NAMES[1:]:
        assert text.count(f">{name}</th>") == 1
        assert f"</strong> {name}</figcaption>" in text
    for entry in result.summary["corruptions"]:
        assert f"<td>{format_change(entry['dice_change']['mean'])}</td>" in text
    prose = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|<script|<link", prose)
    assert ":root {" in text  # the report's colours
    assert len(text) < 2_000_000


def test_what_is_printed(data, model, capsys):
    robustness(model, data, split="test")
    printed = capsys.readouterr().out
    for kind in ("blur", "file", "light", "colour", "noise", "marks", "geometry"):
        assert re.search(rf"^ *{kind} *$", printed, re.MULTILINE)
    assert 1 <= len(re.findall(r"^ .* ◀ .*\d", printed, re.MULTILINE)) <= 3
    assert all(name in printed for name in NAMES)
    assert max(map(len, printed.splitlines())) <= 80
    assert (
        main(["robustness", str(model), str(data), "--split", "val", "--limit", "1", "--json"]) == 0
    )
    out = capsys.readouterr().out
    found = json.loads(out)
    assert found["n"] == 1
    assert any("1 of 3 cases, evenly spread" in note for note in found["notes"])
    assert any("watched during training but chose nothing" in note for note in found["notes"])


def test_the_largest_losses_stand_first():
    entries = [
        {
            "corruption": str(i),
            "kind": kind,
            "dice_change": {"mean": mean, "low": mean, "high": 0.02},
        }
        for i, (kind, mean) in enumerate([("a", -0.1), ("b", -0.3), ("a", -0.2), ("b", 0.0)])
    ]
    kinds = by_kind(entries)
    assert list(kinds) == ["b", "a"]
    assert [entry["corruption"] for entry in kinds["a"]] == ["2", "0"]
    assert change_axis(entries) == pytest.approx((-0.35, 0.05))


def test_cases_that_were_trained_on_are_refused_all_by_name(data, model, tmp_path):
    words = r"2 of 7 cases were trained on: phantom_0000, phantom_0001;.*--force"
    with pytest.raises(HyMUNetError, match=words):
        robustness(model, data, output=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    forced = robustness(model, data, split="train", limit=1, force=True)
    assert forced.summary["forced"]
    assert any(note.startswith("FORCED") for note in forced.notes)


def test_what_cannot_be_corrupted_is_refused(data, model, tmp_path):
    volumes = save_small(data, tmp_path / "volumes.safetensors", spatial_dims=3)
    with pytest.raises(HyMUNetError, match=r"pictures \(2-D\), and .* segments volumes"):
        robustness(volumes, data)
    with pytest.raises(HyMUNetError, match=r"has to run the model, but .* is a folder of masks"):
        robustness(data / "masks", data)
    with pytest.raises(HyMUNetError, match="--limit must be 1 or more, not 0"):
        robustness(model, data, limit=0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Picture.fromarray(np.full((20, 20), 30000, np.uint16)).save(tmp_path / "images" / "deep.png")
    Picture.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "masks" / "deep.png")
    with pytest.raises(HyMUNetError, match=r"case deep: .* 8-bit pictures.* uint16; convert"):
        robustness(model, tmp_path)


def test_grey_models_are_spared_the_colours(data, tmp_path):
    grey = save_small(data, tmp_path / "grey.safetensors", in_channels=1)
    result = robustness(grey, data, split="test", limit=1)
    assert len(result.cases) == len(NAMES) - 3
    assert not any(row["kind"] == "colour" for row in result.cases)
    assert any("3 corruptions need colour and were left out" in note for note in result.notes)


def test_a_limit_spreads_over_the_list():
    assert limited(range(10), 3)[0] == [0, 4, 9]
    assert limited(range(3), 9) == ([0, 1, 2], [])
    assert limited(range(3), None) == ([0, 1, 2], [])
    for limit in range(1, 8):
        assert len(set(limited(range(7), limit)[0])) == limit
