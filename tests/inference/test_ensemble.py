"""Several models: the mean of what each says on the image's own grid, and what is said of them."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from hymunet import HyMUNet, Predictor
from hymunet.cli import main
from hymunet.errors import HyMUNetError
from hymunet.inference.ensemble import joined_info
from hymunet.inference.predict import predict
from hymunet.network.model_file import save_model

TOY = {"dims": (4, 8), "depths": (1, 1), "d_state": 2, "stages": "CM"}
SQUEEZE = {
    "image_size": (32, 48), "resize": "squeeze", "normalisation": "dataset",
    "mean": (0.7, 0.5, 0.4), "std": (0.2, 0.1, 0.3), "multiple": 16,
}  # fmt: skip
WINDOW = {
    "resize": "window", "patch_size": (16, 32), "normalisation": "image",
    "mean": (0.5,) * 3, "std": (0.25,) * 3, "multiple": 16,
}  # fmt: skip


def save(path, seed, channels=3, classes=1, **info):
    torch.manual_seed(seed)
    activation = info.pop("activation", "sigmoid")
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_model(path, HyMUNet(channels, classes, activation=activation, **TOY), info)


@pytest.fixture
def models(tmp_path):
    """Three networks that read an image each in its own way."""
    return [
        save(tmp_path / f"{seed}.safetensors", seed, **({"preprocess": one} if one else {}))
        for seed, one in enumerate((None, SQUEEZE, WINDOW))
    ]


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_the_mean_whatever_each_preprocesses(models, picture, tta):
    alone = [Predictor(model, tta=tta)(picture).probability for model in models]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(alone, 2)) > 1e-3
    together = Predictor(models, tta=tta)(picture)
    np.testing.assert_allclose(together.probability, np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(together.mask, together.probability[0] >= 0.5)
    turned = Predictor(models[::-1], tta=tta)(picture).probability
    np.testing.assert_allclose(turned, together.probability, atol=1e-6)


def test_one_in_a_list_is_itself(models, picture):
    expected = Predictor(models[1])(picture).probability
    np.testing.assert_array_equal(Predictor([str(models[1])])(picture).probability, expected)
    networks = [Predictor(model).network for model in models[:1]] * 3
    same = Predictor(networks)(picture).probability
    np.testing.assert_allclose(same, Predictor(models[0])(picture).probability, atol=1e-6)


def test_softmax_models(tmp_path, picture):
    files = [save(tmp_path / f"{s}.safetensors", s, 3, 4, activation="softmax") for s in (0, 1)]
    probability = np.mean([Predictor(file)(picture).probability for file in files], axis=0)
    together = Predictor(files)(picture)
    np.testing.assert_allclose(together.probability.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(together.probability, probability, atol=1e-6)
    np.testing.assert_array_equal(together.mask, together.probability.argmax(axis=0))


def test_progress_rises_to_the_whole(models, picture):
    shares = []
    Predictor([models[2], *models[:2]])(picture, shares.append)  # windows, then two at once
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1 / 3)
    shares.clear()
    Predictor(models[2])(picture, shares.append)
    assert (shares[-1], len(shares)) == (1.0, len(set(shares)))
    assert len(shares) > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 1}, r"has input channels 3, .*other\.safetensors has 1"),
        ({"classes": 2}, "has output channels 1, .* has 2"),
        ({"classes": 2, "activation": "softmax"}, "has output channels"),
        ({"names": ["vessel"]}, "has classes lesion, .* has vessel"),
    ],
)
def test_models_that_mean_other_things_are_refused(tmp_path, change, words):
    network = HyMUNet(3, 1, **TOY)
    one = save_model(tmp_path / "one.safetensors", network, {"classes": ["lesion"]})
    own = {"channels": 3, "classes": 1, "activation": "sigmoid"} | change
    network = HyMUNet(own["channels"], own["classes"], activation=own["activation"], **TOY)
    names = own.get("names", ["lesion"] if network.config.num_labels == 2 else None)
    other = save_model(tmp_path / "other.safetensors", network, {"classes": names})
    with pytest.raises(HyMUNetError, match=f"cannot predict together: .*{words}"):
        Predictor([one, other])
    with pytest.raises(HyMUNetError, match=r"one\.safetensors is named twice"):
        Predictor([one, str(one)])
    with pytest.raises(HyMUNetError, match="no model is given"):
        Predictor([])


# --- what is said of several ------------------------------------------------------------------


def info(**changes):
    return {
        "licence": "CC0-1.0", "threshold": 0.4, "label_values": [0, 7],
        "cases": {"train": ["a", "b"], "val": ["c"]},
        "training": {"data": "drawn", "options": {"select": "last"}},
    } | changes  # fmt: skip


def test_metadata_of_several():
    one, two = info(), info(cases={"train": {"x": "c"}, "val": ["a", "d"]}, licence=None)
    joined, notes = joined_info([one, two])
    assert joined["cases"] == {"train": ["a", "b", "c"], "val": ["d"]}  # trained on by any
    assert joined["licence"] == "CC0-1.0; licence not stated"
    assert (joined["threshold"], joined["label_values"]) == (0.4, [0, 7])
    assert joined["training"] == {"options": {"select": "last"}, "data": "drawn"}
    assert notes == []
    promise = {"risk_control": {"cases": ["e"]}, "calibration": {"cases": ["f"]}}
    third = info(threshold=0.7, label_values=[0, 9], cases={}, training={}, **promise)
    joined, notes = joined_info([one, two, third])
    assert joined["threshold"] == pytest.approx(0.5)
    assert "label_values" not in joined
    assert "risk_control" not in joined
    assert joined["calibration"] == {"cases": ["e", "f"]}
    assert joined["training"]["options"] == {}  # of the third it is not known
    assert [note.split(":")[0] for note in notes] == [
        "the models' files name different values of the masks' files",
        "1 of the 3 models list no training cases",
    ]


def test_one_threshold_for_all(tmp_path, picture):
    files = [save(tmp_path / f"{s}.safetensors", s, threshold=t) for s, t in enumerate((0.3, 0.5))]
    assert Predictor(files).threshold == pytest.approx(0.4)
    assert Predictor(files, threshold=0.6).threshold == 0.6
    assert Predictor(files[:1]).threshold == 0.3


RECORD = {"miss_rate": 0.1, "threshold": 0.3, "n": 120, "tta": False}


def test_predict_with_several_says_what_it_does(folder, tmp_path, capsys):
    terms = [{"licence": "CC0-1.0", "risk_control": RECORD}, {"licence": "CC-BY-NC-4.0"}]
    files = [
        save(tmp_path / f"{s}.safetensors", s, threshold=t, **info)
        for s, (t, info) in enumerate(zip((0.3, 0.5), terms, strict=True))
    ]
    named = list(itertools.chain.from_iterable(("--model", str(file)) for file in files))
    output = tmp_path / "out"
    assert main(["predict", str(folder / "a.png"), *named, "--output", str(output)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    for words in (
        f"model {files[0]}: trained on", f"model {files[1]}: trained on", "licence: CC0-1.0;",
        "licence: CC-BY-NC-4.0, no commercial use", "the mean of 2 models' probabilities, cut at "
        "0.4, the mean of 0.3, 0.5", "set for one model alone, and this is the mean of 2",
    ):  # fmt: skip
        assert words in said, words
    written = json.loads((output / "measurements.json").read_text())
    assert written["model"] == [str(file) for file in files]
    assert written["miss_rate"] is None
    assert written["threshold"] == pytest.approx(0.4)
    assert written["licence"] == "CC0-1.0; CC-BY-NC-4.0"
    mask = np.asarray(Image.open(output / "a.png"))
    np.testing.assert_array_equal(mask == 255, Predictor(files)(folder / "a.png").mask)


def test_a_folder_of_folds_is_all_of_them(folder, tmp_path, capsys):
    files = [save(tmp_path / "run" / f"fold-{s}" / "best.safetensors", s) for s in range(3)]
    expected = Predictor(files)(folder / "a.png")
    together = Predictor(tmp_path / "run")
    assert len(together.members) == 3
    np.testing.assert_array_equal(together(folder / "a.png").probability, expected.probability)
    predict(str(folder), model=[tmp_path / "run"], output=tmp_path / "out")
    assert "the mean of 3 models' probabilities, cut at 0.5\n" in capsys.readouterr().err
    files[1].unlink()
    with pytest.raises(HyMUNetError, match=r"fold-1 of .*run hold no best"):
        predict(str(folder), model=[tmp_path / "run"], output=tmp_path / "out")
