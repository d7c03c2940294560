"""Options are checked, written and read back."""

from pathlib import Path

import pytest
import yaml

from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions, config_text, read_config, run_settings


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
