"""What tells the skips apart."""

import pytest
import torch

from hymunet.network.fusion import FUSIONS, AttentionGateFusion, MambaGuidedFusion


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize(
    ("dims", "fine", "coarse"), [(2, (8, 6), (4, 3)), (3, (6, 4, 4), (3, 2, 2))]
)
def test_the_shallow_shape_comes_out(name, dims, fine, coarse):
    fusion = FUSIONS[name](4, 6, dims, "batch").eval()
    assert fusion(torch.randn(2, 4, *fine), torch.randn(2, 6, *coarse)).shape == (2, 4, *fine)


def test_a_closed_gate_hides_the_shallow_feature():
    fusion = MambaGuidedFusion(4, 6, 2, "batch").eval()
    torch.nn.init.zeros_(fusion.gate.weight)
    torch.nn.init.constant_(fusion.gate.bias, -200.0)
    deep = torch.randn(1, 6, 4, 4)
    first = fusion(torch.randn(1, 4, 8, 8), deep)
    second = fusion(torch.randn(1, 4, 8, 8), deep)
    assert torch.equal(first, second)
    torch.nn.init.constant_(fusion.gate.bias, 200.0)
    assert not torch.equal(fusion(torch.randn(1, 4, 8, 8), deep), first)


def test_the_deep_feature_opens_the_gate_per_channel_and_position():
    gates = {}
    for name, cls in (("mgf", MambaGuidedFusion), ("attention", AttentionGateFusion)):
        fusion = cls(4, 6, 2, "batch").eval()
        fusion.gate.register_forward_hook(lambda m, i, out, name=name: gates.update({name: out}))
        fusion(torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4))
    assert gates["mgf"].shape == (1, 4, 8, 8)
    assert gates["attention"].shape == (1, 1, 8, 8)
    assert gates["mgf"].std(dim=1).min() > 0
