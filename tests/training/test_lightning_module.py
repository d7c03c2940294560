"""The moving average, the NaN guard, and the overlap that chooses the epoch."""

import numpy as np
import pytest
import torch

from hymunet import HyMUNet
from hymunet.errors import NonFiniteError
from hymunet.metrics.case import case_metrics
from hymunet.training.lightning_module import SegmentationTask, per_image_overlap
from hymunet.training.planning.plan import Settings

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def make_task(**options):
    return SegmentationTask(HyMUNet(3, 1, **TOY), Settings(**options), steps_per_epoch=4)


def batch_of(size=32):
    return {
        "image": torch.randn(2, 3, size, size),
        "label": (torch.rand(2, size, size) > 0.5).to(torch.uint8),
        "valid": torch.ones(2, size, size, dtype=torch.uint8),
        "index": torch.arange(2),
    }


def test_the_moving_average_follows_its_formula():
    task = make_task(ema_decay=0.5)
    name, weight = next(iter(task.network.named_parameters()))
    buffer = next(b for n, b in task.network.named_buffers() if n.endswith("running_mean"))
    shadow = dict(task.averaged_network().named_parameters())[name]
    shadow_buffer = next(
        b for n, b in task.averaged_network().named_buffers() if n.endswith("running_mean")
    )
    expected = expected_buffer = None
    for step in range(6):
        with torch.no_grad():
            weight.fill_(float(step))
            buffer.fill_(10.0 * step)
        task.on_train_batch_end(None, None, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = step if expected is None else decay * expected + (1 - decay) * step
        expected_buffer = 10 * expected
        assert shadow.flatten()[0].item() == pytest.approx(expected)
        assert shadow_buffer[0].item() == pytest.approx(expected_buffer)


def test_the_average_is_what_is_validated():
    task = make_task()
    task.on_validation_epoch_start()
    batch = batch_of()
    task.validation_step(batch, 0)
    before = torch.stack(task.validation)
    torch.nn.init.constant_(task.network.head.logits.bias, 9.0)
    task.on_validation_epoch_start()
    task.validation_step(batch, 0)
    assert torch.equal(torch.stack(task.validation), before)
    torch.nn.init.constant_(task.averaged_network().head.logits.bias, 9.0)
    task.on_validation_epoch_start()
    task.validation_step(batch, 0)
    assert not torch.equal(torch.stack(task.validation), before)


def test_only_the_network_is_optimised():
    task = make_task()
    optimised = {
        id(p) for g in task.configure_optimizers()["optimizer"].param_groups for p in g["params"]
    }
    assert optimised == {id(p) for p in task.network.parameters()}


def test_a_nan_names_the_layer_where_it_arose():
    task = make_task()
    task.on_train_epoch_start()
    torch.nn.init.constant_(task.network.encoder.downs[1][0].weight, float("inf"))
    with pytest.raises(NonFiniteError, match=r"in the layer encoder\.downs\.1\.0 .*learning-rate"):
        task.training_step(batch_of(), 0)


def test_nan_images_are_named_as_such():
    task = make_task()
    task.on_train_epoch_start()
    batch = batch_of()
    batch["image"][1, 0, 3, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="in the images of this batch"):
        task.training_step(batch, 0)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_overlap_agrees_with_the_metrics(activation):
    logits = torch.randn(4, 3, 12, 10)
    target = (torch.rand(4, 3, 12, 10) > 0.6).float()
    valid = (torch.rand(4, 1, 12, 10) > 0.2).float()
    target[0], logits[0] = 0, -5.0  # both empty under sigmoid
    dice, iou = per_image_overlap(logits, target, activation, valid)
    for i in range(4):
        if activation == "sigmoid":
            predicted, classes = logits[i].numpy() >= 0, range(3)
        else:
            winner = logits[i].argmax(0).numpy()
            predicted, classes = np.stack([winner == k for k in range(3)]), (1, 2)
        rows = [
            case_metrics(predicted[k], target[i, k].numpy() > 0, valid[i, 0].numpy() > 0)
            for k in classes
        ]
        assert dice[i].item() == pytest.approx(np.mean([row["dice"] for row in rows]))
        assert iou[i].item() == pytest.approx(np.mean([row["iou"] for row in rows]))


def test_deep_supervision_is_trained_and_validated():
    network = HyMUNet(3, 1, deep_supervision=True, **TOY)
    task = SegmentationTask(network, Settings(), steps_per_epoch=1)
    task.on_train_epoch_start()
    loss = task.training_step(batch_of(), 0)
    loss.backward()
    assert all(p.grad is not None for p in network.aux_heads.parameters())
    assert loss > task.epoch_terms["loss"][0]  # the coarser levels add to it
    task.on_validation_epoch_start()
    task.validation_step(batch_of(), 0)
    assert len(task.validation) == 2


def test_volumes_take_a_step_at_odd_sizes_with_four_channels_and_three_classes():
    from hymunet.data.phantoms import draw_volume
    from hymunet.data.preprocess import Preprocess, PreprocessConfig
    from hymunet.inference.predictor import Predictor
    from hymunet.network.hymunet import hymunet_tiny

    pixels, labels = draw_volume(0, size=(35, 51, 35), channels=4, num_labels=3)
    network = hymunet_tiny(4, 3, spatial_dims=3, activation="softmax")
    config = PreprocessConfig(
        None, "native", "image", (0.0,) * 4, (1.0,) * 4, network.config.stride
    )
    preprocess = Preprocess(config)
    label = preprocess.pad(torch.from_numpy(labels)[None, None])[0]
    batch = {
        "image": preprocess(torch.from_numpy(pixels)[None]),
        "label": label,
        "valid": preprocess.pad(torch.ones(1, 1, *labels.shape))[0].to(torch.uint8),
    }
    task = SegmentationTask(
        network, Settings(structures=2, activation="softmax"), steps_per_epoch=1
    )
    optimiser = task.configure_optimizers()["optimizer"]
    task.on_train_epoch_start()
    before = task.training_step(batch, 0)
    before.backward()
    optimiser.step()
    with torch.no_grad():
        assert task.training_step(batch, 1) < before
    predictor = Predictor(network, info={"preprocess": preprocess.to_dict()})
    prediction = predictor(pixels)
    assert prediction.mask.shape == (35, 51, 35)
    assert prediction.probability.shape == (3, 35, 51, 35)
    np.testing.assert_allclose(prediction.probability.sum(0), 1.0, atol=1e-5)
