"""The verbs that join everything: train with its report, and the demo."""

import csv
import json

import pytest

from hymunet import TrainOptions, train
from hymunet.cli import main
from hymunet.data.phantoms import write_phantoms


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_train_evaluates_the_held_out_part_and_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_phantoms(tmp_path / "moles", 16, size=(40, 48))
    options = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")
    result = train(data, options=options)
    assert result.folder.as_posix() == "runs/moles-seed0"
    with open(result.folder / "cases.csv", newline="") as file:
        scored = [row["case"] for row in csv.DictReader(file)]
    split = json.loads((result.folder / "split.json").read_text())
    assert sorted(scored) == sorted(split["test"])
    assert 0.0 <= result.dice <= 1.0
    assert result.report.stat().st_size > 10_000
    # the same command again: nothing to train, the same figures
    assert train(data, options=options).dice == result.dice


def test_the_demo_goes_all_the_way(tmp_path, capsys):
    folder = tmp_path / "demo"
    arguments = ["demo", "--output", str(folder), "--cases", "20", "--epochs", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().err
    assert "held-out Dice" in printed
    assert "hymunet train MY_DATA" in printed
    assert (folder / "run" / "report.html").is_file()
    assert len(list((folder / "predictions").glob("*_overlay.png"))) == 3
    assert len(list((folder / "data" / "images").iterdir())) == 20
    assert main(arguments) == 0  # and again on the same folder


def test_strings_do_as_paths_in_python(tmp_path):
    from hymunet import Predictor, evaluate, predict

    data = str(write_phantoms(tmp_path / "moles", 12, size=(40, 48)))
    options = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")
    result = train(data, output=str(tmp_path / "run"), options=options)
    photo = sorted((tmp_path / "moles" / "images").iterdir())[0]
    assert Predictor(str(result.model))(str(photo)).mask.shape == (40, 48)
    predict(str(photo), model=str(result.folder), output=str(tmp_path / "masks"))
    assert (tmp_path / "masks" / photo.name).is_file()
    evaluate(str(result.folder), data, split="test", output=str(tmp_path / "report"))
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_configuration_and_named_folders_in_python(tmp_path):
    data = write_phantoms(tmp_path / "moles", 12, size=(40, 48))
    (data / "images").rename(data / "photos")
    (data / "masks").rename(data / "outlines")
    options = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")
    folders = {"images": "photos", "masks": "outlines"}
    first = train(data, output=tmp_path / "run", options=options, **folders)
    config = first.folder / "config.yaml"
    assert train(data, output=tmp_path / "again", config=config).dice == first.dice
    assert train(data, output=tmp_path / "named", config=config, **folders).dice == first.dice
