"""Packaged weights: names that resolve everywhere, half precision that changes nothing much."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hymunet
from hymunet import HyMUNet, Predictor, hymunet_tiny, pretrained_names
from hymunet.cli import main
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import (
    HALF_ABOVE,
    find_model,
    load_model,
    model_identity,
    read_info,
    replace_info,
    save_model,
)
from hymunet.network.pretrained import WEIGHTS, headline_scores, models, pretrained_file

PACKAGE = Path(hymunet.__file__).resolve().parent
REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = pretrained_names()


def test_there_are_packaged_models():
    assert NAMES, f"no weights in {WEIGHTS}: a release without them breaks every name"
    assert sorted(f"{name}.safetensors" for name in NAMES) == sorted(
        path.name for path in WEIGHTS.glob("*.safetensors")
    )


def test_they_are_small_enough_to_be_downloaded_with_the_code():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 8e6


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_model(name)
    assert path == WEIGHTS / f"{name}.safetensors"
    assert find_model(Path(name)) == path  # as the command line passes it
    network = HyMUNet.from_pretrained(name)
    for key, value in load_model(path)[0].state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
        assert value.dtype != torch.float16
    predictor = Predictor(name)
    prediction = predictor(draw_lesion(1, (72, 96)).image)
    assert prediction.mask.shape == (72, 96)
    assert predictor.info["domain"]


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_model_says_what_it_may_be_used_for(name):
    info = read_info(name)
    assert "not a medical device" in info["not_a_medical_device"]
    assert info["training"]["data"]
    assert info["cases"]["train"], "evaluate could not refuse the cases it was trained on"
    assert info["training"]["split_sha256"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert info["licence"] in project["license"].split(" AND ")
    assert "src/hymunet/weights/NOTICE" in project["license-files"]
    notice = (WEIGHTS / "NOTICE").read_text(encoding="utf-8")
    assert info["licence"] in notice
    assert info["licence_url"] in notice
    assert name.split("-")[0] in notice
    for source in info["sources"]:
        assert source.split()[-1] in notice, "what is to be cited stands in the NOTICE too"
    # written by a run on someone's machine, read by everyone
    told = json.dumps({key: value for key, value in info.items() if key != "cases"})
    assert str(Path.home()) not in told
    assert "/runs/" not in told


def test_names_resolve_in_an_installed_copy(tmp_path):
    """As a wheel lays the package out, from a folder that is not the repository."""
    site = tmp_path / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, site / "hymunet", ignore=ignored)
    code = (
        "import hymunet, json; from hymunet.network.pretrained import pretrained_file;"
        "print(json.dumps([[n, str(pretrained_file(n))] for n in hymunet.pretrained_names()]))"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [name for name, _ in found] == NAMES
    for name, path in found:
        assert Path(path) == site / "hymunet" / "weights" / f"{name}.safetensors"
        assert Path(path).read_bytes() == (WEIGHTS / f"{name}.safetensors").read_bytes()


def test_listing_names_loads_no_torch():
    code = "import sys, hymunet; hymunet.pretrained_names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_path_that_exists_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = NAMES[0]
    Path(name).mkdir()
    with pytest.raises(HyMUNetError, match=r"holds no best\.safetensors; .* has this name: rename"):
        find_model(name)
    (Path(name) / "best.safetensors").write_bytes(b"mine")
    assert find_model(name) == Path(name) / "best.safetensors"
    shutil.rmtree(name)
    Path(name).write_bytes(b"mine too")
    assert find_model(name) == Path(name)


def test_an_unknown_name_lists_those_there_are(tmp_path):
    wrong = NAMES[0].upper()[:-1]
    with pytest.raises(HyMUNetError) as error:
        find_model(wrong)
    assert f"did you mean {NAMES[0]}?" in str(error.value)
    for name in NAMES:
        assert name in str(error.value).split("packaged model:")[1]
    with pytest.raises(HyMUNetError) as error:  # a path is not a misspelt name
        find_model(tmp_path / wrong)
    assert "did you mean" not in str(error.value)
    with pytest.raises(HyMUNetError, match="; give one, such as"):
        find_model("nothing like it")
    assert pretrained_file(f"../weights/{NAMES[0]}") is None
    assert pretrained_file("") is None


def test_models_as_a_table_and_as_json(capsys):
    rows = models()
    shown = " ".join(capsys.readouterr().out.split())
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert row["name"] in shown
        assert row["megabytes"] == round((WEIGHTS / f"{row['name']}.safetensors").stat().st_size
                                         / 1e6, 2)  # fmt: skip
        network = HyMUNet.from_pretrained(row["name"])
        assert row["parameters"] == sum(p.numel() for p in network.parameters())
        assert row["licence"] == read_info(row["name"])["licence"]
    assert "not a medical device" in shown
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(rows))


def test_a_packaged_model_that_keeps_a_miss_rate_says_so(tmp_path, monkeypatch, capsys):
    record = {"miss_rate": 0.1, "threshold": 0.25, "n": 12, "tta": False, "data": "drawn moles"}
    network = HyMUNet(3, 1, dims=(4, 8), depths=(1, 1), d_state=2, stages="CM")
    info = {"threshold": 0.25, "domain": "moles"}
    save_model(tmp_path / "plain.safetensors", network, info)
    save_model(tmp_path / "careful.safetensors", network, info | {"risk_control": record})
    monkeypatch.setattr("hymunet.network.pretrained.WEIGHTS", tmp_path)
    promises = {row["name"]: (row["threshold"], row["promise"]) for row in models(json=True)}
    promise = "on average at most 10 % of the structure missed; set on 12 cases of drawn moles"
    assert promises == {"plain": (0.25, None), "careful": (0.25, promise)}
    capsys.readouterr()
    models()
    assert "at most 10 %" in " ".join(capsys.readouterr().out.split())


def test_info_of_a_name(capsys):
    name, metadata = NAMES[0], read_info(NAMES[0])
    assert main(["info", name, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metadata"]["licence"] == metadata["licence"]
    assert printed["metadata"]["training"] == metadata["training"]
    side = max(metadata["preprocess"]["image_size"])
    assert printed["summary"]["image_size"] == [side, side]
    assert main(["info", name]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (metadata["licence"], metadata["domain"], metadata["training"]["data"],
                 "not a medical device"):  # fmt: skip
        assert text in shown


def test_scores_of_a_card():
    means = {"mean": 0.8, "low": 0.7, "high": 0.9}
    one = {"data": "set", "split": "val", "n": 3, "tta": False}
    one |= {"classes": {"lesion": {"per_image": {"dice": means, "iou": means | {"mean": 0.6}}}}}
    (score,) = headline_scores({"card": {"evaluations": [one]}})
    assert (score["dice"]["mean"], score["iou"]["mean"]) == (0.8, 0.6)
    assert (score["data"], score["split"], score["n"], score["tta"]) == ("set", "val", 3, False)
    several = one | {"mean_of_classes": {"dice": means | {"mean": 0.5}, "iou": means}}
    assert headline_scores({"card": {"evaluations": [several]}})[0]["dice"]["mean"] == 0.5
    assert headline_scores({}) == []


# half precision


@pytest.fixture(scope="module")
def network():
    """The tiny preset with batch statistics as after training, and logits of a useful size."""
    torch.manual_seed(1)
    network = hymunet_tiny()
    with torch.no_grad():
        for _ in range(20):
            network.train()(torch.rand(4, 3, 32, 32))
        network.head.logits.weight *= 8
    return network.eval()


def test_half_precision_halves_the_file_and_hardly_moves_a_probability(network, tmp_path):
    full = save_model(tmp_path / "full", network)
    half = save_model(tmp_path / "half", network, half=True)
    assert 0.5 < half.stat().st_size / full.stat().st_size < 0.56
    spread = []
    for seed in range(4):
        image = draw_lesion(seed, (64, 96)).image
        one, other = (Predictor(path, device="cpu")(image).probability for path in (full, half))
        assert np.abs(one - other).max() < 2e-3
        spread.append(np.ptp(one))
    assert max(spread) > 0.05  # else the pictures would tell nothing


def test_what_is_stored_in_which_precision(network, tmp_path):
    stored = load_file(save_model(tmp_path / "half", network, half=True))
    for name, value in network.state_dict().items():
        small = not value.is_floating_point() or value.numel() <= HALF_ABOVE
        assert stored[name].dtype == (value.dtype if small else torch.float16), name
        assert torch.equal(stored[name], value if small else value.half()), name
    assert {value.dtype for value in stored.values()} == {
        torch.float16, torch.float32, torch.int64
    }  # fmt: skip


@pytest.mark.parametrize("value", [65520.0, -1e6, float("inf"), float("nan")])
def test_what_float16_cannot_hold_stays_float32(network, tmp_path, value):
    name, weight = max(network.named_parameters(), key=lambda item: item[1].numel())
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.view(-1)[7] = value
        stored = load_file(save_model(tmp_path / "half", network, half=True))[name]
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert stored.dtype == torch.float32
    torch.testing.assert_close(stored.view(-1)[7].item(), value, equal_nan=True)


def test_equal_models_are_equal_files_in_half_precision_too(network, tmp_path):
    info = {"b": [1, 2], "a": {"z": 0.1}}
    one = save_model(tmp_path / "one", network, info, half=True)
    reordered = {"a": {"z": 0.1}, "b": [1, 2]}
    other = save_model(tmp_path / "other", load_model(one)[0], reordered, half=True)
    assert one.read_bytes() == other.read_bytes()


# other metadata for the same weights


def test_other_metadata_leave_the_weights_bit_by_bit(network, tmp_path):
    path = save_model(tmp_path / "half", network, {"licence": "CC0-1.0"}, half=True)
    before, identity = load_file(path), model_identity(path)
    info = read_info(path)
    assert replace_info(path, info | {"card": {"n": 3}, "architecture": "nonsense"}) == path
    assert read_info(path) == info | {"card": {"n": 3}}
    after = load_file(path)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    assert model_identity(path) == identity
    replace_info(path, info)
    again = save_model(tmp_path / "again", network, {"licence": "CC0-1.0"}, half=True)
    assert path.read_bytes() == again.read_bytes()


def test_the_identity_follows_weights_and_threshold(network, tmp_path):
    path = save_model(tmp_path / "full", network)
    full = model_identity(path)
    assert full["threshold"] == 0.5
    assert model_identity(save_model(tmp_path / "half", network, half=True)) != full
    replace_info(path, {"threshold": 0.4})
    assert model_identity(path) == full | {"threshold": 0.4}
    bias = network.head.logits.bias
    with torch.no_grad():
        bias += 1e-3
        other = model_identity(save_model(tmp_path / "other", network))
        bias -= 1e-3
    assert other["weights_sha256"] != full["weights_sha256"]
