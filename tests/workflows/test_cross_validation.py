"""Cross-validation end to end: each case is scored once, by the network that has not seen it."""

import csv
import json
import shlex
import statistics
from dataclasses import replace

import pytest
from PIL import Image as Picture
from rich.console import Console

from hymunet import TrainOptions, train
from hymunet.cli import main
from hymunet.data.case_hash import case_hash
from hymunet.data.folds import load_folds
from hymunet.data.formats import find_dataset
from hymunet.data.image_io import read_image
from hymunet.data.phantoms import write_phantoms
from hymunet.data.splits import load_split
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.network.hymunet import HyMUNet
from hymunet.network.model_file import read_info, save_model
from hymunet.training.run_config import read_config
from hymunet.workflows.fold_drawing import draw_folds, join_copies

OPTIONS = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")
FLAGS = ["--image-size", "32", "--epochs", "1", "--batch-size", "4", "--workers", "0"]
FLAGS += ["--device", "cpu"]
QUIET = Console(quiet=True)
COUNT, TEST = 12, ("phantom_0003", "phantom_0007")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYMUNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Drawn lesions, two of them in a test part that is nobody's business."""
    folder = write_phantoms(tmp_path_factory.mktemp("data") / "moles", COUNT, size=(40, 48))
    names = sorted(path.stem for path in (folder / "images").iterdir())
    parts = ["test" if name in TEST else "val" if i % 5 == 0 else "train"
             for i, name in enumerate(names)]  # fmt: skip
    rows = [f"{name},{part}\n" for name, part in zip(names, parts, strict=True)]
    (folder / "split.csv").write_text("case,split\n" + "".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """Fold 1 alone first, as on a cluster, then all."""
    output = tmp_path_factory.mktemp("runs") / "x"
    arguments = ["train", str(data), "--folds", "3", "--output", str(output), *FLAGS]
    assert main([*arguments, "--fold", "1"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "fold-1", "folds.json", "split-fold-1.json",
    ]  # fmt: skip
    first = (output / "fold-1" / "best.safetensors").stat().st_mtime_ns
    kept = (output / "folds.json").read_bytes()
    assert main(arguments) == 0
    assert (output / "fold-1" / "best.safetensors").stat().st_mtime_ns == first
    assert (output / "folds.json").read_bytes() == kept
    return output


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_case_but_the_test_part_is_scored_once(done, data):
    scored = [row["case"] for row in rows_of(done / "cases.csv")]
    names = {path.stem for path in (data / "images").iterdir()}
    assert sorted(scored) == sorted(names - set(TEST))
    splits, _ = load_folds(done / "folds.json")
    for split in splits:
        assert not set(TEST) & {*split.train, *split.val, *split.test}
    content = json.loads((done / "metrics.json").read_text())
    assert content["n"] == COUNT - len(TEST)
    assert any("test part, 2 cases, is left untouched" in note for note in content["notes"])


def test_the_judge_of_a_case_has_not_seen_it(done):
    splits, _ = load_folds(done / "folds.json")
    for row in rows_of(done / "cases.csv"):
        split = splits[int(row["fold"])]
        assert row["case"] in split.test
        assert row["seen"] == ""
    for number, split in enumerate(splits):
        assert load_split(done / f"fold-{number}" / "split.json").train == split.train
        cases = read_info(done / f"fold-{number}" / "best.safetensors")["cases"]
        assert not set(cases["test"]) & {*cases["train"], *cases["val"]}


def test_scores_are_those_of_each_fold_judged_by_itself(done, data):
    rows = rows_of(done / "cases.csv")
    content = json.loads((done / "metrics.json").read_text())
    assert [fold["fold"] for fold in content["folds"]] == [0, 1, 2]
    means = []
    for fold in content["folds"]:
        alone = evaluate(str(done / f"fold-{fold['fold']}"), data, split="test")
        own = {row["case"]: row for row in rows if int(row["fold"]) == fold["fold"]}
        assert own.keys() == {row["case"] for row in alone.cases}
        for row in alone.cases:
            assert float(own[row["case"]]["dice"]) == row["dice"]
            assert float(own[row["case"]]["hd95"]) == row["hd95"]
        per_image = alone.summary["classes"]["foreground"]["per_image"]
        assert fold["means"].keys() == per_image.keys()
        for metric, mean in per_image.items():
            assert fold["means"][metric] == pytest.approx(mean["mean"])
        means.append(fold["means"]["dice"])
        assert fold["model"] == alone.summary["model"]
    assert content["over_folds"]["mean"]["dice"] == pytest.approx(statistics.mean(means))
    assert content["over_folds"]["sd"]["dice"] == pytest.approx(statistics.stdev(means))
    every = [float(row["dice"]) for row in rows]
    dice = content["classes"]["foreground"]["per_image"]["dice"]
    assert dice["mean"] == pytest.approx(statistics.mean(every))
    assert dice["low"] <= dice["mean"] <= dice["high"]


def test_the_report_has_a_line_a_fold_and_says_how_it_was_made(done):
    text = (done / "report.html").read_text("utf-8")
    assert "<h2>Folds</h2>" in text
    assert text.count('<th scope="row">Standard deviation</th>') == 1
    assert "out-of-fold part" in text
    content = json.loads((done / "metrics.json").read_text())
    words = shlex.split(content["made"]["command"])
    assert words[:2] == ["hymunet", "train"]
    assert words[words.index("--folds") + 1] == "3"
    assert words[words.index("--image-size") + 1] == "32"
    assert "--fold" not in words
    assert "--learning-rate" not in words  # only what differs from the defaults


def test_a_single_fold_has_a_report_of_its_own(done):
    splits, _ = load_folds(done / "folds.json")
    scored = [row["case"] for row in rows_of(done / "fold-1" / "cases.csv")]
    assert sorted(scored) == list(splits[1].test)
    assert (done / "fold-1" / "report.html").is_file()


def test_the_configuration_of_a_fold_repeats_it(done, tmp_path):
    values = read_config(done / "fold-2" / "config.yaml")
    again = train(values["data"], output=tmp_path / "again", config=done / "fold-2/config.yaml")
    assert load_split(tmp_path / "again" / "split.json") == load_split(done / "fold-2/split.json")
    there = rows_of(done / "fold-2" / "metrics.csv")
    for row, other in zip(rows_of(again.folder / "metrics.csv"), there, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_again_nothing_is_trained_and_the_figures_are_the_same(done, data, capsys):
    before = {path: path.stat().st_mtime_ns for path in done.glob("fold-*/*.safetensors")}
    cases = (done / "cases.csv").read_bytes()
    result = train(data, output=done, options=OPTIONS, folds=3)
    printed = capsys.readouterr()
    assert printed.err.count("finished already") == 3
    assert "by fold" in printed.out
    assert f"hymunet predict IMAGES --model {done}" in printed.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (done / "cases.csv").read_bytes() == cases
    assert (result.folder, result.model) == (done, done)
    means = [float(row["dice"]) for row in rows_of(done / "cases.csv")]
    assert result.dice == pytest.approx(statistics.mean(means))


def test_other_settings_are_refused(done, data):
    for changed, folds, words in (
        (replace(OPTIONS, epochs=2), 3, r"epochs is 1 there and 2 now"),
        (replace(OPTIONS, seed=5), 3, r"seed is 0 there and 5 now"),
        (OPTIONS, 4, r"folds is 3 there and 4 now"),
    ):
        with pytest.raises(HyMUNetError, match=f"begun with other settings: {words}"):
            train(data, output=done, options=changed, folds=folds)


def test_a_fold_trained_by_another_split_is_refused(done, data):
    kept = (done / "folds.json").read_text()
    content = json.loads(kept)
    one = content["folds"][0]
    one["val"], one["train"] = [*one["val"], one["train"][0]], one["train"][1:]
    try:
        (done / "folds.json").write_text(json.dumps(content))
        with pytest.raises(HyMUNetError, match=r"fold-0 was trained by another split than"):
            train(data, output=done, options=OPTIONS, folds=3)
        one["train"].append("gone")
        (done / "folds.json").write_text(json.dumps(content))
        with pytest.raises(HyMUNetError, match=r"1 case of .*folds\.json is no longer .*gone"):
            train(data, output=done, options=OPTIONS, folds=3)
    finally:
        (done / "folds.json").write_text(kept)


def test_what_makes_no_sense_is_refused(data, tmp_path):
    with pytest.raises(HyMUNetError, match=r"--fold 2 says which fold .* add --folds"):
        train(data, output=tmp_path / "x", options=OPTIONS, fold=2)
    with pytest.raises(HyMUNetError, match=r"--fold counts from 0 to 2 with --folds 3, not 3"):
        train(data, output=tmp_path / "x", options=OPTIONS, folds=3, fold=3)
    with pytest.raises(HyMUNetError, match=r"11 folds need at least 11 groups.*10 cases form 10"):
        train(data, output=tmp_path / "x", options=OPTIONS, folds=11)
    assert not (tmp_path / "x").exists()  # what was refused does not stand in the way
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(HyMUNetError, match=r"not empty and holds no cross-validation.*thesis\.tex"):
        train(data, output=tmp_path, options=OPTIONS, folds=3)


def test_unreadable_cases_are_named_before_anything_is_drawn(tmp_path):
    folder = write_phantoms(tmp_path / "moles", 6, size=(40, 48))
    (folder / "split.csv").unlink()
    (folder / "images" / "phantom_0002.png").write_bytes(b"torn")
    with pytest.raises(HyMUNetError, match=r"1 of 6 cases cannot be used:\n  phantom_0002: "):
        train(folder, output=tmp_path / "x", options=OPTIONS, folds=3)
    assert not (tmp_path / "x").exists()


def test_copies_never_stand_on_two_sides(tmp_path):
    """Patients as the data name them, although two of them share a picture."""
    folder = write_phantoms(tmp_path / "moles", 6, size=(40, 48))
    copied = Picture.open(folder / "images" / "phantom_0000.png")
    copied.save(folder / "images" / "phantom_0005.png", compress_level=1)
    rows = [f"images/phantom_{i:04d}.png,masks/phantom_{i:04d}.png,patient {i}\n" for i in range(6)]
    table = folder / "cases.csv"
    table.write_text("image,mask,group\n" + "".join(rows), encoding="utf-8")
    for seed in range(4):
        drawn = draw_folds(find_dataset(table), replace(OPTIONS, seed=seed), 3, None, QUIET)
        for split in drawn:
            parts = (split.train, split.val, split.test)
            assert sum({"phantom_0000", "phantom_0005"} <= set(part) for part in parts) == 1


def test_groups_that_share_pixels_become_one():
    assert join_copies(list("abcd"), list("wxyz")) == list("abcd")
    assert join_copies(list("abab"), list("wxyz")) == list("abab")
    # a and b share x, b and c share y: all are one; d stays
    joined = join_copies(list("abbcd"), list("xxyyz"))
    assert len(set(joined[:4])) == 1
    assert joined[4] not in joined[:4]


def test_a_split_file_s_parts_are_pooled_and_its_test_part_is_not_read(data, tmp_path):
    lines = ["phantom_0000,val", *(f"phantom_{i:04d},train" for i in (1, 2, 4, 5, 6))]
    table = tmp_path / "parts.csv"
    table.write_text("case,split\n" + "\n".join([*lines, "phantom_0008,test"]) + "\n")
    splits = draw_folds(find_dataset(data), OPTIONS, 3, table, QUIET)
    tested = sorted(id for split in splits for id in split.test)
    assert tested == [f"phantom_{i:04d}" for i in (0, 1, 2, 4, 5, 6)]
    assert "its test part, 1 case, is left untouched" in splits[0].notes
    assert "5 cases in no part of it and not used" in splits[0].notes


def test_what_a_model_was_trained_on_is_not_scored_by_its_offspring(tmp_path):
    folder = write_phantoms(tmp_path / "moles", 10, size=(40, 48))
    (folder / "split.csv").unlink()
    pictures = sorted((folder / "images").iterdir())
    hashes = [case_hash(read_image(path, 3).pixels) for path in pictures[:4]]
    network = HyMUNet(stages="CM", dims=(4, 8), depths=(1, 1), d_state=2)
    model = save_model(tmp_path / "old.safetensors", network, {"cases": {"train": hashes}})
    options = TrainOptions(
        init=str(model), image_size=32, epochs=1, batch_size=4, workers=0, device="cpu"
    )
    # a training that validated or tested on one of them would be refused
    train(folder, output=tmp_path / "x", options=options, folds=2, fold=0)
    splits, _ = load_folds(tmp_path / "x" / "folds.json")
    tested = sorted(id for split in splits for id in split.test)
    assert tested == [path.stem for path in pictures[4:]]
    for split in splits:
        assert {path.stem for path in pictures[:4]} <= set(split.train)
        assert any("4 cases that the model of --init" in note for note in split.notes)
