"""Who takes part: every rival is built and gives logits, users' functions are held to the rules."""

import importlib.util

import pytest
import torch

from hymunet.errors import HyMUNetError
from hymunet.experiments.compare.ablations import FACTORS, variants
from hymunet.experiments.compare.adapter import load_into
from hymunet.experiments.compare.entrants import Entrant, find_entrant
from hymunet.experiments.compare.rivals import RIVALS
from hymunet.network.model_file import load_model, read_info, save_model
from hymunet.training.optimiser import hidden_matrices, parameter_groups
from hymunet.training.planning.plan import Settings

SETTINGS = Settings(preset="tiny", image_size=64)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_gives_logits_and_its_last_layer_is_no_hidden_matrix(name):
    if name == "swin-unetr" and importlib.util.find_spec("einops") is None:
        pytest.skip("MONAI's SwinUNETR needs einops")
    settings = Settings(preset="tiny", image_size=64, structures=8, activation="softmax")
    network = find_entrant(name).make(settings, 3, 2)
    assert network.config.num_labels == 9
    assert 64 % network.config.stride == 0
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 9, 64, 64)
    assert network.head is not None
    outputs = {id(p) for p in network.head.parameters()}
    hidden = hidden_matrices(network)
    assert not outputs & hidden  # nine classes are wide enough, but they are logits
    # what orthogonalising is for: most of what is learnt, transposed convolutions among it
    sizes = {id(p): p.numel() for p in network.parameters()}
    assert sum(sizes[one] for one in hidden) > 0.9 * sum(sizes.values())
    muon, decayed, free = parameter_groups(network, 0.1)
    count = len(muon["params"]) + len(decayed["params"]) + len(free["params"])
    assert count == len(list(network.parameters()))
    assert all(p.ndim > 1 for p in muon["params"])


def test_a_rival_in_three_dimensions():
    settings = Settings(preset="tiny", patch_size=(16, 16, 32), resize="window")
    network = find_entrant("unet-small").make(settings, 2, 3)
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 2, 16, 16, 32)).shape == (1, 1, 16, 16, 32)


@pytest.mark.parametrize("word", ["CCCC", "MMMM", "CCAA"])
def test_a_stage_word_is_our_skeleton(word):
    entrant = find_entrant(word)
    assert entrant.given() is None  # an ordinary training
    settings = Settings(preset="tiny", image_size=64, stages=word)
    network = entrant.make(settings, 3, 2)
    assert network.config.stages == word
    assert entrant.stride(settings) == network.config.stride == 16


def test_words_that_nobody_answers_to(workplace):
    with pytest.raises(HyMUNetError, match=r"no model 'unet2'; expected one of unet, unet-small"):
        find_entrant("unet2")
    with pytest.raises(HyMUNetError, match=r"nowhere:f cannot be imported \(ModuleNotFoundError"):
        find_entrant("nowhere:f")
    with pytest.raises(HyMUNetError, match=r"small_networks\.py\) has no function 'none'"):
        find_entrant("small_networks:none")
    # a file of the user's may be hidden by a module of its name
    with pytest.raises(HyMUNetError, match=r"module json \(.*__init__\.py\) has no function 'net'"):
        find_entrant("json:net")


def test_a_user_s_function_is_called_with_what_it_takes(workplace):
    entrant = find_entrant("small_networks:one")
    assert entrant.folder == "small_networks.one"
    assert entrant.stride(SETTINGS) == 8
    assert find_entrant("small_networks:half_size").stride(SETTINGS) == 32  # none is stated
    network = entrant.make(SETTINGS, 3, 2)
    assert network.head is network.network.last
    assert network.training  # as it was built
    wide = find_entrant("small_networks:wide").make(SETTINGS, 3, 2)  # takes anything
    assert wide.config.stride == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_arguments", r"must take in_channels and num_classes.*has no in_channels and no num"),
        ("no_module", r"must return an nn\.Module, not a int"),
        ("half_size", r"logits \(1, 1, 64, 64\) of an image \(1, 3, 64, 64\).* gave \(1, 1, 32"),
        ("not_finite", r"logits of a black image that are not finite"),
        ("picky", r"cannot take an image \(1, 3, 64, 64\): .*multiples of its stride, 32 here"),
    ],
)
def test_a_network_that_breaks_the_rules_is_refused(name, words, workplace):
    with pytest.raises(HyMUNetError, match=words):
        find_entrant(f"small_networks:{name}").make(SETTINGS, 3, 2)


def test_sides_that_are_no_multiple_of_the_stride_are_refused(workplace):
    with pytest.raises(HyMUNetError, match=r"multiples of 64, and the images are 32 x 32; choose"):
        find_entrant("small_networks:sixty_four").make(Settings(image_size=32), 3, 2)
    with pytest.raises(HyMUNetError, match=r"UNETR has a learnt position .* \(--resize squeeze\)"):
        find_entrant("unetr").make(Settings(resize="native"), 3, 2)


def test_weights_return_to_a_network_that_was_built_again(workplace, tmp_path):
    one = find_entrant("small_networks:one")
    network = one.make(SETTINGS, 3, 2)
    path = save_model(tmp_path / "one.safetensors", network, {"classes": ["lesion"]})
    assert read_info(path)["architecture"]["builder"] == "small_networks:one"
    with pytest.raises(HyMUNetError, match=r"network small_networks:one.* runs no code"):
        load_model(path)
    again = one.make(SETTINGS, 3, 2)
    assert not torch.equal(again.network.first.weight, network.network.first.weight)
    assert load_into(path, again)["classes"] == ["lesion"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), network.state_dict().values(), strict=True)
    )
    assert not again.training
    other = find_entrant("small_networks:wide").make(SETTINGS, 3, 2)
    with pytest.raises(HyMUNetError, match=r"another network: builder is 'small_networks:one' th"):
        load_into(path, other)


def test_variants_differ_from_the_base_in_one_thing():
    base, *others = variants(list(FACTORS))
    assert base.given() is None
    assert len({one.name for one in others}) == len(others) == 13
    for one in others:
        assert len(one.options) + len(one.sizes) == 1
        assert one.factor in FACTORS
    with pytest.raises(HyMUNetError, match=r"no factor colour; expected some of skip, stages"):
        variants(["colour"])
    # every variant is a network that is not the base's, or a loss that is not
    plain = base.make(Settings(preset="tiny"), 3, 2)
    for one in others:
        network = one.make(Settings(**{"preset": "tiny", **one.options}), 3, 2)
        assert (network.config != plain.config) == (one.factor != "loss")


def test_an_entrant_survives_json(workplace):
    import json
    from dataclasses import asdict, replace

    for one in (*variants(list(FACTORS)), find_entrant("small_networks:one"), find_entrant("tiny")):
        again = Entrant(**json.loads(json.dumps(asdict(one))))
        assert again == one  # or the same command would not go on
        assert replace(again, what="another wording") == one
        settings = Settings(**{"preset": "tiny", "image_size": 64, **one.options})
        here, there = (e.make(settings, 3, 2).architecture() for e in (one, again))
        assert here == there
