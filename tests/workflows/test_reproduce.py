"""reproduce: raw data to table, resumable, and shipped weights judged on what they never met."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from hymunet.cli import main
from hymunet.data.phantoms import write_phantoms
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.workflows import recipes, reproduce, ship
from hymunet.workflows.recipes import RECIPES

TTA = " + TTA"


@pytest.fixture(autouse=True)
def small_recipes(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    quick = {"image_size": 32, "epochs": 2, "batch_size": 4, "workers": 0, "device": "cpu"}
    for size in RECIPES:
        options = replace(RECIPES[size], preset="tiny", **quick)
        monkeypatch.setitem(recipes.RECIPES, size, options)


@pytest.fixture
def data(tmp_path):
    return write_phantoms(tmp_path / "moles", 20, size=(40, 48))


def parts(data):
    with open(data / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {part: {r["case"] for r in rows if r["split"] == part} for part in ("train", "val")}


def scored(folder):
    with open(folder / "cases.csv", newline="", encoding="utf-8") as file:
        return {row["case"]: float(row["dice"]) for row in csv.DictReader(file)}


def test_one_command_trains_scores_and_tabulates_and_again_gives_the_same(data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["reproduce", "isic2018", str(data), "--model", "tiny", "--output", str(out)]
    assert main([*arguments, "--epochs", "1"]) == 0
    table = json.loads((out / "table.json").read_text())
    assert [(row["model"], row["tta"]) for row in table["rows"]] == [
        ("tiny-seed0", False), ("tiny-seed0", True)
    ]  # fmt: skip
    for row, suffix in zip(table["rows"], ("", "-tta"), strict=True):
        cases = scored(out / f"evaluation-tiny-seed0{suffix}")
        assert cases.keys() == parts(data)["val"]
        assert row["per_image"]["dice"]["mean"] == pytest.approx(sum(cases.values()) / len(cases))
        mean = row["per_image"]["dice"]["mean"]
        assert f"{mean:.4f}" in (out / "table.md").read_text(encoding="utf-8")
    weights = (out / "tiny-seed0" / "best.safetensors").read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--epochs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == table
    assert (out / "tiny-seed0" / "best.safetensors").read_bytes() == weights


def test_dev_neither_trains_on_nor_judges_what_was_held_out(data, tmp_path):
    reproduce.reproduce("isic2018", data, model="tiny", protocol="dev", output=tmp_path / "out")
    own = parts(data)
    judged = set(scored(tmp_path / "out" / "evaluation-tiny-seed0"))
    trained = set(json.loads((tmp_path / "out/tiny-seed0/split.json").read_text())["train"])
    assert judged | trained == own["train"]
    assert not judged & trained


def test_shipped_weights_are_judged_on_cases_known_by_id_in_any_size(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    reproduce.reproduce("isic2018", data, model="tiny", output=out)
    monkeypatch.setitem(ship.DATA_SETS, "folder pairs", ship.DATA_SETS["ISIC 2018 Task 1"])
    monkeypatch.setattr("hymunet.network.pretrained.WEIGHTS", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    ship.ship(out / "tiny-seed0", "isic2018-tiny", folder=tmp_path / "weights")
    (data / "split.csv").unlink()  # a copy of the data without our split
    result = reproduce.reproduce(
        "isic2018", data, model="tiny", weights=True, output=tmp_path / "again"
    )
    first = scored(out / "evaluation-tiny-seed0")
    again = scored(tmp_path / "again" / "evaluation-tiny-weights")
    assert again.keys() == first.keys()
    assert [row["model"] for row in result.rows] == ["tiny-weights"] * 2
    assert reproduce.OF_WEIGHTS in (tmp_path / "again" / "table.md").read_text(encoding="utf-8")


def test_weights_go_with_no_other_protocol(data):
    with pytest.raises(HyMUNetError, match="never met"):
        reproduce.reproduce("isic2018", data, protocol="paper", weights=True)


def test_masks_of_any_tool_are_judged_on_the_part_of_a_split_file(data, tmp_path):
    shutil.copytree(data / "masks", tmp_path / "theirs")
    table = tmp_path / "mine.csv"
    names = sorted(path.stem for path in (data / "masks").iterdir())
    part = ["test"] * 3 + ["val"] * 3 + ["train"] * (len(names) - 6)
    lines = [f"{name},{p}" for name, p in zip(names, part, strict=True)]
    table.write_text("\n".join(["case,split", *lines]) + "\n", encoding="utf-8")
    found = evaluate(tmp_path / "theirs", data, split="test", split_file=table)
    assert {row["case"] for row in found.cases} == set(names[:3])
    with pytest.raises(HyMUNetError, match="say by --split which part"):
        evaluate(tmp_path / "theirs", data, split_file=table)
