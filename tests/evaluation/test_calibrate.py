"""The verb on drawn lesions: figures against masks that are really cut, and what it writes."""

import csv
import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from hymunet.cli import main
from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import Image, read_image
from hymunet.data.mask_reading import read_mask
from hymunet.errors import HyMUNetError
from hymunet.evaluation.calibrate import calibrate
from hymunet.evaluation.calibrate_terminal import bar
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.probabilities import TOP_LABEL
from hymunet.evaluation.robustness import robustness
from hymunet.evaluation.seen import CUT, OPTIMISTIC, WATCHED, known_cases
from hymunet.metrics.overlap import count, dice
from tests.evaluation.small_models import save_small, write_data

VAL = ["phantom_0002", "phantom_0003", "phantom_0004"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "phantoms")


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return save_small(data, tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def copy(model, tmp_path):
    """The model's file, to be written into."""
    return shutil.copy(model, tmp_path / "copy.safetensors")


def predictions(data, model, names, **options):
    """(probability, truth) of each case."""
    from hymunet.inference.predictor import Predictor

    predictor = Predictor(model, **options)
    return [
        (
            predictor(data / "images" / f"{name}.png").probability,
            read_mask(data / "masks" / f"{name}.png").labels,
        )
        for name in names
    ]


def stored(path):
    """Every tensor's type, shape and bytes."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {name: (str(t.dtype), t.shape, t.numpy().tobytes()) for name, t in tensors.items()}


def test_figures_against_the_pixels_themselves(data, model, tmp_path, capsys):
    result = calibrate(model, data, split="val", output=tmp_path)
    pairs = [(p[0], t == 1) for p, t in predictions(data, model, VAL)]
    p = np.concatenate([pair[0].ravel() for pair in pairs]).astype(np.float64)
    y = np.concatenate([pair[1].ravel() for pair in pairs])
    found = result.summary["probabilities"]["lesion"]
    error = sum(
        abs(p[chosen].sum() - y[chosen].sum()) / p.size
        for chosen in (np.clip(p * 15, 0, 14).astype(int) == k for k in range(15))
    )
    assert found["ece"]["mean"] == pytest.approx(error, rel=1e-5)
    assert found["brier"]["mean"] == pytest.approx(np.square(p - y).mean(), rel=1e-5)
    assert found["ece"]["low"] < found["ece"]["mean"] <= found["ece"]["high"] + 0.05
    chosen = result.summary["threshold"]
    means = {
        row["threshold"]: np.mean([dice(count(q >= row["threshold"], t)) for q, t in pairs])
        for row in chosen["curve"]
    }
    assert [row["dice"] for row in chosen["curve"]] == pytest.approx(list(means.values()))
    assert means[chosen["chosen"]] == max(means.values())
    assert chosen["gain"]["mean"] == pytest.approx(max(means.values()) - means[0.5])
    assert chosen["gain_cross_fitted"]["mean"] <= chosen["gain"]["mean"] + 1e-12
    first, last = chosen["flat"]
    assert first <= chosen["chosen"] <= last
    inside = [value for t, value in means.items() if first <= t <= last]
    assert min(inside) >= max(means.values()) - chosen["flat_by"] - 1e-12

    written = json.loads((tmp_path / "calibration.json").read_text("utf-8"))
    assert written["threshold"]["chosen"] == chosen["chosen"]
    assert (written["n"], written["written"]) == (3, None)
    assert written["made"]["command"].startswith("hymunet calibrate ")
    with open(tmp_path / "thresholds.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["threshold"]) for row in rows] == [k / 100 for k in range(5, 96)]
    printed = capsys.readouterr().out
    assert f"{found['ece']['mean']:.4f}" in printed
    assert f"best threshold for Dice: {chosen['chosen']:.2f}" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_writing_changes_the_threshold_and_not_a_bit_of_the_weights(data, copy, capsys):
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import read_info

    before, info = stored(copy), read_info(copy)
    assert main(["calibrate", str(copy), str(data), "--split", "val", "--write", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == str(copy)
    assert stored(copy) == before
    threshold = found["threshold"]["chosen"]
    assert threshold != 0.5
    after = read_info(copy)
    assert {name: after[name] for name in info} == info
    assert set(after) - set(info) == {"threshold", "calibration"}
    assert Predictor(copy).threshold == after["threshold"] == threshold
    images = [read_image(data / "images" / f"{name}.png") for name in VAL]
    assert after["calibration"]["cases"] == sorted(case_hash(image.pixels) for image in images)
    assert list(copy.parent.iterdir()) == [copy]
    # what evaluate and robustness score is the mask at that threshold, and they say who chose it
    scored = evaluate(copy, data, split="val")
    expected = found["threshold"]["at_chosen"]["dice"]["mean"]
    assert scored.summary["classes"]["lesion"]["per_image"]["dice"]["mean"] == pytest.approx(
        expected
    )
    assert [row["seen"] for row in scored.cases] == ["threshold"] * 3
    assert any(CUT in note for note in scored.notes)
    assert any(CUT in note for note in robustness(copy, data, split="val", limit=1).notes)
    assert not any(CUT in note for note in evaluate(copy, data, split="test").notes)


def test_without_writing_the_file_stays(data, model):
    before = model.read_bytes()
    calibrate(model, data, split="val", metric="iou")
    assert model.read_bytes() == before


def test_the_metric_chooses(data, model):
    for metric in ("dice", "iou"):
        chosen = calibrate(model, data, split="val", metric=metric).summary["threshold"]
        best = max(chosen["curve"], key=lambda row: row[metric])
        assert chosen["at_chosen"][metric]["mean"] == pytest.approx(best[metric])
        assert chosen["chosen"] == chosen["best"][metric]


def test_what_must_not_choose_is_refused(data, copy, tmp_path, monkeypatch):
    before = copy.read_bytes()
    with pytest.raises(HyMUNetError, match="2 of 7 cases were trained on: phantom_0000, phan"):
        calibrate(copy, data, write=True, output=tmp_path / "out")
    with pytest.raises(HyMUNetError, match="--write and --force do not go together"):
        calibrate(copy, data, split="train", write=True, force=True)
    softmax = save_small(
        data, tmp_path / "softmax.safetensors", num_classes=2, activation="softmax"
    )
    with pytest.raises(HyMUNetError, match=r"most probable class \(softmax\) and has none"):
        calibrate(softmax, data, split="val", write=True)
    with pytest.raises(HyMUNetError, match="calibrate has to run the model"):
        calibrate(data / "masks", data)
    import hymunet

    monkeypatch.setattr(hymunet, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(HyMUNetError, match=r"belongs to the installed package .* copy it"):
        calibrate(copy, data, split="val", write=True)
    assert copy.read_bytes() == before
    assert list((tmp_path / "out").iterdir()) == []
    forced = calibrate(copy, data, split="train", force=True)
    assert forced.summary["forced"]


def test_softmax_is_judged_by_its_most_probable_class(data, tmp_path, capsys):
    model = save_small(data, tmp_path / "softmax.safetensors", num_classes=2, activation="softmax")
    result = calibrate(model, data, split="val", output=tmp_path / "out")
    pairs = predictions(data, model, VAL)
    top = np.concatenate([p.max(axis=0).ravel() for p, _ in pairs]).astype(np.float64)
    right = np.concatenate([(p.argmax(axis=0) == t).ravel() for p, t in pairs])
    bins = np.clip(top * 15, 0, 14).astype(int)
    error = sum(abs(top[bins == k].sum() - right[bins == k].sum()) for k in range(15)) / top.size
    found = result.summary["probabilities"][TOP_LABEL]
    assert found["ece"]["mean"] == pytest.approx(error, rel=1e-5)
    brier = [
        sum(np.square((t == k) - p[k].astype(np.float64)) for k in range(2)).mean()
        for p, t in pairs
    ]
    assert found["brier"]["mean"] == pytest.approx(np.mean(brier), rel=1e-5)
    assert result.summary["threshold"] is None
    assert "threshold" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "thresholds.csv").exists()


def test_of_nested_structures_the_one_threshold_is_that_of_the_masks(data, tmp_path):
    """At any threshold: what evaluate says of the masks that the predictor cuts there."""
    folder = tmp_path / "data"
    shutil.copytree(data / "images", folder / "images")
    (folder / "masks").mkdir()
    from hymunet.data.mask_writing import write_mask

    for path in (data / "masks").iterdir():
        labels = read_mask(path).labels
        labels[:, labels.shape[1] // 2 :] *= 2
        write_mask(folder / "masks" / path.name, labels, num_labels=3)
    shutil.copy(data / "split.csv", folder)
    model = save_small(data, tmp_path / "nested.safetensors", num_classes=2)
    chosen = calibrate(model, folder, split="val").summary["threshold"]
    from hymunet.network.model_file import read_info, replace_info

    for row in (chosen["curve"][20], chosen["curve"][45], chosen["curve"][60]):
        replace_info(model, read_info(model) | {"threshold": row["threshold"]})
        scored = evaluate(model, folder, split="val").summary["mean_of_classes"]
        assert scored["dice"]["mean"] == pytest.approx(row["dice"])
        assert scored["iou"]["mean"] == pytest.approx(row["iou"])


def test_a_case_that_chose_the_threshold_is_known_by_its_pixels():
    images = [Image(np.full((3, 4, 5), shade, np.uint8)) for shade in range(4)]
    train, val, other = (case_hash(image.pixels) for image in images[:3])

    def known(select: str):
        return known_cases(
            {
                "cases": {"train": [train], "val": [val]},
                "training": {"options": {"select": select}},
                "calibration": {"cases": [train, val, other]},
            }
        )

    assert [known("last").part_of(image) for image in images] == [
        "train", "threshold", "threshold", ""
    ]  # fmt: skip
    # what chose the epoch is said first: it weighs more
    assert [known("best").part_of(image) for image in images] == ["train", "val", "threshold", ""]
    (note,) = known("last").notes({"a": "threshold", "b": ""})
    assert note == f"1 of 2 cases is known to the model; {CUT}"
    assert len({CUT, OPTIMISTIC, WATCHED}) == 3


def test_bars():
    assert bar(None, None) == ""
    assert bar(0.5, 0.5) == "█" * 15 + "|"
    assert bar(1.0, 1.0) == "█" * 29 + "|"
    assert bar(0.0, 0.9) == " " * 27 + "|"
    assert bar(0.9, 0.2) == "█" * 6 + "|" + "█" * 20
