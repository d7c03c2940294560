"""What is trained sees noise alike, what is judged is judged right, and verdicts follow."""

import json

import numpy as np
import pytest
import torch

from examples import skip_on_noise as example

TINY = {"seeds": 2, "steps": 2}


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "LESIONS", 4)
        patch.setattr(example, "SIDE", 32)
        yield


@pytest.fixture(scope="module")
def result(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("skip_on_noise")
    example.main(**TINY, output=folder)
    assert (folder / "skip_on_noise.png").stat().st_size > 5000
    return json.loads((folder / "skip_on_noise.json").read_text())


def test_intervals_hold_their_means_and_verdicts_follow_from_them(result):
    for by_metric in result["scores"].values():
        for rows in by_metric.values():
            assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert len(result["differences"]) == 2 * 2 * (len(example.STRENGTHS) + 1)
    for one in result["differences"]:
        assert one["mean"] == pytest.approx(np.mean(one["by_seed"]))
        assert one["low"] <= one["mean"] <= one["high"]
        assert ("undecided" in one["verdict"]) == (one["low"] <= 0 <= one["high"])


def test_the_claim_is_the_lead_with_noise_minus_the_lead_without(result):
    for metric in example.METRICS:
        found = {
            one["what"]: np.array(one["by_seed"])
            for one in result["differences"]
            if (one["metric"], one["rival"]) == (metric, "concat")
        }
        np.testing.assert_allclose(found[example.GROWTH], found["noise 1.5"] - found["noise 0"])
        mgf, concat = (result["scores"][skip][metric][-1]["mean"] for skip in ("mgf", "concat"))
        assert found["noise 1.5"].mean() == pytest.approx(mgf - concat)


def test_the_same_seeds_give_the_same_numbers(tiny, result, tmp_path):
    again = json.loads(json.dumps(example.main(**TINY, output=tmp_path)))
    assert {**again, "machine": {}} == {**result, "machine": {}}


def test_a_verdict_names_the_better_or_nobody():
    ahead = np.array([0.1, 0.12, 0.11, 0.13])
    words = [
        example.difference("dice", "concat", "noise 1.5", x)["verdict"]
        for x in (ahead, -ahead, ahead - ahead.mean())
    ]
    assert [w.split(";")[0] for w in words] == [
        "dice, noise 1.5: MGF-Skip is better",
        "dice, noise 1.5: concat is better",
        "dice, noise 1.5: undecided",
    ]


def test_noise_is_half_grain_half_blotches_and_leaves_no_trace_of_the_lesion():
    rng = np.random.default_rng(0)
    fields = np.stack([example.noise(rng, 32) for _ in range(300)])
    assert fields.mean() == pytest.approx(0, abs=0.02)
    assert fields.var() == pytest.approx(0.5, abs=0.05)
    # grain is white: what neighbours share is the blotches' quarter
    shared = (fields[..., 1:] * fields[..., :-1]).mean()
    assert 0.1 < shared < 0.25


def test_a_network_that_is_right_scores_one_and_one_that_is_wrong_nothing():
    images, masks = example.lesions(0, 3, 32)
    truth = torch.from_numpy(masks[:, None]).float() - 0.5
    silent = np.zeros((3, 1, 32, 32), np.float32)
    right = example.judged(lambda noisy: truth, (images, masks), silent)
    wrong = example.judged(lambda noisy: -truth, (images, masks), silent)
    assert right == {metric: [1.0] * len(example.STRENGTHS) for metric in example.METRICS}
    assert wrong["dice"] == [0.0] * len(example.STRENGTHS)
