"""Model files: what is saved comes back bit by bit, and nothing else is let in or run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from hymunet import HyMUNet
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import load_model, read_info, save_model

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2, "head_channels": 4}
INFO = {
    "classes": ["lesion"],
    "preprocess": {"image_size": [32, 48], "resize": "squeeze", "mean": [0.1, 0.2, 0.3]},
    "cases": {"train": ["ab12", "cd34"], "val": [], "test": []},
    "metrics": {"val": {"dice": 0.1 + 0.2}},
    "licence": None,
    "training": {"data": "Größe 日本"},
}


def trained_toy(**sizes):
    """A toy whose batch statistics differ from where they start, as after training."""
    torch.manual_seed(1)
    network = HyMUNet(3, 1, **{**TOY, **sizes})
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 32, 32))
    return network.eval()


def logits(network):
    torch.manual_seed(2)
    with torch.no_grad():
        return network(torch.randn(2, 3, 32, 64))


def rewritten(path: Path, **changes) -> Path:
    """A copy of a model file with other entries in its metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["hymunet"])
    changed = path.with_name("changed.safetensors")
    save_file(load_file(path), changed, {"hymunet": json.dumps({**metadata, **changes})})
    return changed


@pytest.fixture
def saved(tmp_path):
    return save_model(tmp_path / "toy.safetensors", trained_toy(), INFO)


@pytest.mark.parametrize(
    "sizes",
    [
        {"stages": "CCMM"},
        {"stages": "CCAA", "conv_norm": "group"},
        {"skip": "attention", "deep_supervision": True, "stem_stride": 4},
    ],
    ids=["mamba", "attention", "all else"],
)
def test_what_is_saved_comes_back_bit_by_bit(tmp_path, sizes):
    network = trained_toy(**sizes)
    path = save_model(tmp_path / "toy.safetensors", network, INFO)
    loaded, info = load_model(path)
    assert torch.equal(logits(loaded), logits(network))
    assert loaded.config == network.config
    assert {name: info[name] for name in INFO} == INFO
    assert info == read_info(path)
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert all(p.requires_grad and p.is_leaf for p in loaded.parameters())


def test_methods_of_the_network_do_the_same(tmp_path):
    network = trained_toy()
    path = network.save_pretrained(tmp_path / "toy")
    assert path == tmp_path / "toy"
    assert load_model(path / "model.safetensors")[0].config == network.config
    assert torch.equal(logits(HyMUNet.from_pretrained(str(path))), logits(network))


def test_equal_models_are_equal_files(tmp_path, saved):
    again = save_model(tmp_path / "again.safetensors", *load_model(saved))
    assert again.read_bytes() == saved.read_bytes()


def test_info_of_another_model_does_not_contradict_the_weights(tmp_path, saved):
    """Saving a smaller network with what was read from a larger one's file."""
    info = load_model(saved)[1]
    small = HyMUNet(3, 1, **{**TOY, "dims": (4, 4, 4, 4)})
    path = save_model(tmp_path / "small.safetensors", small, info)
    assert load_model(path)[0].config == small.config


def test_half_precision_is_computed_with_in_float32(tmp_path):
    network = trained_toy()
    path = save_model(tmp_path / "half.safetensors", trained_toy().half())
    assert any(weight.dtype == torch.float16 for weight in load_file(path).values())
    loaded = load_model(path)[0]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = {name: weight.half().float() for name, weight in network.named_parameters()}
    for name, weight in loaded.named_parameters():
        assert torch.equal(weight, expected[name]), name


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(saved)
    assert torch.equal(torch.rand(3), expected)


def test_a_loaded_model_does_not_depend_on_the_file(saved):
    """The file may be overwritten in place by another program while a server runs."""
    loaded = load_model(saved)[0]
    before = logits(loaded)
    with open(saved, "r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\x7f" * 4096)
    assert torch.equal(logits(loaded), before)


@pytest.mark.parametrize(
    "left", [0, 4, 100, -1], ids=["nothing", "4 bytes", "100 bytes", "all but 1"]
)
def test_a_truncated_file(saved, left):
    saved.write_bytes(saved.read_bytes()[:left])
    for load in (load_model, read_info):
        with pytest.raises(HyMUNetError, match=r"not a whole safetensors file .* truncated"):
            load(saved)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_the_malicious_object_would_act(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "acted"))).close()
    assert (tmp_path / "acted").exists()


