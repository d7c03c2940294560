"""Each loss term at known values, against independent implementations, and at the extremes."""

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

from hymunet.training.losses import (
    LossWeights,
    boundary_loss,
    cross_entropy_loss,
    dice_loss,
    encode_labels,
    hybrid_loss,
    probabilities,
)


def disc(radius, size=24, centre=(12, 12)):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).float()[None, None]


def logits_of(mask, confidence=40.0):
    return (2 * mask - 1) * confidence


def test_cross_entropy_of_indifference_is_the_logarithm_of_the_choices():
    target = disc(5)
    assert cross_entropy_loss(torch.zeros_like(target), target, "sigmoid").item() == pytest.approx(
        math.log(2)
    )
    labels = torch.randint(0, 5, (2, 6, 6))
    one_hot = encode_labels(labels, 5, "softmax")
    loss = cross_entropy_loss(torch.zeros(2, 5, 6, 6), one_hot, "softmax")
    assert loss.item() == pytest.approx(math.log(5))


def test_cross_entropy_agrees_with_torch():
    labels, logits = torch.randint(0, 3, (2, 7, 5)), torch.randn(2, 3, 7, 5)
    ours = cross_entropy_loss(logits, encode_labels(labels, 3, "softmax"), "softmax")
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels))


def test_weights_of_classes_agree_with_torch_and_serve_nested_structures_too():
    labels, logits = torch.randint(0, 3, (2, 7, 5)), torch.randn(2, 3, 7, 5)
    target, weights = encode_labels(labels, 3, "softmax"), (0.2, 1.0, 5.0)
    ours = cross_entropy_loss(logits, target, "softmax", class_weights=weights)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, torch.tensor(weights)))
    # pixels of a class without weight change nothing, whatever is said of them
    nested = encode_labels(labels, 2, "sigmoid")
    two = logits[:, :2]
    loss = cross_entropy_loss(two, nested, "sigmoid", class_weights=(1.0, 0.0, 2.0))
    other = torch.where((labels == 1)[:, None], -two, two)
    same = cross_entropy_loss(other, nested, "sigmoid", class_weights=(1.0, 0.0, 2.0))
    torch.testing.assert_close(loss, same)
    assert not torch.isclose(loss, cross_entropy_loss(two, nested, "sigmoid"))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("grid", [(9, 11), (5, 6, 7)], ids=["2-D", "3-D"])
def test_dice_agrees_with_monai(activation, grid):
    logits, labels = torch.randn(3, 4, *grid), torch.randint(0, 4, (3, *grid))
    target = encode_labels(labels, 4, activation)
    ours = dice_loss(probabilities(logits, activation), target, activation)
    theirs = DiceLoss(
        sigmoid=activation == "sigmoid",
        softmax=activation == "softmax",
        include_background=activation == "sigmoid",
        smooth_nr=1.0,
        smooth_dr=1.0,
    )
    torch.testing.assert_close(ours, theirs(logits, target))


def test_a_perfect_prediction_costs_nothing_and_a_disjoint_one_everything():
    target = disc(6)
    terms = hybrid_loss(logits_of(target), target)
    assert all(value.item() == pytest.approx(0.0, abs=1e-5) for value in terms.values())
    away = hybrid_loss(logits_of(disc(4, centre=(3, 3))), disc(4, centre=(19, 19)))
    assert away["dice_loss"].item() > 0.97
    assert away["boundary"].item() > 0.97


