"""Models by the conventions of the Hugging Face Hub: a folder with its card; up, down, offline."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

import hymunet
from hymunet import HyMUNet, Predictor, pretrained_names
from hymunet.cli import main
from hymunet.data.phantoms import draw_lesion
from hymunet.deploy.hub import hub_card
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import load_model, model_identity, read_info, save_model
from hymunet.network.pretrained import pretrained_file
from tests.deploy.small_hub import small_hub

SIZES = {"stages": "CM", "dims": (4, 8), "depths": (1, 1), "d_state": 3}
NAME = pretrained_names()[0]
INFO = {
    "classes": ["lesion"],
    "licence": "CC-BY-NC-4.0",
    "cases": {"train": ["aa", "bb"]},
    "threshold": 0.4,
    "training": {"data": "Drawn moles"},
    "card": {"evaluations": []},
}


@pytest.fixture
def network():
    torch.manual_seed(1)
    return HyMUNet(3, 1, **SIZES).eval()


def front(readme: str) -> dict:
    """The Hub's entries of a card."""
    return yaml.safe_load(readme.split("---\n")[1])


def test_what_is_saved_comes_back(network, tmp_path):
    folder = network.save_pretrained(tmp_path / "toy", info=INFO)
    assert folder == tmp_path / "toy"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    again = HyMUNet.from_pretrained(folder)
    image = torch.rand(1, 3, 8, 12)
    assert torch.equal(again(image), network(image))
    assert HyMUNet(**json.loads((folder / "config.json").read_text())).config == network.config
    assert {name: read_info(folder)[name] for name in INFO} == INFO
    assert Predictor(folder).threshold == 0.4


def test_the_folder_of_a_packaged_model_is_that_model(tmp_path):
    """Its licence, its cases, its threshold, its very bytes."""
    folder = hymunet.save_pretrained(NAME, tmp_path / "mine")
    copied, source = folder / "model.safetensors", pretrained_file(NAME)
    assert copied.read_bytes() == source.read_bytes()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert front(readme)["license"] == "cc-by-nc-4.0"
    assert front(readme)["library_name"] == "hymunet"
    assert f"# {NAME}" in readme
    assert "Not a medical device" in readme
    picture = draw_lesion(3, (60, 80)).image
    one, other = (Predictor(model, device="cpu")(picture) for model in (folder, NAME))
    assert (one.probability == other.probability).all()
    # and through the network itself
    loaded = HyMUNet.from_pretrained(NAME).save_pretrained(tmp_path / "again")
    info, network = read_info(loaded), HyMUNet(**read_info(NAME)["architecture"])
    assert {**info, "architecture": 0} == {**read_info(NAME), "architecture": 0}
    assert HyMUNet(**info["architecture"]).config == network.config


def test_export_writes_the_same_folder(tmp_path, capsys):
    assert main(["export", NAME, "--format", "hub", "--output", str(tmp_path / "my out")]) == 0
    words = shlex.split(capsys.readouterr().err.partition("to share it: ")[2])
    assert words == ["hf", "upload", "OWNER/NAME", str(tmp_path / "my out")]
    folder = hymunet.save_pretrained(NAME, tmp_path / "mine")
    for path in folder.iterdir():
        assert (tmp_path / "my out" / path.name).read_bytes() == path.read_bytes()


def test_scores_do_not_outlive_the_weights_that_had_them(network, tmp_path):
    save_model(tmp_path / "old.safetensors", network, INFO)
    same = HyMUNet.from_pretrained(tmp_path / "old.safetensors")
    assert read_info(same.save_pretrained(tmp_path / "same"))["threshold"] == 0.4
    with torch.no_grad():
        same.head.logits.bias += 0.1
    info = read_info(same.save_pretrained(tmp_path / "further"))
    assert info["licence"] == INFO["licence"]
    assert info["cases"] == INFO["cases"]
    assert info["classes"] == INFO["classes"]
    assert info.keys() & {"card", "threshold"} == set()
    assert info["training"]["init"]["data"] == "Drawn moles"
    assert info["training"]["init"]["cases"] == 2


def test_a_new_model_in_an_old_folder(network, tmp_path):
    network.save_pretrained(tmp_path / "toy")
    other = HyMUNet(1, 2, **SIZES)
    other.save_pretrained(tmp_path / "toy")
    assert HyMUNet.from_pretrained(tmp_path / "toy").config == other.config


