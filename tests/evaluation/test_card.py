"""Model cards: each figure comes from its input, and nothing of another model gets in."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hymunet import HyMUNet, pretrained_names
from hymunet.cli import main
from hymunet.data.corruptions import CORRUPTIONS
from hymunet.data.phantoms import write_phantoms
from hymunet.errors import HyMUNetError
from hymunet.evaluation.card import card, model_card
from hymunet.evaluation.card_numbers import card_numbers
from hymunet.evaluation.robustness import CLEAN
from hymunet.evaluation.robustness import summarise as summarise_robustness
from hymunet.evaluation.strata import describe
from hymunet.evaluation.summary import summarise
from hymunet.evaluation.tables import as_bounds
from hymunet.evaluation.thresholds import choose_threshold
from hymunet.metrics.calibration import (
    calibration_error,
    count_probabilities,
    pooled_mean,
    reliability,
)
from hymunet.metrics.case import case_metrics
from hymunet.network.model_file import find_model, model_identity, read_info, save_model

REPOSITORY = Path(__file__).resolve().parents[2]
MADE = {"date": "2026-01-02 03:04 UTC", "seconds": 5.5, "machine": "a machine"}
INFO = {
    "licence": "CC-BY-NC-4.0",
    "licence_url": "https://example.org/licence",
    "domain": "moles",
    "sources": ["A. Author 2020, https://example.org/paper"],
    "classes": ["lesion"],
    "threshold": 0.45,
    "preprocess": {"image_size": [48, 64], "resize": "letterbox", "normalisation": "dataset",
                   "mean": [0.71, 0.52, 0.33], "std": [0.14, 0.15, 0.16]},
    "cases": {"train": list("abcde"), "val": list("fgh"), "test": list("ij")},
    "training": {
        "data": "Drawn moles", "split_sha256": "ab12cd", "parameters": 12_345, "epochs": 17,
        "training_seconds": 732.0, "machine": {"device": "Abacus", "system": "Linux", "threads": 3},
        "options": {"learning_rate": 0.00123, "preset": "tiny", "seed": 4},
    },
    "versions": {"torch": "2.99.1"},
}  # fmt: skip


def squares(count=24, size=32, seed=0):
    """Pairs of (prediction, truth): a square and the same moved and shrunk; one is missed."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        truth, pred = np.zeros((2, size, size), bool)
        side, top, left = rng.integers(3, 20), rng.integers(0, 12), rng.integers(0, 12)
        truth[top : top + side, left : left + side] = True
        pred[top + 1 : top + side, left + 1 : left + side] = index > 0
        yield pred, truth


def evaluation(split="val", classes=("lesion",), tta=False, model=None):
    """What `evaluate` writes as metrics.json."""
    rows = []
    for name in classes:
        for index, (pred, truth) in enumerate(squares(seed=len(name))):
            pixels = np.random.default_rng(index).random((1, *truth.shape)) + truth
            row = {"case": f"c{index}", "class": name, "group": f"g{index // 2}", "seen": "",
                   "unit": "px", "dimensions": 2}  # fmt: skip
            rows.append(row | case_metrics(pred, truth) | describe(pixels, truth))
    summary, notes = summarise(rows)
    command = f"hymunet evaluate /home/me/m.safetensors /home/me/moles --split {split}"
    command += " --split-file /home/me/split.json"
    command += (" --tta" if tta else "") + " --output /tmp/somewhere"
    summary |= {"data": "Drawn moles", "split": split, "made": MADE | {"command": command}}
    summary |= {"notes": notes} | ({"model": model} if model else {})
    return json.loads(json.dumps(summary))


def robustness(model=None):
    """What `robustness` writes as robustness.json."""
    rng, rows = np.random.default_rng(3), []
    for index in range(12):
        for corruption in (CLEAN, *(one.key for one in CORRUPTIONS)):
            change = 0.0 if corruption == CLEAN else -float(rng.random()) / 5
            row = {"case": f"c{index}", "group": f"c{index}", "class": "lesion", "tp": 5, "fn": 1}
            row |= {"dice": 0.9 + change, "iou": 0.8 + change}
            row |= {"dice_change": change, "iou_change": change, "corruption": corruption}
            rows.append(row)
    made = MADE | {"command": "hymunet robustness m /home/me/moles --output x"}
    content = {"data": "Drawn moles", "split": None, "tta": False, "made": made, "notes": ["dim"]}
    content |= {"model": model} if model else {}
    return json.loads(json.dumps(content | summarise_robustness(rows, CORRUPTIONS)))


