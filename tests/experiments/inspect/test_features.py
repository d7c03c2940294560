"""Energy and principal components of features, against numbers that are known."""

import pytest
import torch

from hymunet.experiments.inspect.features import principal_components, rms


def test_rms_is_over_channels():
    feature = torch.tensor([3.0, 4.0])[None, :, None, None].expand(1, 2, 2, 3)
    assert torch.equal(rms(feature), torch.full((2, 3), 12.5**0.5, dtype=torch.float64))


def test_components_are_found_in_order_whatever_the_rotation_of_channels():
    torch.manual_seed(0)
    sources = torch.randn(4, 50, dtype=torch.float64)
    sources = torch.linalg.qr((sources - sources.mean(dim=1, keepdim=True)).T)[0].T
    sources = sources * torch.tensor([4.0, 2.0, 1.0, 0.1])[:, None]
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    feature = (rotation @ sources).view(1, 4, 5, 10) + 7
    found, shares = principal_components(feature)
    assert shares == pytest.approx([16 / 21.01, 4 / 21.01, 1 / 21.01])
    for index in range(3):
        own, expected = found[index].flatten(), sources[index]
        assert min((own - expected).norm(), (own + expected).norm()) < 1e-6
        weights = feature[0].flatten(1) @ own
        assert weights[weights.abs().argmax()] > 0  # the sign is fixed


def test_few_channels_and_constant_features_are_filled_with_0():
    found, shares = principal_components(torch.full((1, 2, 3, 3), 5.0))
    assert found.shape == (3, 3, 3)
    assert shares == [0.0, 0.0, 0.0]
    assert float(found.abs().max()) < 1e-9
