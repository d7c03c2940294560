"""From a run to packaged weights: the same bytes each time, terms named, nothing private inside."""

import json
import subprocess
import sys

import pytest
import torch

from hymunet import HyMUNet
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import load_model, read_info, save_model
from hymunet.workflows.ship import DATA_SETS, ship

SIZES = {"dims": (4, 8, 16, 64), "depths": (1, 1, 1, 1), "d_state": 2}
TERMS = DATA_SETS["ISIC 2018 Task 1"]


def make_run(folder, data="ISIC 2018 Task 1", finished=True, gain=1.0, **changes):
    """A run folder as training leaves it, around a small untrained network."""
    folder.mkdir(parents=True)
    torch.manual_seed(2)
    network = HyMUNet(3, 1, **SIZES)
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 32, 32))
        network.head.logits.weight *= gain
    info = {
        "classes": ["foreground"],
        "licence": None,
        "training": {
            "data": data,
            "options": {"preset": "tiny", "init": "/home/someone/models/old.safetensors"},
            "split_sha256": "ab12",
            "init": {"name": "models/old.safetensors", "cases": 3},
        },
        "cases": {"train": ["c1"], "val": ["c2"], "test": []},
    }
    save_model(folder / "best.safetensors", network, info | changes)
    provenance = {
        "command": "/home/someone/bin/hymunet train /home/someone/photos",
        "data": "/home/someone/photos",
        "machine": {"device": "a processor", "system": "Linux", "threads": 2},
        "training_seconds": 61.5,
        "epochs": 3,
        "versions": {"torch": "2.13.0"},
        "finished": finished,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    return folder


def test_what_is_shipped(tmp_path):
    run = make_run(tmp_path / "run")
    path = ship(run, "isic2018-toy", folder=tmp_path)
    assert path == tmp_path / "isic2018-toy.safetensors"
    network, info = load_model(path)
    for key in ("licence", "licence_url", "domain", "sources"):
        assert info[key] == TERMS[key]
    assert info["classes"] == ["lesion"]
    assert "not a medical device" in info["not_a_medical_device"]
    assert info["cases"] == {"train": ["c1"], "val": ["c2"], "test": []}
    training = info["training"]
    assert training["parameters"] == sum(p.numel() for p in network.parameters())
    assert (training["training_seconds"], training["epochs"]) == (61.5, 3)
    assert training["machine"]["device"] == "a processor"
    assert training["options"] == {"preset": "tiny", "init": "old.safetensors"}
    assert training["init"] == {"name": "old.safetensors", "cases": 3}
    assert "someone" not in json.dumps(info)
    original = load_model(run)[0].state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, original[name], rtol=2**-11, atol=2**-24)
    assert any(not torch.equal(value, original[name])
               for name, value in network.state_dict().items())  # fmt: skip


def test_equal_runs_give_equal_bytes(tmp_path):
    one = ship(make_run(tmp_path / "run"), "a", folder=tmp_path)
    other = ship(make_run(tmp_path / "elsewhere" / "run"), "b", folder=tmp_path)
    assert one.read_bytes() == other.read_bytes()
    before = one.read_bytes()
    assert ship(tmp_path / "run", "a", folder=tmp_path).read_bytes() == before


def test_a_model_file_without_a_run_and_terms_of_ones_own(tmp_path):
    run = make_run(tmp_path / "run", data="my photos")
    (run / "provenance.json").unlink()
    about = {"licence": "CC0-1.0", "domain": "moles", "reproduce": "make moles"}
    info = read_info(ship(run / "best.safetensors", "moles", about, tmp_path))
    assert {key: info[key] for key in about} == about
    assert info["classes"] == ["foreground"]


def test_old_figures_do_not_come_along(tmp_path):
    run = make_run(tmp_path / "run", card={"evaluations": []})
    assert "card" not in read_info(ship(run, "toy", folder=tmp_path))


def test_a_miss_rate_that_other_weights_keep_is_not_shipped(tmp_path):
    run = make_run(tmp_path / "run", threshold=0.2, risk_control={"miss_rate": 0.1})
    with pytest.raises(HyMUNetError, match="keeps a miss rate with these weights, and shipped"):
        ship(run, "toy", folder=tmp_path)
    assert not (tmp_path / "toy.safetensors").exists()


@pytest.mark.parametrize("name", ["ISIC", "a b", "../a", "a--b", "", "a.safetensors", "-a"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(HyMUNetError, match=r"lower-case letters, digits and single hyphens"):
        ship(tmp_path, name, folder=tmp_path)


def refused(run, tmp_path, match, **arguments):
    out = tmp_path / "weights"
    out.mkdir()
    with pytest.raises(HyMUNetError, match=match):
        ship(run, "toy", folder=out, **arguments)
    assert list(out.iterdir()) == []


def test_a_run_that_is_not_finished(tmp_path):
    refused(make_run(tmp_path / "run", finished=False), tmp_path, "is not finished; let it end")


def test_terms_that_nobody_named(tmp_path):
    run = make_run(tmp_path / "run", data="my photos")
    refused(run, tmp_path, "the licence and domain of .* 'my photos', must be named")


def test_a_licence_that_contradicts_the_data(tmp_path):
    """As after fine-tuning a model under another licence on ISIC's images."""
    run = make_run(tmp_path / "run", licence="CC-BY-SA-4.0")
    refused(run, tmp_path, "carries the licence CC-BY-SA-4.0, its training data CC-BY-NC-4.0")
    about = {"licence": "CC-BY-NC-4.0"}
    assert read_info(ship(run, "toy", about, tmp_path))["licence"] == "CC-BY-NC-4.0"


def test_weights_that_rounding_would_spoil(tmp_path):
    """Logits so large that the last digits of a weight decide."""
    run = make_run(tmp_path / "run", gain=1e4)
    refused(run, tmp_path, "half precision changes a probability by .* expected less than 0.002")


def test_the_command_refuses_in_words(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    command = [sys.executable, "-m", "hymunet.workflows.ship", str(run), "toy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: the run" in done.stderr
    assert "Traceback" not in done.stderr


def test_public_cases_are_named_by_their_ids_others_are_not(tmp_path):
    split = {"train": ["ISIC_1"], "val": ["ISIC_2"], "test": [], "seed": None, "notes": []}
    for data, about in (("ISIC 2018 Task 1", None), ("my photos", {"licence": "X", "domain": "y"})):
        run = make_run(tmp_path / data, data)
        (run / "split.json").write_text(json.dumps(split), encoding="utf-8")
        cases = read_info(ship(run, "toy", about, folder=tmp_path))["cases"]
        if about is None:
            assert cases == {"train": {"ISIC_1": "c1"}, "val": {"ISIC_2": "c2"}, "test": {}}
        else:
            assert cases == {"train": ["c1"], "val": ["c2"], "test": []}
