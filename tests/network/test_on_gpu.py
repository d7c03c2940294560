"""What a GPU computes is what the CPU computes. Skipped, loudly, where torch sees none."""

import numpy as np
import pytest
import torch

from hymunet import HyMUNet, Predictor
from hymunet.network.hymunet import PRESETS
from hymunet.scan import backend_name, scan_orders
from tests.cases import scan_inputs

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NETWORKS ARE NOT TESTED ON A GPU: torch sees none"
)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Products in float32 and not in TensorFloat-32, which keeps ten bits."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def logits_and_gradients(network, image, device):
    network = network.to(device).eval()  # statistics of a batch would mix in its own rounding
    network.zero_grad()
    logits = network(image.to(device))
    logits.square().mean().backward()
    # copies: a network that moves on takes its gradients along
    slopes = {n: p.grad.to("cpu", copy=True) for n, p in network.named_parameters()}
    return logits.detach().cpu(), slopes


def networks():
    yield from ((name, PRESETS[name], (2, 3, 64, 96)) for name in PRESETS)
    yield "3-D", lambda: HyMUNet(2, 3, spatial_dims=3, conv_norm="group"), (1, 2, 32, 32, 48)


@pytest.mark.parametrize(("build", "shape"), [n[1:] for n in networks()], ids=[*PRESETS, "3-D"])
def test_a_network_gives_the_same_on_both(build, shape):
    assert backend_name("cuda") == "triton"
    network, image = build(), torch.randn(shape)
    wanted, slopes = logits_and_gradients(network, image, "cpu")
    logits, gradients = logits_and_gradients(network, image, "cuda")
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5)
    largest = max(slope.abs().max() for slope in slopes.values())
    for name, slope in slopes.items():
        away = (gradients[name] - slope).abs().max()
        assert away <= 1e-3 * slope.abs().max() + 1e-6 * largest, f"{name}: {away}"


def test_opcheck():
    order = scan_orders((3, 4))
    inputs = scan_inputs(2, 12, 4, 5, 3, torch.float32)
    given = [t.detach().cuda().requires_grad_() for t in inputs.values()]
    u, delta, A, B, C, D, bias = given
    torch.library.opcheck(
        torch.ops.hymunet.selective_scan.default,
        (u, delta, A, B, C, D, order.cuda(), bias, True),
        atol=1e-5,
        rtol=1e-4,
    )


def test_inductor_compiles_it_into_one_graph():
    network = PRESETS["tiny"]().cuda().eval()
    image = torch.randn(1, 3, 64, 64, device="cuda")
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-4)


def test_mixed_precision_stays_near():
    network = PRESETS["tiny"]().cuda().eval()
    image = torch.randn(2, 3, 64, 64, device="cuda")
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cuda", torch.bfloat16):
            rounded = network(image)
    assert rounded.isfinite().all()
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_mask_is_the_same_on_both():
    image = np.random.default_rng(0).integers(0, 256, (3, 180, 240), np.uint8)
    masks = [Predictor("isic2018-tiny", device=device)(image).mask for device in ("cpu", "cuda")]
    assert (masks[0] == masks[1]).mean() > 0.999
