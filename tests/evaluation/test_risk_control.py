"""`calibrate --miss-rate` on drawn lesions: against masks that are really cut, what it keeps."""

import csv
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest

from hymunet.cli import main
from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.data.mask_writing import write_mask
from hymunet.errors import HyMUNetError
from hymunet.evaluation import miss_rates
from hymunet.evaluation.calibrate import calibrate
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.seen import CUT
from hymunet.inference.predict import predict
from hymunet.inference.predictor import Predictor
from hymunet.metrics.overlap import count, dice, precision, recall
from hymunet.network.info import info as show_info
from hymunet.network.model_file import read_info, replace_info
from tests.evaluation.small_models import save_small

VAL = [f"phantom_{i:04d}" for i in (2, 3, 4)]
NEW = [f"phantom_{i:04d}" for i in range(5, 15)]  # ten cases that no model below has met
RATE = 0.2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cases train, three val, ten test."""
    from hymunet.data.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 15, (48, 64))
    parts = ["train"] * 2 + ["val"] * 3 + ["test"] * 10
    rows = [f"phantom_{i:04d},{part}\n" for i, part in enumerate(parts)]
    (folder / "split.csv").write_text("case,split\n" + "".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return save_small(data, tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copy(model, tmp_path / "copy.safetensors")


def pairs(data, model, names, tta=False):
    """(probability, truth) of each case."""
    predictor = Predictor(model, tta=tta)
    return [
        (
            predictor(data / "images" / f"{name}.png").probability[0],
            read_mask(data / "masks" / f"{name}.png").labels == 1,
        )
        for name in names
    ]


def keeps(found, threshold, rate):
    """The condition of conformal risk control, from masks, in fractions."""
    lost = [Fraction(int((t & (p < np.float32(threshold))).sum()), int(t.sum())) for p, t in found]
    return (sum(lost) + 1) / (len(found) + 1) <= Fraction(str(rate))


def table(folder, data, rows):
    """A data set in a CSV file: (case, source, group) a row."""
    lines = ["case,image,mask,group"]
    for name, source, group in rows:
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / part / f"{source}.png", folder / part / f"{name}.png")
        lines.append(f"{name},images/{name}.png,masks/{name}.png,{group}")
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_threshold_is_the_highest_whose_masks_keep_the_rate(data, model, tmp_path, capsys):
    before = model.read_bytes()
    result = calibrate(model, data, split="test", miss_rate=RATE, output=tmp_path)
    assert model.read_bytes() == before
    risk, found = result.summary["risk_control"], pairs(data, model, NEW)
    threshold = risk["threshold"]
    assert keeps(found, threshold, RATE)
    assert not keeps(found, np.nextafter(np.float32(threshold), np.float32(1)), RATE)
    assert (risk["n"], risk["needed"], risk["without_structure"]) == (10, 4, 0)
    for name, cut in (("at_chosen", threshold), ("at_half", 0.5)):
        counts = [count(p >= np.float32(cut), t) for p, t in found]
        expected = {
            "miss_rate": np.mean([1 - recall(c) for c in counts]),
            "precision": np.mean([precision(c) for c in counts]),
            "dice": np.mean([dice(c) for c in counts]),
        }
        assert {key: value["mean"] for key, value in risk[name].items()} == pytest.approx(expected)
    for key, change in risk["change"].items():
        difference = risk["at_chosen"][key]["mean"] - risk["at_half"][key]["mean"]
        assert change["mean"] == pytest.approx(difference)
        assert change["low"] <= change["mean"] <= change["high"]
    own = [float((t & (p < np.float32(threshold))).sum() / t.sum()) for p, t in found]
    assert risk["achieved"] == pytest.approx(np.mean(own))
    assert risk["bound"] == pytest.approx((10 * np.mean(own) + 1) / 11)
    assert risk["bound"] <= RATE
    assert risk["above"] == sum(one > RATE for one in own) > 0
    assert risk["worst"] == pytest.approx(max(own))

    written = json.loads((tmp_path / "risk_control.json").read_text("utf-8"))
    assert written["risk_control"]["threshold"] == threshold
    assert "--miss-rate 0.2" in written["made"]["command"]
    with open(tmp_path / "risk_control.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["case"] for row in rows] == NEW
    assert [float(row["miss_rate"]) for row in rows] == pytest.approx(own)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"cut at p >= {np.float32(threshold)!s} (the model's: 0.5)" in printed
    assert "at most 20 % of the lesion is missed on average" in printed
    assert f"= {risk['bound']:.4f}, at most 0.2; 4 cases are the fewest" in printed
    assert f"more than 20 % is missed in {risk['above']} of these 10 cases" in printed
    assert "not for each image, not for each subgroup" in printed
    assert "same source, same labelling, one case a patient" in printed
    # 0.2 x 11 - 1 = 1.2 of ten
    assert "10 cases are few for 20 %: to be safe, they may miss 12.0% themselves" in printed


def test_what_memory_does_not_hold_is_predicted_again(data, model, monkeypatch):
    kept = calibrate(model, data, split="test", miss_rate=RATE)
    for room in (0, 48 * 64 * 4 * 3):  # none; three cases
        monkeypatch.setattr(miss_rates, "KEEP", room)
        again = calibrate(model, data, split="test", miss_rate=RATE)
        assert again.summary["risk_control"] == kept.summary["risk_control"]
        assert again.cases == kept.cases


def test_of_a_group_one_case_is_drawn_and_all_are_checked(data, model, tmp_path):
    rows = [(name, name, f"patient {i // 2}") for i, name in enumerate(NEW)]
    results = [
        calibrate(model, table(tmp_path / name, data, order), miss_rate=RATE)
        for name, order in (("one", rows), ("other", rows[::-1]))
    ]
    drawn = [sorted(row["case"] for row in result.cases) for result in results]
    assert drawn[0] == drawn[1]
    assert [row["group"] for row in results[0].cases] == [f"patient {i}" for i in range(5)]
    assert results[0].summary["risk_control"] == results[1].summary["risk_control"]
    assert results[0].summary["n"] == 5
    assert any("5 groups hold several cases: one of each was drawn" in n for n in results[0].notes)
    # a patient of whom the model was trained on another picture
    (left,) = set(NEW[:2]) - set(drawn[0])
    trained = [(name, "phantom_0000" if name == left else name, group) for name, _, group in rows]
    with pytest.raises(HyMUNetError, match=f"1 of 10 cases was trained on: {left}"):
        calibrate(model, table(tmp_path / "trained", data, trained), miss_rate=RATE)


def test_the_draw_does_not_depend_on_names_of_groups_or_order():
    cases = [Case(f"c{i}", (), group=f"g{i % 7}") for i in range(40)]
    drawn = {case.id for case in miss_rates.one_of_each_group(cases)}
    renamed = [Case(case.id, (), group=f"x{case.group}") for case in cases[::-1]]
    assert {case.id for case in miss_rates.one_of_each_group(renamed)} == drawn
    assert len(drawn) == 7
    assert drawn != {f"c{i}" for i in range(7)}  # it is a draw, not the first of each
    alone = [Case("a", ()), Case("b", (), group="a"), Case("c", ())]
    assert miss_rates.one_of_each_group(alone) == alone


def test_a_picture_counts_once(data, model, tmp_path):
    rows = [(name, name, "") for name in NEW] + [("twin", NEW[0], "")]
    result = calibrate(model, table(tmp_path, data, rows), miss_rate=RATE)
    alone = calibrate(model, data, split="test", miss_rate=RATE)
    assert result.summary["risk_control"] == alone.summary["risk_control"]
    assert any(
        "1 of 11 cases was left out: pixel by pixel, their images are" in note
        for note in result.notes
    )
    few = table(tmp_path / "few", data, [*rows[:9], rows[-1]])
    with pytest.raises(HyMUNetError, match="needs 10 independent cases or more"):
        calibrate(model, few, miss_rate=0.095)


def test_cases_without_the_structure_are_said(data, model, tmp_path):
    rows = [(name, name, "") for name in NEW]
    path = table(tmp_path, data, rows)
    for name in NEW[:2]:
        image = read_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png", np.zeros((48, 64), np.uint8), image, 2)
    result = calibrate(model, path, miss_rate=RATE)
    assert result.summary["risk_control"]["without_structure"] == 2
    (note,) = (note for note in result.notes if "hold no lesion" in note)
    assert "in those that hold it up to 25.0% may be missed" in note
    assert result.cases[0]["miss_rate"] == 0


def test_it_is_kept_in_the_file_and_shown_wherever_the_threshold_is(data, copy, tmp_path, capsys):
    before = read_info(copy)
    command = ["calibrate", str(copy), str(data), "--split", "test", "--miss-rate", "0.2"]
    assert main([*command, "--write", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    once, threshold = copy.read_bytes(), found["risk_control"]["threshold"]
    assert found["written"] == str(copy)
    after = read_info(copy)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"threshold", "risk_control"}
    assert Predictor(copy).threshold == after["threshold"] == threshold
    record = after["risk_control"]
    assert (record["miss_rate"], record["n"], record["tta"]) == (0.2, 10, False)
    assert record["threshold"] == threshold
    assert "date" not in record
    hashes = [case_hash(read_image(data / "images" / f"{name}.png").pixels) for name in NEW]
    assert record["cases"] == sorted(hashes)
    # a second time the same file, byte for byte: the threshold before has no part in it
    assert main([*command, "--write"]) == 0
    assert copy.read_bytes() == once
    capsys.readouterr()

    promise = f"on average at most 20 % of the lesion missed; set on 10 cases of {record['data']}"
    show_info(copy)
    assert promise in " ".join(capsys.readouterr().out.split())
    scored = evaluate(copy, data, split="test")
    assert any(CUT in note for note in scored.notes)
    recalls = scored.summary["classes"]["lesion"]["per_image"]["recall"]["mean"]
    assert 1 - recalls == pytest.approx(record["achieved"])
    capsys.readouterr()

    image, rate = str(data / "images" / f"{NEW[0]}.png"), "miss_rate"
    shown = {}
    for name, options in {
        "own": {}, "tta": {"tta": True}, "above": {"threshold": 0.9}, "below": {"threshold": 0.01},
    }.items():  # fmt: skip
        output = tmp_path / name
        predict(image, model=copy, output=output, **options)
        written = json.loads((output / "measurements.json").read_text())
        shown[name] = (" ".join(capsys.readouterr().err.split()), written[rate])
    assert f"cut at {np.float32(threshold)!s}: {promise}" in shown["own"][0]
    assert "warning" not in shown["own"][0] + shown["below"][0]
    assert "warning: cut at" in shown["tta"][0]
    assert "without test-time augmentation, and this is with it" in shown["tta"][0]
    assert "the threshold 0.9 is above" in shown["above"][0]
    assert [value for _, value in shown.values()] == [0.2, None, None, 0.2]


def test_augmentation_is_calibrated_and_recorded(data, copy):
    result = calibrate(copy, data, split="test", miss_rate=RATE, tta=True, write=True)
    found, threshold = pairs(data, copy, NEW, tta=True), result.summary["risk_control"]["threshold"]
    assert keeps(found, threshold, RATE)
    assert not keeps(found, np.nextafter(np.float32(threshold), np.float32(1)), RATE)
    assert read_info(copy)["risk_control"]["tta"] is True


def test_a_file_tells_one_way_of_choosing(data, copy):
    calibrate(copy, data, split="test", write=True)
    assert "calibration" in read_info(copy)
    calibrate(copy, data, split="test", miss_rate=RATE, write=True)
    assert "calibration" not in read_info(copy)
    result = calibrate(copy, data, split="test", write=True)
    assert "risk_control" not in read_info(copy)
    assert any("replaces kept a miss rate (on average at most 20 %" in n for n in result.notes)


def test_cases_that_chose_are_refused_and_those_that_were_watched_are_named(data, copy, model):
    watched = calibrate(model, data, split="val", miss_rate=0.3)  # --select last
    assert any("watched during training but chose nothing" in note for note in watched.notes)
    other = copy.parent / "other.csv"
    parts = (data / "split.csv").read_text("utf-8").replace(",val", ",test")
    parts = parts.replace("phantom_0014,test", "phantom_0014,val")  # a split needs one
    other.write_text(parts, encoding="utf-8")
    options = {"split": "test", "split_file": other, "miss_rate": RATE, "write": True}
    for training in ({"select": "best"}, {"select": "last", "patience": 5}, {}):
        replace_info(copy, read_info(copy) | {"training": {"options": training}})
        with pytest.raises(HyMUNetError, match=r"3 of 12 cases were in the validation part.*_0002"):
            calibrate(copy, data, **options)
        assert "threshold" not in read_info(copy)
    # the threshold that maximises Dice may be chosen there: it promises nothing
    assert calibrate(copy, data, split="val").summary["threshold"]
    with pytest.raises(HyMUNetError, match="2 of 15 cases were trained on: phantom_0000, phan"):
        calibrate(copy, data, miss_rate=RATE)


def test_a_file_without_fingerprints_is_said_to_be_unchecked(data, copy):
    replace_info(copy, read_info(copy) | {"cases": {}})
    notes = calibrate(copy, data, miss_rate=RATE).notes
    assert any("overlap with them was not checked" in note for note in notes)


def test_nested_structures_keep_the_rate_of_the_one_that_is_named(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    for path in (folder / "masks").iterdir():
        labels = read_mask(path).labels
        labels[:, labels.shape[1] // 2 :] *= 2
        write_mask(path, labels, read_image(folder / "images" / path.name), num_labels=3)
    model = save_small(data, tmp_path / "nested.safetensors", num_classes=2)
    with pytest.raises(HyMUNetError, match=r"name it by --structure \(lesion, core\)"):
        calibrate(model, folder, split="test", miss_rate=RATE)
    with pytest.raises(HyMUNetError, match="--structure must be one of lesion, core, not 'x'"):
        calibrate(model, folder, split="test", miss_rate=RATE, structure="x")
    thresholds = []
    for name, index in (("lesion", 1), ("core", 2)):
        risk = calibrate(model, folder, split="test", miss_rate=RATE, structure=name)
        risk = risk.summary["risk_control"]
        thresholds.append(risk["threshold"])
        # what the predictor's own masks miss there
        lost = []
        for case in NEW:
            predictor = Predictor(model, threshold=risk["threshold"])
            mask = predictor(folder / "images" / f"{case}.png").mask
            truth = read_mask(folder / "masks" / f"{case}.png", 3).labels
            lost.append(1 - recall(count(mask >= index, truth >= index)))
        assert np.mean(lost) == pytest.approx(risk["achieved"])
        assert risk["structure"] == name
    assert thresholds[0] != thresholds[1]


def test_refusals(data, copy, tmp_path, capsys):
    before = copy.read_bytes()
    softmax = save_small(data, tmp_path / "soft.safetensors", num_classes=2, activation="softmax")
    for match, model, options in (
        (r"needs 19 independent cases or more .* and there are 10", copy, {"miss_rate": 0.05}),
        ("a share between 0 and 1", copy, {"miss_rate": 10}),
        ("--metric dice and --miss-rate 0.2 each", copy, {"miss_rate": 0.2, "metric": "dice"}),
        ("--miss-rate and --force do not go", copy, {"miss_rate": 0.2, "force": True}),
        ("--structure names what --miss-rate", copy, {"structure": "lesion"}),
        (r"most probable class \(softmax\)", softmax, {"miss_rate": 0.2}),
    ):
        with pytest.raises(HyMUNetError, match=match):
            calibrate(model, data, split="test", write=True, **options)
    assert copy.read_bytes() == before
    command = ["calibrate", str(copy), str(data), "--split", "test", "--miss-rate", "0.01"]
    assert main(command) == 1
    assert "needs 99 independent cases" in capsys.readouterr().err


def test_a_device_that_does_not_repeat_itself_is_noticed(data, model, monkeypatch):
    monkeypatch.setattr(miss_rates, "KEEP", 0)
    whole = Predictor.__call__
    calls = []

    def unsteady(self, image):
        calls.append(image)
        prediction = whole(self, image)
        if len(calls) > len(NEW):
            prediction.probability[:] = np.roll(prediction.probability, 7, axis=-1)
        return prediction

    monkeypatch.setattr(Predictor, "__call__", unsteady)
    with pytest.raises(HyMUNetError, match="was predicted twice and not alike"):
        calibrate(model, data, split="test", miss_rate=RATE)