def test_metadata_of_a_file_are_its_own(tmp_path):
    with pytest.raises(HyMUNetError, match="holds its own metadata"):
        hymunet.save_pretrained(NAME, tmp_path / "mine", info={})
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("info", "entries"),
    [
        ({}, {}),
        ({"licence": "CC0-1.0"}, {"license": "cc0-1.0"}),
        (
            {"licence": "Hospital", "licence_url": "https://example.org"},
            {
                "license": "other",
                "license_name": "Hospital",
                "license_link": "https://example.org",
            },
        ),
    ],
)
def test_licences_in_the_words_of_the_hub(network, info, entries):
    stored = {"architecture": network.architecture(), **info}
    found = front(hub_card("toy", stored, 1000))
    assert {name: value for name, value in found.items() if name.startswith("license")} == entries


@pytest.mark.hub
@pytest.mark.parametrize(
    ("repo_id", "words"),
    [
        ("../..", "is no repository of the Hugging Face Hub .*expected OWNER/NAME"),
        ("anna/..", "is no repository"),
        ("anna/a..b", "is no repository"),
        ("skin", "is no repository"),
        ("hf://anna", "expected hf://owner/name"),
        ("hf://anna/skin@main", "revision='main'"),
    ],
)
def test_a_wrong_repository_is_refused_before_anything_is_written(
    repo_id, words, network, tmp_path, monkeypatch
):
    pytest.importorskip("huggingface_hub", reason="NOT TESTED: needs the extra `hub`")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a" / "b"))
    with pytest.raises(HyMUNetError, match=words):
        hymunet.push_to_hub(network, repo_id)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


THERE_AND_BACK = """
import json, sys, torch
import hymunet
from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion

hymunet.push_to_hub(sys.argv[1], "anna/skin")
network = HyMUNet.from_pretrained("anna/skin")
print(network.push_to_hub("hf://anna/skin-again", commit_message="again"))
picture = draw_lesion(3, (60, 80)).image
print(json.dumps(Predictor("hf://anna/skin", device="cpu")(picture).mask.tolist()))
"""
OFFLINE = """
import sys
from pathlib import Path
from hymunet.cli import main

for name in ("skin", "lung"):
    model = f"hf://anna/{name}"
    print(main(["predict", sys.argv[1], "--model", model, "--output", f"{sys.argv[2]}/{name}"]))
"""


@pytest.mark.hub
def test_there_and_back_and_then_without_a_network(tmp_path):
    pytest.importorskip("huggingface_hub", reason="NOT TESTED: needs the extra `hub`")
    from PIL import Image

    def run(code: str, *words: object) -> subprocess.CompletedProcess[str]:
        # the library reads its settings when it is imported
        environment = os.environ | {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_TOKEN": "hf_of_this_test",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", code, *map(str, words)]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    with small_hub() as (address, repositories, calls):
        done = run(THERE_AND_BACK, NAME)
        assert done.returncode == 0, done.stderr
    assert set(repositories) == {"anna/skin", "anna/skin-again"}
    stored = repositories["anna/skin"]
    assert set(stored) >= {"README.md", "config.json", "model.safetensors"}
    assert stored["model.safetensors"] == pretrained_file(NAME).read_bytes()
    assert [call for call in calls if "resolve" in call and "README" in call] == []
    again = tmp_path / "again.safetensors"
    again.write_bytes(repositories["anna/skin-again"]["model.safetensors"])
    one, other = (load_model(path)[0].state_dict() for path in (again, NAME))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert model_identity(again)["threshold"] == model_identity(NAME)["threshold"]
    commit, mask = done.stdout.splitlines()
    assert "/anna/skin-again/commit/" in commit
    picture = draw_lesion(3, (60, 80)).image
    assert json.loads(mask) == Predictor(NAME, device="cpu")(picture).mask.tolist()

    # the server is gone: what was fetched once is there, what was not is said
    Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    done = run(OFFLINE, tmp_path / "photo.png", tmp_path / "masks")
    assert done.stdout.split()[-2:] == ["0", "1"], done.stdout + done.stderr
    assert (tmp_path / "masks" / "skin" / "photo.png").is_file()
    assert not Path(tmp_path / "masks" / "lung").exists()
    told = " ".join(done.stderr.split())
    assert "anna/lung is not in the local cache of the Hugging Face Hub" in told
    assert "Traceback" not in told
