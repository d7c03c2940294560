"""Between training and judging: post-processing is chosen once, on validation cases alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hymunet import Predictor, TrainOptions, evaluate, train
from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import read_image
from hymunet.data.phantoms import write_phantoms
from hymunet.inference.postprocess import FILL_HOLES, KEEP_LARGEST, Postprocess
from hymunet.network.model_file import read_info, replace_info
from hymunet.training.fit import fit
from hymunet.workflows.after_training import choose_after_training

OPTIONS = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "moles", 16, size=(40, 48))


def test_train_chooses_on_its_validation_cases_once(data, tmp_path, capsys):
    result = train(data, output=tmp_path / "run", options=OPTIONS)
    said = " ".join(capsys.readouterr().err.split())
    info = read_info(result.model)
    record = info["postprocess_choice"]
    assert record["cases"] == sorted(info["cases"]["val"])
    assert [row["operation"] for row in record["table"]] == [KEEP_LARGEST, FILL_HOLES]
    kept = [row["operation"] for row in record["table"] if row["chosen"]]
    assert info.get("postprocess", {}) == ({"foreground": kept} if kept else {})
    assert said.count("post-processing: ") == max(1, len(kept))
    # what is in the file is not chosen again, and is what the report is on
    changed = info | {"postprocess": {"foreground": [KEEP_LARGEST, FILL_HOLES]}}
    replace_info(result.model, changed)
    again = train(data, output=tmp_path / "run", options=OPTIONS)
    assert read_info(result.model) == changed
    found = evaluate(result.model, data, split_file=tmp_path / "run" / "split.json", split="test")
    assert again.dice == found.summary["classes"]["foreground"]["per_image"]["dice"]["mean"]
    assert "post-processed" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_what_helps_reaches_the_model_and_is_said(data, tmp_path, capsys):
    """The reference of each validation case is the network's own mask, cleaned up."""
    copy = shutil.copytree(data, tmp_path / "moles")
    finished = fit(copy, tmp_path / "run", OPTIONS)
    best = finished.folder.best
    images = {case.id: case.channels[0] for case in finished.dataset.cases}
    probabilities = [Predictor(best)(images[name]).probability for name in finished.split.val]
    replace_info(best, read_info(best) | {"threshold": float(np.median(probabilities))})
    clean = Postprocess(("foreground",), operations={"foreground": (KEEP_LARGEST,)})
    changed = 0
    for case in finished.dataset.cases:
        if case.id in finished.split.val:
            mask = Predictor(best)(case.channels[0]).mask
            Image.fromarray(255 * clean(mask)).save(case.label)
            changed += not np.array_equal(clean(mask), mask)
    assert changed == len(finished.split.val)  # or there would be nothing to choose
    capsys.readouterr()
    choice = choose_after_training(finished, OPTIONS, Console(stderr=True))
    said = " ".join(capsys.readouterr().err.split())
    assert choice.table[0]["dice_after"] == 1.0
    assert read_info(best)["postprocess"] == {"foreground": [KEEP_LARGEST]}
    assert said == (
        "post-processing: foreground: keep largest: validation Dice "
        f"{choice.table[0]['dice_before']:.4f} -> 1.0000, {changed} of {changed} cases changed"
    )
    assert Predictor(best).postprocess.describe() == "foreground: keep largest"


def test_validation_that_chooses_nothing_chooses_no_post_processing(data, tmp_path, capsys):
    options = replace(OPTIONS, select="last")
    finished = fit(data, tmp_path / "run", options)
    before = finished.folder.best.read_bytes()
    assert choose_after_training(finished, options, Console(stderr=True)) is None
    assert "validation chooses nothing" in " ".join(capsys.readouterr().err.split())
    assert finished.folder.best.read_bytes() == before


def test_the_cases_are_those_of_the_split(data, tmp_path):
    finished = fit(data, tmp_path / "run", OPTIONS)
    choice = choose_after_training(finished, OPTIONS, Console(stderr=True))
    assert choice.n == len(finished.split.val)
    hashes = [
        case_hash(read_image(data / "images" / f"{name}.png", 3).pixels)
        for name in finished.split.val
    ]
    record = read_info(finished.folder.best)["postprocess_choice"]
    assert record["cases"] == sorted(hashes)
    assert record["table"] == choice.table
    assert np.isfinite([row["dice_after"] for row in choice.table]).all()