def calibration():
    """What `calibrate` writes as calibration.json."""
    rng, counts = np.random.default_rng(5), []
    for _, truth in squares():
        p = np.clip(truth * 0.7 + rng.random(truth.shape) * 0.3, 0, 1).astype(np.float32)
        counts.append(count_probabilities(p, truth))
    groups = [f"c{index}" for index in range(len(counts))]
    errors = [one.squared_error for one in counts]
    pixels = [float(one.pixels.sum()) for one in counts]
    found = {
        "ece": as_bounds(calibration_error(counts, groups)),
        "brier": as_bounds(pooled_mean(errors, pixels, groups)),
        "reliability": reliability(counts),
    }
    made = MADE | {"command": "hymunet calibrate m /home/me/moles --write"}
    content = {"data": "Drawn moles", "split": "val", "tta": False, "n": 24, "groups": 24,
               "interval": "95 %", "notes": [], "made": made,
               "probabilities": {"lesion": found},
               "threshold": choose_threshold({"lesion": counts}, groups, "dice", 0.5)}  # fmt: skip
    return json.loads(json.dumps(content))


ARCHITECTURE = {"stages": "CCMM", "dims": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "skip": "mgf",
                "activation": "sigmoid"}  # fmt: skip


def text_of(numbers, **changes):
    return model_card("moles", INFO | {"architecture": ARCHITECTURE, "card": numbers} | changes,
                      2_345_678)  # fmt: skip


