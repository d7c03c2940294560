"""Counted costs obey the laws of arithmetic; the words on times are those of their exponents."""

import json

import pytest

from examples import cost_by_depth as example
from hymunet.errors import HyMUNetError
from hymunet.experiments import timing
from hymunet.experiments.profile.exponents import LINEAR

SIDES = (32, 64)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cost_by_depth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TURN_S", 0.0)
        example.main(sides=SIDES, rounds=2, output=folder)
    assert (folder / "cost_by_depth.png").stat().st_size > 5000
    return json.loads((folder / "cost_by_depth.json").read_text())


def cost(result, name, kind, blocks=2, stages=3, side=SIDES[-1]):
    wanted = {"kind": kind, "blocks": blocks, "stages": stages, "side": side}
    (row,) = (row for row in result["cells"] if wanted.items() <= row.items())
    return row[name]


@pytest.mark.parametrize("kind", example.KINDS)
@pytest.mark.parametrize("name", ["parameters", "multiply_adds"])
def test_every_block_adds_the_same(result, kind, name):
    one, two, four = (cost(result, name, kind, blocks) for blocks in (1, 2, 4))
    assert two > one
    assert four - two == 2 * (two - one)


@pytest.mark.parametrize("kind", example.KINDS)
def test_parameters_do_not_know_the_picture_and_grow_with_stages(result, kind):
    assert cost(result, "parameters", kind, side=32) == cost(result, "parameters", kind)
    by_stages = [cost(result, "parameters", kind, stages=stages) for stages in (2, 3, 4)]
    assert sorted(by_stages) == by_stages


def test_arithmetic_is_linear_in_the_pixels_but_for_attention(result):
    growth = {one["kind"]: one for one in result["growth"]}
    for kind in "CM":
        assert growth[kind]["multiply_adds"]["value"] == pytest.approx(1.0)
        assert growth[kind]["multiply_adds"]["verdict"] == "linear or less"
        assert cost(result, "multiply_adds", kind) == 4 * cost(
            result, "multiply_adds", kind, side=32
        )
    assert 1.0 < growth["A"]["multiply_adds"]["value"] < 2.0


def test_intervals_hold_their_exponents_and_verdicts_follow_from_them(result):
    for one in result["growth"]:
        for name in example.COSTS:
            found = one[name]
            low, high = (found[k] if found[k] is not None else found["value"]
                         for k in ("low", "high"))  # fmt: skip
            assert low <= found["value"] <= high
            if found["verdict"] == "linear or less":
                assert high <= LINEAR
            if low > LINEAR:
                assert found["verdict"] == "faster than the pixels"
            assert found["verdict"] in found["words"]
            assert f"pixels^{found['value']:.2f}" in found["words"]


def test_one_size_has_no_exponent(tmp_path):
    with pytest.raises(HyMUNetError, match="two or more different sides"):
        example.main(sides=(64, 64), output=tmp_path)
