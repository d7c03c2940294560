"""The network a training starts from: what a model gives, what starts anew, what is refused."""

import hashlib

import pytest
import torch

from hymunet import HyMUNet, hymunet_tiny
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import read_info, save_model
from hymunet.training.initial import (
    EncoderStaysAsItIs,
    save_start,
    spread_channels,
    starting_network,
)
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.planning.plan import Settings

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}
INFO = {
    "training": {"data": "twelve moles"},
    "cases": {"train": ["aa", "bb"], "val": ["cc"], "test": ["dd"]},
    "licence": "CC-BY-NC-4.0",
}


def trained(path, in_channels=3, num_classes=1, info=INFO, **sizes):
    """A model file of a network that looks trained: no weight or statistic is at its start."""
    network = HyMUNet(in_channels, num_classes, **(TOY | sizes))
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return save_model(path, network.eval(), info), network


def start_from(model, tmp_path, in_channels=3, spatial_dims=2, **options):
    several = options.get("structures", 1) > 1
    options = {"activation": "softmax" if several else "sigmoid"} | options
    options = Settings(init=str(model), **options)
    return starting_network(options, in_channels, spatial_dims, tmp_path / "init.safetensors")


def test_the_first_logits_are_the_models(tmp_path):
    model, network = trained(tmp_path / "moles.safetensors")
    start = start_from(model, tmp_path)
    image = torch.randn(2, 3, 48, 32)  # another size than it was trained at does not matter
    assert start.network.training
    assert torch.equal(start.network.eval()(image), network(image))
    assert start.network.config == network.config


def test_everything_but_the_head_is_taken_when_the_classes_differ(tmp_path):
    model, network = trained(tmp_path / "moles.safetensors")
    start = start_from(model, tmp_path, structures=2)
    assert (start.network.config.num_classes, start.network.config.activation) == (3, "softmax")
    old, new = network.state_dict(), start.network.state_dict()
    assert {name for name in new if name.startswith("head.")} == {
        "head.logits.weight",
        "head.logits.bias",
    }
    for name in new:
        assert name.startswith("head.") or torch.equal(new[name], old[name]), name
    assert (
        "  1 output channel (sigmoid) -> 3 output channels (softmax): the head starts anew, "
        in ("\n".join(start.notes))
    )
    # the new head is a function of the seed
    again = start_from(model, tmp_path, structures=2).network.state_dict()
    assert torch.equal(new["head.logits.weight"], again["head.logits.weight"])
    other = start_from(model, tmp_path, structures=2, seed=1).network.state_dict()
    assert not torch.equal(new["head.logits.weight"], other["head.logits.weight"])


def test_heads_of_other_activation_are_not_taken_for_each_other(tmp_path):
    model, network = trained(tmp_path / "regions.safetensors", num_classes=3)  # nested, sigmoid
    start = start_from(model, tmp_path, structures=2)  # 3 outputs as well, softmax
    assert not torch.equal(start.network.head.logits.weight, network.head.logits.weight)


@pytest.mark.parametrize(("before", "now"), [(3, 1), (3, 5), (1, 3), (4, 2)])
def test_equal_channels_give_the_features_they_gave_before(tmp_path, before, now):
    model, network = trained(tmp_path / "moles.safetensors", in_channels=before)
    start = start_from(model, tmp_path, in_channels=now)
    grey = torch.randn(2, 1, 32, 32)
    expected = network(grey.expand(-1, before, -1, -1))
    torch.testing.assert_close(start.network.eval()(grey.expand(-1, now, -1, -1)), expected)
    assert f"  {before} -> {now} image channels: the weights of the first" in "\n".join(start.notes)


def test_a_grey_channel_meets_the_sum_of_the_colours_weights():
    weight = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    grey = spread_channels(weight, 1)
    assert torch.equal(grey[:, 0], weight[:, 0] + weight[:, 1] + weight[:, 2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": "CCCC"}, r"--stages is CCCC and the model's is CCMM\. With --init"),
        ({"skip": "concat"}, r"--skip is concat and the model's is mgf"),
        (
            {"preset": "small"},
            r"--preset is small and the model has dims \(4, 8, 8, 16\) instead of",
        ),
        (
            {"stages": "CCCC", "skip": "attention"},
            "--stages is CCCC and the model's is CCMM; --skip is attention and the model's is mgf",
        ),
    ],
)
def test_an_architecture_that_contradicts_the_model_is_refused(tmp_path, options, words):
    model, _ = trained(tmp_path / "moles.safetensors")
    with pytest.raises(HyMUNetError, match=words):
        start_from(model, tmp_path, **options)


def test_an_architecture_that_agrees_may_be_named(tmp_path):
    network = hymunet_tiny(stages="CCAA", skip="concat")
    model = save_model(tmp_path / "rival.safetensors", network)
    start = start_from(model, tmp_path, preset="tiny", stages="CCAA", skip="concat")
    assert start.network.config == network.config


