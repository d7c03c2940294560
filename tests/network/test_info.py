"""`hymunet info`: presets and model files, as a table and as JSON."""

import json
from dataclasses import asdict

import pytest

from hymunet import HyMUNet
from hymunet.cli import main
from hymunet.errors import HyMUNetError
from hymunet.network.hymunet import PRESETS
from hymunet.network.info import info
from hymunet.network.model_file import save_model
from hymunet.network.summary import summarise

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset(preset, capsys):
    result = info(preset=preset, image_size=64)
    network = PRESETS[preset]()
    assert result["summary"] == asdict(summarise(network, (64, 64)))
    assert result["config"] == asdict(network.config)
    assert result["metadata"] == {}
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{result['summary']['parameters']:,}" in shown
    assert f"HyM-UNet {preset}: CCMM at 64 x 64" in shown


def test_json_holds_the_same_numbers(capsys):
    result = info(preset="small", image_size=32, num_classes=3, json=True)
    # tuples are lists in JSON
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result))
    assert result["summary"]["parts"][-1]["shape"] == (3, 16, 16)


def test_options_reach_the_network():
    result = info(in_channels=4, num_classes=2, stages="CCAA", skip="concat", image_size=32)
    config = result["config"]
    assert (config["in_channels"], config["num_classes"]) == (4, 2)
    assert (config["stages"], config["skip"]) == ("CCAA", "concat")
    assert result["summary"]["scan_updates"] == 0


def test_volumes_and_sizes_that_are_no_multiple():
    assert info(spatial_dims=3, image_size=17)["summary"]["image_size"] == (32, 32, 32)
    assert info(image_size=1)["summary"]["image_size"] == (16, 16)


def test_a_model_file_and_its_metadata(tmp_path, capsys):
    network = HyMUNet(2, 1, spatial_dims=3, conv_norm="group", **TOY)
    metadata = {
        "classes": ["lesion"],
        "licence": "CC-BY-4.0",
        "cases": {"train": ["hash"]},
        "training": {"data": "ISIC 2018 Task 1"},
    }
    path = save_model(tmp_path / "toy.safetensors", network, metadata)
    result = info(path, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(result))
    assert result["summary"] == asdict(summarise(network, (64, 64, 64)))  # default for volumes
    assert printed["metadata"]["licence"] == "CC-BY-4.0"
    assert printed["metadata"]["classes"] == ["lesion"]
    assert "cases" not in printed["metadata"]  # thousands of hashes
    info(path, image_size=16)
    shown = capsys.readouterr().out
    assert "CC-BY-4.0" in shown
    assert "ISIC 2018 Task 1" in shown


def test_from_the_command_line(tmp_path, capsys):
    assert main(["info", "--preset", "tiny", "--image-size", "32", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["summary"] == json.loads(
        json.dumps(asdict(summarise(PRESETS["tiny"](), (32, 32))))
    )
    assert main(["info", str(tmp_path / "none.safetensors")]) == 1
    assert "there is no model file" in capsys.readouterr().err
    assert main(["info", "--stages", "CCXX"]) == 1
    assert "letters C (convolution), M (Mamba)" in capsys.readouterr().err


def test_what_cannot_be():
    with pytest.raises(HyMUNetError, match="stages must be two or more of the letters"):
        info(stages="X")
    with pytest.raises(HyMUNetError, match="dims must be 3 positive numbers"):
        info(stages="CCM")
    with pytest.raises(HyMUNetError, match="image_size must be 1 pixel or more, not 0"):
        info(image_size=0)
    with pytest.raises(HyMUNetError, match="preset must be one of tiny, small, base, not 'huge'"):
        info(preset="huge")
