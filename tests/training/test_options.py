"""Options are checked, written and read back."""

from pathlib import Path

import pytest
import yaml

from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions, model_name, seconds_of
from hymunet.training.run_config import config_text, read_config, run_settings, with_defaults


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, not 0"),
        ({"image_size": 8}, "image_size must be 16 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more"),
        ({"workers": -1}, "workers must be 'auto' or 0 or more"),
        ({"seed": 10**30}, "seed below"),
        ({"structures": 300}, "structures may be 254 at most"),
        ({"dice_weight": -1.0}, "loss weights must be 0 or more"),
        (
            {"cross_entropy_weight": 0.0, "dice_weight": 0.0, "boundary_weight": 0.0},
            "not all 0",
        ),
        ({"freeze_encoder": True}, r"freeze_encoder is about .* name it by init \(--init MODEL\)"),
        ({"encoder_rate": 0.1}, "encoder_rate is about the encoder of a trained model"),
        (
            {"init": "x", "encoder_rate": 0.0},
            "above 0 and at most 1, not 0.0; .* is freeze_encoder",
        ),
        ({"init": "x", "encoder_rate": 1.5}, "above 0 and at most 1, not 1.5"),
        ({"init": "x", "encoder_rate": float("nan")}, "above 0 and at most 1, not nan"),
        ({"init": "x", "encoder_rate": 0.1, "freeze_encoder": True}, "contradict each other"),
        ({"init": ""}, "init is empty"),
    ],
)
def test_impossible_values_are_refused(values, words):
    with pytest.raises(HyMUNetError, match=words):
        TrainOptions(**values)


def test_a_configuration_round_trips(tmp_path):
    options = TrainOptions(preset="small", epochs=7, workers=2, augment=False)
    path = tmp_path / "config.yaml"
    folders = {"images": Path("photos"), "masks": Path("outlines")}
    path.write_text(config_text(run_settings(options, tmp_path, Path("runs/x"), **folders)))
    values = read_config(path)
    assert (values.pop("data"), values.pop("output")) == (str(tmp_path), "runs/x")
    assert (values.pop("images"), values.pop("masks")) == ("photos", "outlines")
    assert TrainOptions(**values) == options


def test_unknown_entries_and_broken_files_are_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": "x", "learning_rat": 1}))
    with pytest.raises(HyMUNetError, match="no options of train: learning_rat"):
        read_config(path)
    path.write_text("a: [1,")
    with pytest.raises(HyMUNetError, match="is not YAML"):
        read_config(path)
    path.write_text("- a list")
    with pytest.raises(HyMUNetError, match="no mapping"):
        read_config(path)
    with pytest.raises(HyMUNetError, match="no configuration file"):
        read_config(tmp_path / "missing.yaml")


def test_from_scratch_defaults_are_filled_in_and_from_a_model_its_own_are_left_open():
    options = TrainOptions()
    assert (options.preset, options.stages, options.skip) == (None, "CCMM", "mgf")
    options = TrainOptions(init="isic2018-small")
    assert (options.preset, options.stages, options.skip) == (None, None, None)
    assert TrainOptions(init=Path("run")).init == "run"


def test_a_model_is_named_by_its_path_and_packaged_weights_by_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-run").mkdir()
    for given, kept in (
        ("isic2018-small", "isic2018-small"),
        ("a-run", str(tmp_path / "a-run")),
        ("gone.safetensors", str(tmp_path / "gone.safetensors")),
        ("gone/run", str(tmp_path / "gone" / "run")),
    ):
        options = TrainOptions(init=given, freeze_encoder=True)
        text = config_text(
            run_settings(options, tmp_path, Path("run"), split_file=Path("parts.csv"))
        )
        (tmp_path / "config.yaml").write_text(text)
        values = read_config(tmp_path / "config.yaml")
        assert values.pop("split_file") == str(tmp_path / "parts.csv")
        assert values["init"] == kept
        assert "null" not in text  # what is not given is not there
        del values["data"], values["output"]
        assert TrainOptions(**values) == TrainOptions(init=kept, freeze_encoder=True)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("isic2018-small", "isic2018-small"),
        ("models/v1.2.safetensors", "v1.2"),
        ("runs/moles-tiny-seed0", "moles-tiny-seed0"),
        ("runs/moles-tiny-seed0/", "moles-tiny-seed0"),
        ("runs/moles-tiny-seed0/best.safetensors", "moles-tiny-seed0"),
    ],
)
def test_a_model_is_called_by_its_file_or_its_run(model, name):
    assert model_name(model) == name
    assert TrainOptions(init=model).start == f"from-{name}"


def test_a_run_without_a_model_is_called_by_its_preset():
    assert TrainOptions().start == ""  # the plan chooses
    assert TrainOptions(preset="base").start == "base"


def test_options_younger_than_a_configuration_have_their_defaults():
    old = {"data": "x", "preset": "tiny", "epochs": 7}
    values = with_defaults(old)
    assert old.items() <= values.items()
    assert (values["freeze_encoder"], values["encoder_rate"]) == (False, 1.0)
    assert "init" not in values


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("2H", 7200)]
)
def test_a_budget_is_a_duration(text, seconds):
    assert seconds_of(text) == seconds
    assert TrainOptions(budget=text).budget == text


@pytest.mark.parametrize("text", ["", "45", "m", "0m", "1h-3m", "-5m", "soon"])
def test_other_words_are_no_budget(text):
    with pytest.raises(HyMUNetError, match="is written as 45m"):
        TrainOptions(budget=text)


def test_a_budget_and_epochs_contradict_each_other():
    with pytest.raises(HyMUNetError, match="give one of them"):
        TrainOptions(budget="1h", epochs=3)


def test_lists_from_yaml_are_what_was_typed(tmp_path):
    options = TrainOptions(patch_size=(32, 64, 64), spacing_mm=(3.0, 1.0, 1.0), resize="window")
    path = tmp_path / "config.yaml"
    path.write_text(config_text(run_settings(options, tmp_path, Path("run"))))
    values = read_config(path)
    del values["data"], values["output"]
    assert TrainOptions(**values) == options
