"""Time part by part: the same pass, nothing left out, strips included."""

import pytest
import torch

from hymunet import HyMUNet
from hymunet.experiments import passes
from hymunet.experiments.profile.part_clock import REST, PartClock
from hymunet.network.summary import summarise

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2, "head_channels": 4}
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "sizes",
    [
        {"stages": "CCMM"},
        {"stages": "CCAA", "skip": "concat"},
        {"deep_supervision": True, "decoder_depth": 0},
    ],
    ids=str,
)
def test_parts_and_rest_are_the_whole_pass(sizes, monkeypatch):
    network = HyMUNet(**{**TOY, **sizes})
    clock = PartClock(network, CPU)
    image = torch.randn(1, 3, 64, 64)
    ticks = iter(range(1000))  # each look at the clock is a second later than the last
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    spent = clock(image)
    last = next(ticks)
    assert sum(spent.values()) == last - 1
    assert list(spent) == [*(part.name for part in summarise(network, (64, 64)).parts), REST]
    modules = {"stem": 1, "encoder 1": 1, "encoder 2": 2, "decoder 3": 2, "head": 1}
    assert {name: spent[name] for name in modules} == modules
    monkeypatch.undo()
    spent = clock(image)
    assert min(spent.values()) >= 0
    assert torch.equal(passes.forward(clock.network, image), passes.forward(network, image))


def test_large_features_are_still_computed_in_strips():
    """Where a forward hook watches they are not, and the pass would be another one."""
    network = HyMUNet(stages="CC", dims=(16, 16), depths=(1, 1), stem_stride=1)
    clock = PartClock(network, CPU)
    inner = clock.network.encoder.stem.inner
    rows, plain = [], inner.forward

    def counting(x):
        rows.append(x.shape[2])
        return plain(x)

    inner.forward = counting
    image = torch.randn(1, 3, 512, 512)  # 16 MiB of features
    spent = clock(image)
    assert len(rows) > 1
    assert max(rows) < 512
    assert spent["stem"] > 0
    assert torch.equal(passes.forward(clock.network, image), passes.forward(network, image))


def test_the_network_is_left_as_it_was():
    network = HyMUNet(**TOY)
    names = [name for name, _ in network.named_modules()]
    PartClock(network, CPU)(torch.randn(1, 3, 32, 32))
    assert [name for name, _ in network.named_modules()] == names
    assert network.training
