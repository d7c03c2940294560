"""The tasks are what they are said to be, and the verdicts are those of the numbers."""

import json

import numpy as np
import pytest
import torch

from examples import local_or_global as example
from hymunet.metrics.statistics import paired_sign_flip

TINY = {"seeds": 2, "steps": 2}


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "TEST_PICTURES", 60)
        yield


@pytest.fixture(scope="module")
def result(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local_or_global")
    example.main(**TINY, output=folder)
    assert (folder / "local_or_global.png").stat().st_size > 5000
    return json.loads((folder / "local_or_global.json").read_text())


def test_intervals_hold_their_means_and_verdicts_follow_from_them(result):
    rows = [row for task in result["accuracy"].values() for row in task.values()]
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert len(result["differences"]) == 6
    assert all(0 <= x <= 1 for row in result["by_distance"].values() for x in row)
    for one in result["differences"]:
        means = [result["accuracy"][one["task"]][one[name]]["mean"] for name in ("first", "second")]
        assert one["mean"] == pytest.approx(means[0] - means[1])
        assert one["mean"] == pytest.approx(np.mean(one["by_seed"]))
        assert one["low"] <= one["mean"] <= one["high"]
        assert ("undecided" in one["verdict"]) == (one["low"] <= 0 <= one["high"])


def test_the_same_seeds_give_the_same_numbers(tiny, result, tmp_path):
    again = json.loads(json.dumps(example.main(**TINY, output=tmp_path)))
    assert {**again, "machine": {}} == {**result, "machine": {}}


def test_a_verdict_names_the_better_or_nobody():
    ahead = [0.1, 0.12, 0.11, 0.13, 0.12, 0.1, 0.14, 0.12]
    words = [
        example.difference("texture", "Mamba", "attention", x)["verdict"]
        for x in (ahead, [-d for d in ahead], [-0.1, 0.1] * 4)
    ]
    assert paired_sign_flip(ahead, [0.0] * 8) < 0.05
    assert [w.split(";")[0] for w in words] == [
        "texture: Mamba is better",
        "texture: attention is better",
        "texture: undecided",
    ]
    assert words[0].endswith("Mamba - attention +11.8 (+10.6 to +12.9) points")


def test_networks_have_the_same_size():
    sizes = [example.parameters(b, c) for b, c in example.matched_channels(16).items()]
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize(("block", "sees"), [("convolution", False), ("Mamba", True)])
def test_the_mark_is_out_of_reach_of_convolution_alone(block, sees):
    image, target, valid, _ = example.distant_mark(np.random.default_rng(0), 100)
    assert target.sum((1, 2, 3)).count_nonzero() == 50
    other = torch.where(image.abs() > 3, -image, image) * (1 - valid) + image * valid
    assert ((other != image).sum((1, 2, 3)) > 0).all()
    network = example.one_layer(block, 8).eval()
    with torch.inference_mode():
        change = ((network(image) - network(other)) * valid).abs().amax((1, 2, 3))
    # a mark that is forgotten on the way is no wonder for a network that has learnt nothing
    assert (change == 0).all() if not sees else (change > 0).float().mean() > 0.9


def test_only_the_direction_of_the_stripes_tells_the_textures_apart():
    image, target, _, _ = example.texture(np.random.default_rng(0), 400)
    inner = torch.zeros(example.SIDE, example.SIDE, dtype=torch.bool)
    for start in range(0, example.SIDE, example.PATCH):
        for other in range(0, example.SIDE, example.PATCH):
            inner[start + 1 : start + example.PATCH, other + 1 : other + example.PATCH] = True
    one, two = image[target > 0], image[target == 0]
    assert one.mean() == pytest.approx(two.mean().item(), abs=0.02)
    assert one.var() == pytest.approx(two.var().item(), abs=0.04)
    left = (image * image.roll(1, dims=3))[..., inner]  # neighbours in a row
    falling = (image * image.roll((1, 1), dims=(2, 3)))[..., inner]
    aims = target[..., inner] > 0
    assert abs(left[aims].mean() - left[~aims].mean()) < 0.03
    assert falling[~aims].mean() > 0.9
    assert falling[aims].mean() < -0.9
