"""Models of the Hugging Face Hub by their addresses, from a folder and from its local cache."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.network.hub import hub_address, in_hub_cache, is_bare_id, model_name
from hymunet.network.model_file import find_model, load_model, read_info, save_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZES = {"stages": "CM", "dims": (4, 8), "depths": (1, 1), "d_state": 3}


@pytest.fixture
def network():
    torch.manual_seed(1)
    return HyMUNet(3, 1, **SIZES).eval()


@pytest.fixture
def cache(tmp_path, network):
    """A cache of huggingface_hub with one model in it, laid out as that library does."""
    root = tmp_path / "models--anna--skin"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    save_model(snapshot / "model.safetensors", network, {"classes": ["lesion"]})
    return tmp_path


@pytest.mark.parametrize(
    ("model", "address"),
    [
        ("hf://anna/skin", ("anna/skin", None)),
        (Path("hf://anna/skin"), ("anna/skin", None)),  # a Path makes one slash of two
        ("hf:\\anna\\skin", ("anna/skin", None)),  # and on Windows a backslash
        ("hf://anna/skin@v1.0", ("anna/skin", "v1.0")),
        ("hf://anna/skin@refs/pr/1", ("anna/skin", "refs/pr/1")),
        ("anna/skin", None),
        ("runs/x/best.safetensors", None),
        ("isic2018-tiny", None),
    ],
)
def test_addresses(model, address):
    assert hub_address(model) == address


@pytest.mark.parametrize("model", ["hf://anna", "hf://anna/skin/best", "hf://../x", "hf://a/b@"])
def test_what_is_no_address_is_refused(model):
    with pytest.raises(HyMUNetError, match="expected hf://owner/name"):
        find_model(model)


def test_a_bare_id_has_two_parts():
    assert is_bare_id("anna/skin-2.0_x")
    assert not any(map(is_bare_id, ["skin", "a/b/c", "./skin", "../skin", "/skin", "~/x", "a/"]))


def test_names_of_models():
    assert model_name(Path("runs/x.5/best.safetensors")) == "x.5"
    assert model_name(Path("shared/skin/model.safetensors")) == "skin"
    assert model_name(Path("shared/skin.v2.safetensors")) == "skin.v2"
    cached = Path(f"cache/models--anna--skin/snapshots/{COMMIT}/model.safetensors")
    assert model_name(cached) == "skin"
    assert in_hub_cache(cached)
    assert not in_hub_cache(Path("shared/skin/model.safetensors"))


def test_a_folder_with_config_and_weights_is_a_model(network, tmp_path):
    """As other software saves them: weights without a word, the sizes beside them."""
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(network.architecture()))
    assert read_info(tmp_path) == {
        "format": 1,
        "architecture": json.loads(json.dumps(network.architecture())),
    }
    image = torch.rand(1, 3, 8, 12)
    for loaded in (HyMUNet.from_pretrained(tmp_path), load_model(tmp_path)[0]):
        assert torch.equal(loaded(image), network(image))
    picture = draw_lesion(0, (8, 12)).image
    assert Predictor(tmp_path)(picture).mask.shape == (8, 12)


def test_weights_without_a_word_and_without_sizes_are_refused(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(HyMUNetError, match="not a HyM-UNet model"):
        read_info(tmp_path)
    for text in ("[1, 2]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(HyMUNetError, match=r"config.json cannot be read .*JSON object"):
            read_info(tmp_path)
    (tmp_path / "config.json").write_text('{"encoder_depth": 5}')
    with pytest.raises(HyMUNetError, match="describes an architecture with encoder_depth"):
        load_model(tmp_path)


def test_a_config_that_contradicts_the_file_is_refused(network, tmp_path):
    save_model(tmp_path / "model.safetensors", network)
    sizes = network.architecture()
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert load_model(tmp_path)[0].config == network.config
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"d_state": 4}))
    with pytest.raises(HyMUNetError, match=r"another network than the file itself \(d_state\)"):
        load_model(tmp_path)


def test_a_run_folder_stays_the_model_that_was_trained_in_it(network, tmp_path):
    save_model(tmp_path / "best.safetensors", network)
    save_model(tmp_path / "model.safetensors", network)
    assert find_model(tmp_path) == tmp_path / "best.safetensors"


def test_an_argument_of_another_library_is_named():
    with pytest.raises(HyMUNetError, match=r"no argument encoder_depth; .*docs/names.md"):
        HyMUNet(encoder_depth=5)


@pytest.mark.hub
class TestCache:
    """What lies in the cache needs no network; what does not is said in words."""

    @pytest.fixture(autouse=True)
    def needs_the_extra(self):
        pytest.importorskip("huggingface_hub", reason="NOT TESTED: needs the extra `hub`")

    def test_a_cached_model_needs_no_network(self, cache, network):
        image = torch.rand(1, 3, 8, 12)
        for options in ({}, {"revision": "main"}, {"revision": COMMIT}):
            loaded = HyMUNet.from_pretrained(
                "anna/skin", cache_dir=cache, local_files_only=True, **options
            )
            assert torch.equal(loaded(image), network(image))

    def test_what_is_here_comes_before_what_is_there(self, cache, network, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("anna/skin").mkdir(parents=True)
        save_model(Path("anna/skin/model.safetensors"), network, {"classes": ["mole"]})
        loaded = HyMUNet.from_pretrained("anna/skin", cache_dir=cache, local_files_only=True)
        assert loaded.loaded[0]["classes"] == ["mole"]

    def test_what_is_not_in_the_cache_is_said_with_what_to_do(self, cache):
        with pytest.raises(HyMUNetError) as error:
            HyMUNet.from_pretrained("anna/lung", cache_dir=cache, local_files_only=True)
        for words in ("anna/lung is not in the local cache", "hf download anna/lung", "folder"):
            assert words in str(error.value)
        with pytest.raises(HyMUNetError, match="anna/skin at revision v2 is not in the local"):
            HyMUNet.from_pretrained(
                "anna/skin", revision="v2", cache_dir=cache, local_files_only=True
            )

    def test_a_repository_without_weights(self, cache):
        snapshot = cache / "models--anna--skin" / "snapshots" / COMMIT
        (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
        with pytest.raises(HyMUNetError, match=r"holds no model.safetensors"):
            HyMUNet.from_pretrained("anna/skin", cache_dir=cache, local_files_only=True)