def leaves(content, path=()):
    """(path, value) of every number and string."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, (*path, key))
    elif content is not None and not isinstance(content, bool):
        yield path, content


def replaced(content, path, value):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def other(value):
    """Another value of the same kind."""
    if isinstance(value, str):
        return "iou" if value == "dice" else value + "x"
    return value + 1 if isinstance(value, int) else value * 1.5 + (0.25 if value >= 0 else -0.25)


def unseen_by(show, content):
    """Paths of `content` that can change without `show(content)` changing."""
    before = show(content)
    return [path for path, value in leaves(content)
            if show(replaced(content, path, other(value))) == before]  # fmt: skip


def dotted(paths):
    return {".".join(map(str, path)) for path in paths}


def test_every_stored_figure_is_on_the_card():
    """Changes each of the numbers and words in turn, and looks for the change in the text."""
    tables = [evaluation(), evaluation("test", tta=True)]
    numbers = card_numbers(tables, robustness(), calibration(), "moles")
    # of a second evaluation the strata are in the file alone; units and intervals are alike
    only_stored = r"evaluations\.1\.(classes\.lesion\.(strata|cuts)|interval|\w+_unit)"
    missing = {p for p in dotted(unseen_by(text_of, numbers)) if not re.match(only_stored, p)}
    assert missing == set()


def test_every_figure_of_the_inputs_is_stored():
    """But what a card does not tell: names of cases, paths, how the curve runs."""
    identity = {"weights_sha256": "0", "threshold": 0.5}
    shown = {
        "evaluation": (lambda one: card_numbers([one]), evaluation(model=identity)),
        "robustness": (lambda one: card_numbers([], robustness=one), robustness(identity)),
        "calibration": (lambda one: card_numbers([], calibration=one), calibration()),
    }
    left_out = {
        "evaluation": r"trained_on|chose_the_\w+|watched|.*without_empty|.*failures|model|made",
        "robustness": r"classes|worst|interval|.*\.(name|level|emptied|iou_change)|model|made",
        "calibration": r"interval|threshold\.curve|made",
    }
    for name, (show, content) in shown.items():
        missing = {p for p in dotted(unseen_by(show, content)) if not re.match(left_out[name], p)}
        assert missing == set(), name


def test_failures_are_counted_not_named():
    content = evaluation()
    assert content["classes"]["lesion"]["failures"]["missed"] == ["c0"]
    content["classes"]["lesion"]["failures"]["no_overlap"] = ["patient 7", "patient 8"]
    numbers = card_numbers([content])
    assert "patient" not in json.dumps(numbers)
    text = text_of(numbers)
    assert "of 24 cases 1 missed altogether, 2 without a pixel in common" in text


def test_paths_of_a_machine_stay_out():
    numbers = card_numbers([evaluation()], robustness(), calibration(), "moles")
    assert "/home" not in json.dumps(numbers)
    assert "somewhere" not in json.dumps(numbers)
    text = text_of(numbers)
    assert "hymunet evaluate moles DATA --split val --split-file split.json\n" in text
    assert "hymunet robustness moles DATA\n" in text
    assert "hymunet calibrate moles DATA --write\n" in text


def test_what_the_model_file_says_is_on_the_card():
    text = text_of(card_numbers([]))
    for words in ("CC-BY-NC-4.0", "https://example.org/licence", "Domain: moles", "A. Author 2020",
                  "2.35 MB", "12,345 parameters", "48 x 64 px (letterbox)", "0.71, 0.52, 0.33",
                  "0.14, 0.15, 0.16", "| cut at | 0.45 |", "Trained on 5 cases of Drawn moles",
                  "3 cases validated, 2 were held out", "`ab12cd`", "12.2 minutes", "17 epochs",
                  "Abacus, Linux, 3 threads", "learning_rate: 0.00123", "torch 2.99.1",
                  "commercial use is not", "Not measured yet"):  # fmt: skip
        assert words in text, words
    assert text.count("not a medical device") >= 2
    assert "commercial" not in text_of(card_numbers([]), licence="CC0-1.0")
    assert "not stated" in text_of(card_numbers([]), licence=None)
    start = {"name": "old-moles", "data": "Older moles", "cases": 77, "licence": "CC0-1.0"}
    text = text_of(card_numbers([]), training=INFO["training"] | {"init": start})
    assert "started from old-moles (77 cases of Older moles, licence CC0-1.0)" in text
    chose = {"metric": "iou", "n": 31, "data": "Other moles", "split": "dev"}
    text = text_of(card_numbers([]), calibration=chose)
    assert "0.45, best for iou on 31 cases of Other moles, part dev" in text
    kept = {"miss_rate": 0.1, "threshold": 0.45, "n": 31, "tta": False, "data": "Other moles"}
    text = text_of(card_numbers([]), risk_control=kept)
    assert "| cut at | 0.45: on average at most 10 % of the structure missed; set on 31" in text


def test_the_weakest_kinds_of_cases_and_pictures_are_named():
    content, weak = evaluation(), {"mean": 0.1234, "low": 0.1, "high": 0.2}
    bands = content["classes"]["lesion"]["strata"]["border"]
    band = next(name for name, found in bands.items() if found["n"] >= 10)
    bands[band]["dice"] = weak
    blurred = robustness()
    worst = blurred["corruptions"][5]
    worst["dice_change"] = {"mean": -0.4321, "low": -0.5, "high": -0.4}
    failures = text_of(card_numbers([content], blurred)).split("## Known failures")[1]
    assert f"border {band}, Dice 0.1234 (0.1000 to 0.2000)" in failures
    assert f"({worst['corruption']}): change of Dice -0.4321 (-0.5000 to -0.4000)" in failures
    bands[band]["n"] = 9  # too few cases to call weak
    worst["dice_change"]["high"] = 0.01  # may be chance
    failures = text_of(card_numbers([content], blurred)).split("## Known failures")[1]
    assert "0.1234" not in failures
    assert "-0.4321" not in failures


def test_several_structures_have_a_table_each_and_a_mean():
    content = evaluation(classes=("core", "rim tissue"))
    text = text_of(card_numbers([content]), classes=["core", "rim tissue"])
    mean = content["mean_of_classes"]["dice"]["mean"]
    assert f"| Dice | {mean:.4f} (" in text.split("### All structures")[1]
    for name in ("core", "rim tissue"):
        own = content["classes"][name]["per_image"]["dice"]["mean"]
        assert f"| Dice | {own:.4f} (" in text.split(f"### {name}: Mean over images")[1]
    assert f"| per-image Dice | {mean:.4f} (" in text


# the command


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = HyMUNet(3, 1, **{key: ARCHITECTURE[key] for key in ("stages", "dims", "depths")})
    return save_model(tmp_path / "moles.safetensors", network, INFO)


@pytest.fixture
def measured(model, tmp_path):
    """A folder with results that say which model they measured."""
    folder = tmp_path / "results"
    folder.mkdir()
    identity = model_identity(model)
    (folder / "metrics.json").write_text(json.dumps(evaluation(model=identity)), "utf-8")
    (folder / "robustness.json").write_text(json.dumps(robustness(identity)), "utf-8")
    old = calibration() | {"model": identity | {"threshold": 0.5}}
    (folder / "calibration.json").write_text(json.dumps(old), "utf-8")
    return folder


def test_a_file_carries_its_card(model, measured, tmp_path, capsys):
    out, identity = tmp_path / "card.md", model_identity(model)
    arguments = ["card", str(model), str(measured), "--robustness", str(measured)]
    arguments += ["--calibration", str(measured / "calibration.json"), "--output", str(out)]
    assert main(arguments) == 0
    assert "card" not in read_info(model)
    assert main([*arguments, "--write"]) == 0
    assert "does not say" not in capsys.readouterr().err
    text = out.read_text("utf-8")
    assert text.startswith("# moles\n")
    assert model_identity(model) == identity
    assert main(["card", str(model)]) == 0  # from the file alone
    assert capsys.readouterr().out == text
    dice = read_info(model)["card"]["evaluations"][0]["classes"]["lesion"]["per_image"]["dice"]
    assert f"{dice['mean']:.4f} ({dice['low']:.4f} to {dice['high']:.4f})" in text
    assert main(["info", str(model)]) == 0
    assert f"{dice['mean']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["metrics", "robustness", "calibration"])
def test_results_of_other_weights_are_refused(model, measured, file):
    path = measured / f"{file}.json"
    content = json.loads(path.read_text("utf-8"))
    content["model"]["weights_sha256"] = "f" * 64
    path.write_text(json.dumps(content), "utf-8")
    before = model.read_bytes()
    words = r"results.* was measured with other weights than this model's \(ffffffffffff, not"
    with pytest.raises(HyMUNetError, match=words):
        card(model, measured, robustness=measured / "robustness.json",
             calibration=measured / "calibration.json", write=True)  # fmt: skip
    assert model.read_bytes() == before


def test_results_at_another_threshold_are_refused(model, measured):
    path = measured / "metrics.json"
    content = json.loads(path.read_text("utf-8"))
    content["model"]["threshold"] = 0.5
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(HyMUNetError, match=r"at the threshold 0\.5, this model's is 0\.45"):
        card(model, measured)


def test_results_that_do_not_say_whose_they_are_are_noted(model, measured, capsys):
    (measured / "metrics.json").write_text(json.dumps(evaluation()), "utf-8")
    card(model, measured)
    assert "does not say which weights it measured" in capsys.readouterr().err


@pytest.mark.parametrize("name", pretrained_names())
def test_a_packaged_model_is_evaluated_by_its_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_phantoms(Path("drawn"), 6, size=(48, 64))
    assert main(["evaluate", name, "drawn", "--json", "--output", "found"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["prediction"] == name
    assert printed["model"] == model_identity(name)
    text = card(Path(name), Path("found"), output=Path("card.md"))
    dice = printed["classes"][read_info(name)["classes"][0]]["per_image"]["dice"]["mean"]
    assert f"| Dice | {dice:.4f}" in text
    assert f"hymunet evaluate {name} DATA\n" in text
    assert "does not say" not in capsys.readouterr().err


def test_files_that_are_no_results(model, measured, tmp_path):
    with pytest.raises(HyMUNetError, match=r"there is no .*metrics\.json; give the folder"):
        card(model, tmp_path)
    with pytest.raises(HyMUNetError, match="figures begin with an evaluation"):
        card(model, write=True)
    with pytest.raises(HyMUNetError, match="as JSON"):
        card(model, model)
    (measured / "metrics.json").write_text("[1]", "utf-8")
    with pytest.raises(HyMUNetError, match="what `hymunet evaluate` writes, a JSON object"):
        card(model, measured)
    (measured / "metrics.json").write_text("{}", "utf-8")
    with pytest.raises(HyMUNetError, match="an evaluation lacks 'data'"):
        card(model, measured)
    with pytest.raises(HyMUNetError, match="robustness given lacks 'fell_by'"):
        card_numbers([], dict.fromkeys(("data", "split", "tta", "n", "groups", "notes"), 0))


@pytest.mark.parametrize("name", pretrained_names())
def test_cards_in_the_documents_are_those_of_the_packaged_models(name):
    path = find_model(name)
    written = (REPOSITORY / "docs" / "models" / f"{name}.md").read_text("utf-8")
    expected = model_card(name, read_info(path), path.stat().st_size)
    assert written == expected, f"hymunet card {name} --output docs/models/{name}.md"