def test_a_program_of_torch_is_no_model_file_and_no_danger(tmp_path):
    path = tmp_path / "best.pt2"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(HyMUNetError, match=r"program of torch.export.* its ONNX file"):
        HyMUNet.from_pretrained(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "acted"), protocol))
    with pytest.raises(HyMUNetError, match=r"is a pickle .* any code, so it is refused: convert"):
        load_model(path)
    assert not (tmp_path / "acted").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_by_another_name_is_refused_and_runs_nothing(tmp_path, zipped):
    path = tmp_path / "model.safetensors"
    content = {"model": Malicious(tmp_path / "acted"), **trained_toy().state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for load in (load_model, read_info):
        with pytest.raises(HyMUNetError, match="is a pickle"):
            load(path)
    assert not (tmp_path / "acted").exists()


def test_a_pickle_without_a_signature_is_refused_and_runs_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "acted"), 0))  # text, no PROTO opcode
    with pytest.raises(HyMUNetError, match="not a whole safetensors file"):
        load_model(path)
    assert not (tmp_path / "acted").exists()


def test_a_header_that_starts_like_a_pickle_is_read(tmp_path, saved):
    """The first bytes are the header's length; 0x..0280 in little endian is what a pickle of
    protocol 2 starts with."""
    header = int.from_bytes(saved.read_bytes()[:8], "little")
    wanted = next(n for n in range(0x0280, 1 << 24, 0x10000) if n > header + 64)
    # a note takes 16 bytes besides its text, and headers are filled up to multiples of 8
    note = "x" * (wanted - header - 16)
    path = save_model(tmp_path / "padded.safetensors", trained_toy(), {**INFO, "note": note})
    assert path.read_bytes()[:3] == b"\x80\x02" + bytes([wanted >> 16]), "adapt the padding"
    assert read_info(path)["classes"] == INFO["classes"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HyMUNetError, match="truncated"):  # and it is no pickle when cut either
        read_info(path)


def test_safetensors_of_something_else(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(HyMUNetError, match=r"not a HyM-UNet model .*'hymunet' entry"):
        load_model(path)
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(HyMUNetError, match="not a HyM-UNet model"):
        read_info(path)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", "{}", '{"format": 1}', '{"format": "new", "architecture": {}}',
     '{"format": 1, "architecture": 7}', "[" * 100_000],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_damaged_metadata(tmp_path, text):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path, {"hymunet": text})
    with pytest.raises(HyMUNetError, match=r"metadata of .* are damaged"):
        load_model(path)


def test_weights_of_another_architecture(saved):
    architecture = read_info(saved)["architecture"]
    wider = rewritten(saved, architecture={**architecture, "dims": [4, 8, 8, 32]})
    with pytest.raises(HyMUNetError, match=r"do not belong.*of other shape \(.*instead of"):
        load_model(wider)
    deeper = rewritten(saved, architecture={**architecture, "depths": [1, 1, 1, 2]})
    with pytest.raises(HyMUNetError, match=r"do not belong.*\d+ missing \(encoder\.stages\.3"):
        load_model(deeper)
    shallower = rewritten(saved, architecture={**architecture, "decoder_depth": 0})
    with pytest.raises(HyMUNetError, match=r"do not belong.*\d+ unknown \(decoder\.blocks"):
        load_model(shallower)


def test_an_impossible_architecture(saved):
    architecture = read_info(saved)["architecture"]
    for change in ({"stages": "CCXX"}, {"dims": "wide"}, {"dims": [4, 8, 8]}, {"d_state": 0}):
        with pytest.raises(HyMUNetError, match="describes an impossible architecture"):
            load_model(rewritten(saved, architecture={**architecture, **change}))


def test_an_enormous_architecture_takes_no_memory(saved):
    """4 PB of weights by its metadata; refused for the weights that the file has."""
    architecture = read_info(saved)["architecture"]
    huge = rewritten(saved, architecture={**architecture, "dims": [10**7] * 4, "head_channels": 1})
    with pytest.raises(HyMUNetError, match="do not belong"):
        load_model(huge)


def test_an_architecture_with_an_unknown_field(saved):
    architecture = read_info(saved)["architecture"]
    newer = rewritten(saved, architecture={**architecture, "wavelet": "haar"})
    with pytest.raises(HyMUNetError, match=r"architecture with wavelet, .* update hymunet"):
        load_model(newer)


def test_a_newer_format(saved):
    newer = rewritten(saved, format=2)
    for load in (load_model, read_info):
        with pytest.raises(HyMUNetError, match="model format 2, this version reads up to 1"):
            load(newer)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(HyMUNetError, match=r"no model file or run folder .*none.safetensors; give"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(HyMUNetError, match=r"holds no best\.safetensors; give"):
        load_model(tmp_path)


def test_an_unwritable_target_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HyMUNetError, match="cannot write"):
        save_model(tmp_path / "file" / "toy.safetensors", trained_toy())
    (tmp_path / "folder.safetensors").mkdir()  # the rename at the end fails
    with pytest.raises(HyMUNetError, match="cannot write"):
        save_model(tmp_path / "folder.safetensors", trained_toy())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.safetensors"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_failed_save_keeps_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_model(saved, trained_toy(), {"classes": {"a set, which JSON has not"}})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