def test_drop_path_is_a_setting_of_the_training(tmp_path):
    model, _ = trained(tmp_path / "moles.safetensors", drop_path=0.5)
    assert start_from(model, tmp_path).network.config.drop_path == 0.0
    assert start_from(model, tmp_path, drop_path=0.2).network.config.drop_path == 0.2


def test_pictures_and_volumes_do_not_share_weights(tmp_path):
    model, _ = trained(tmp_path / "moles.safetensors")
    with pytest.raises(HyMUNetError, match=r"is for pictures \(2-D\) and the data are volumes"):
        start_from(model, tmp_path, in_channels=1, spatial_dims=3)


def test_a_model_that_is_not_there_or_is_none_is_refused(tmp_path):
    with pytest.raises(HyMUNetError, match="there is no model file or run folder"):
        start_from(tmp_path / "gone.safetensors", tmp_path)
    (tmp_path / "notes.safetensors").write_bytes(b"no tensors")
    with pytest.raises(HyMUNetError, match="is not a whole safetensors file"):
        start_from(tmp_path / "notes.safetensors", tmp_path)


def test_origin_names_the_file_the_data_and_the_licence(tmp_path):
    (tmp_path / "run 7").mkdir()
    model, _ = trained(tmp_path / "run 7" / "best.safetensors")
    for named in (model, tmp_path / "run 7"):
        start = start_from(named, tmp_path)
        assert start.origin == {
            "name": "run 7",
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "data": "twelve moles",
            "cases": 2,
            "licence": "CC-BY-NC-4.0",
        }
        assert start.cases == {"aa", "bb"}  # what was trained on, neither val nor test
        said = "\n".join(start.notes)
        assert "starting from run 7: CCMM, 4-8-8-16 channels" in said
        assert "trained on 2 cases (twelve moles)" in said
        assert "licence CC-BY-NC-4.0, which passes on to the new model" in said


def test_what_a_model_does_not_say_is_said(tmp_path):
    model, _ = trained(tmp_path / "bare.safetensors", info=None)
    start = start_from(model, tmp_path)
    said = "\n".join(start.notes)
    assert "does not list its training cases" in said
    assert "states no licence" in said
    assert start.cases == frozenset()


def test_the_model_of_a_model_is_remembered(tmp_path):
    grandmother = {"name": "older", "sha256": "0", "data": None, "cases": 1, "licence": None}
    info = INFO | {"training": {"data": "moles", "init": grandmother}}
    model, _ = trained(tmp_path / "mother.safetensors", info=info)
    assert start_from(model, tmp_path).origin["init"] == grandmother


def test_saved_starting_weights_are_all_that_a_resumed_run_needs(tmp_path):
    model, _ = trained(tmp_path / "moles.safetensors")
    options = {"in_channels": 2, "structures": 3, "freeze_encoder": True}
    start = start_from(model, tmp_path, **options)
    save_start(tmp_path / "init.safetensors", start)
    assert read_info(tmp_path / "init.safetensors")["licence"] == "CC-BY-NC-4.0"
    model.unlink()
    again = start_from(model, tmp_path, **options)
    assert (again.origin, again.cases) == (start.origin, start.cases)
    assert again.network.config == start.network.config
    one, two = start.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    trains = [
        {n for n, p in s.network.named_parameters() if p.requires_grad} for s in (start, again)
    ]
    assert trains[0] == trains[1]
    assert again.network.training


def test_a_frozen_encoder_needs_no_gradient_and_all_else_does(tmp_path):
    model, _ = trained(tmp_path / "moles.safetensors")
    network = start_from(model, tmp_path, freeze_encoder=True).network
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != name.startswith("encoder."), name


def test_in_training_a_frozen_encoder_works_as_in_use(tmp_path):
    model, source = trained(tmp_path / "moles.safetensors")
    options = Settings(init=str(model), freeze_encoder=True, drop_path=0.9)
    start = starting_network(options, 3, 2, tmp_path / "init.safetensors")
    task = SegmentationTask(start.network, options, steps_per_epoch=1)
    task.on_train_epoch_start()
    EncoderStaysAsItIs().on_train_batch_start(None, task, None, 0)
    image = torch.randn(4, 3, 32, 32)
    for now, then in zip(task.network.encoder(image), source.encoder(image), strict=True):
        assert torch.equal(now, then)
    assert task.network.decoder.training


def test_from_scratch_nothing_is_said_and_the_seed_decides(tmp_path):
    state = torch.random.get_rng_state()
    start = starting_network(Settings(preset="tiny", seed=4), 3, 2, tmp_path / "init.safetensors")
    assert (start.origin, start.cases, start.notes) == ({}, frozenset(), ())
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(4)
    expected = hymunet_tiny().state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in start.network.state_dict().items())