def boundary_by_loops(probability, target, valid):
    """The definition with Python loops, for (1, 1, height, width)."""
    height, width = target.shape[-2:]

    def gradient(x, i, j):
        window = x[0, 0, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        return (window.max() - window.min()).item()

    both = size = 0.0
    for i in range(height):
        for j in range(width):
            if valid[0, 0, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].min() == 0:
                continue
            p, t = gradient(probability, i, j), gradient(target, i, j)
            both += p * t
            size += p * p + t * t
    return 1 - (2 * both + 1) / (size + 1)


def test_boundary_agrees_with_the_definition():
    probability, target = torch.rand(1, 1, 10, 13), (torch.rand(1, 1, 10, 13) > 0.5).float()
    valid = (torch.rand(1, 1, 10, 13) > 0.1).float()
    ours = boundary_loss(probability, target, "sigmoid", valid)
    assert ours.item() == pytest.approx(boundary_by_loops(probability, target, valid), rel=1e-5)


def test_boundary_sees_a_shift_that_leaves_the_area_alone():
    target = disc(7)
    near = boundary_loss(disc(7, centre=(12, 13)), target, "sigmoid").item()
    far = boundary_loss(disc(7, centre=(12, 16)), target, "sigmoid").item()
    assert 0.05 < near < far


def test_a_mask_that_touches_the_frame_has_no_edge_there():
    whole = torch.ones(1, 1, 8, 8)
    assert boundary_loss(whole, whole, "sigmoid").item() == 0.0
    assert boundary_loss(torch.zeros_like(whole), whole, "sigmoid").item() == 0.0


def test_what_is_not_valid_changes_nothing():
    target, valid = disc(6), torch.ones(1, 1, 24, 24)
    valid[..., :9] = 0
    logits = torch.randn(1, 1, 24, 24)
    changed = logits.clone()
    changed[..., :9] = 5 * torch.randn(1, 1, 24, 9)
    other = target.clone()
    other[..., :9] = 1 - other[..., :9]
    first = hybrid_loss(logits, target, valid=valid)
    second = hybrid_loss(changed, other, valid=valid)
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_the_rim_of_the_valid_area_is_no_edge():
    valid = torch.ones(1, 1, 16, 16)
    valid[..., 8:] = 0
    inside = torch.ones(1, 1, 16, 16)  # all structure: no edge but the rim's
    probability = torch.full_like(inside, 0.9) * valid
    assert boundary_loss(probability, inside * valid, "sigmoid", valid).item() == pytest.approx(0.0)


def test_weights_add_up_and_every_term_is_reported():
    logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    terms = hybrid_loss(logits, target, weights=LossWeights(2.0, 0.0, 0.25))
    assert set(terms) == {"loss", "cross_entropy", "dice_loss", "boundary"}
    assert terms["dice_loss"] > 0
    torch.testing.assert_close(
        terms["loss"], 2.0 * terms["cross_entropy"] + 0.25 * terms["boundary"]
    )


@pytest.mark.parametrize("fill", [0.0, 1.0], ids=["empty", "full"])
@pytest.mark.parametrize(
    ("dtype", "extreme"),
    [
        (torch.float16, 60000.0),
        (torch.float16, -60000.0),
        (torch.bfloat16, 3e38),
        (torch.bfloat16, -3e38),
        (torch.float32, 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_gradients_stay_finite_at_the_extremes(fill, dtype, extreme, activation):
    logits = torch.zeros(2, 2, 8, 8, dtype=dtype)
    logits[:, 1] = extreme
    logits.requires_grad_()
    labels = torch.full((2, 8, 8), int(fill))
    terms = hybrid_loss(logits, encode_labels(labels, 2, activation), activation)
    terms["loss"].backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(logits.grad).all()


def test_each_term_pulls_towards_the_target():
    target = disc(6, size=16, centre=(8, 8))
    for weights in (LossWeights(1, 0, 0), LossWeights(0, 1, 0), LossWeights(0, 0, 1)):
        logits = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
        logits.requires_grad_()
        before = hybrid_loss(logits, target, weights=weights)["loss"]
        for _ in range(200):
            loss = hybrid_loss(logits, target, weights=weights)["loss"]
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - 20.0 * gradient).detach().requires_grad_()
        assert hybrid_loss(logits, target, weights=weights)["loss"] < 0.5 * before


def test_labels_become_targets():
    labels = torch.tensor([[[0, 1, 2]]])
    assert encode_labels(labels, 3, "softmax")[0, :, 0].tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]
    # nested: the first structure holds the second
    assert encode_labels(labels, 2, "sigmoid")[0, :, 0].tolist() == [[0, 1, 1], [0, 0, 1]]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="encode_labels"):
        hybrid_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"valid must be \(1, 1, 4, 4\)"):
        hybrid_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), valid=torch.ones(1, 2, 4, 4))
