"""The verb on drawn lesions: pictures, volumes, a single image; the page; refusals."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from hymunet.cli import main
from hymunet.data.image_io import Image
from hymunet.data.phantoms import draw_volume
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.experiments.inspect.terminal import verdict
from hymunet.experiments.inspect.view import part_diameters, view_of
from hymunet.workflows.inspect import inspect
from tests.evaluation.small_models import save_small, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "phantoms")


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return save_small(data, tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def seen(data, model, tmp_path_factory):
    """One inspection of the test part, with its folder."""
    folder = tmp_path_factory.mktemp("out") / "looked"
    return inspect(model, data, split="test", output=folder), folder


def test_the_numbers_are_written_and_complete(seen):
    result, folder = seen
    written = json.loads((folder / "inspect.json").read_text("utf-8"))
    assert [row["part"] for row in written["fields"]] == ["encoder 1", "encoder 2", "output"]
    first, second, output = written["fields"]
    assert first["theoretical_px"] > first["images"]["d95"] > first["images"]["d50"] > 0
    assert second["theoretical_px"] is output["theoretical_px"] is None
    assert first["images"]["n"] == 2
    assert first["noise"]["n"] == 8
    assert [row["level"] for row in written["gates"]] == [0]
    assert written["gates"][0]["n"] == 2
    assert len(written["memory"][0]["directions"]) == 4
    assert 0 < written["influence"][0]["own_share"] <= 1
    assert [row["period_px"] for row in written["checkerboard"]] == [2, 4]
    assert written["structures"]["n"] >= 2
    assert written["made"]["command"].startswith("hymunet inspect ")
    assert written["notes"] == result.notes
    with open(folder / "gates.csv", encoding="utf-8", newline="") as handle:
        gates = list(csv.DictReader(handle))
    changes = [float(row["after"]) / float(row["before"]) for row in gates]
    mean = np.exp(np.mean(np.log(changes)))
    assert written["gates"][0]["change"]["mean"] == pytest.approx(mean)


def test_scores_and_strata_are_those_of_evaluate(seen, data, model):
    result, _ = seen
    expected = evaluate(model, data, split="test")
    assert result.cases == expected.cases
    assert result.summary["scores"]["classes"] == expected.summary["classes"]


def test_the_page_is_whole_and_needs_no_network(seen):
    _, folder = seen
    page = (folder / "inspect.html").read_text("utf-8")
    assert not re.search(r"<script|https?:|src=\"(?!data:)", page)
    assert page.count("<img ") == page.count(' alt="')
    assert not re.search(r'alt="\s*"', page)
    assert "prefers-color-scheme: dark" in page
    for heading in ("What it sees", "let through", "scale by scale", "remembers", "Checkerboards"):
        assert heading in page
    # two cases, worst and best; three fields; features of two scales, one with a decoder
    assert page.count("data:image/jpeg") == 2
    assert page.count("data:image/png") == 3 + 2 + 6 + 1
    # ids of charts do not collide
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_model_file_and_its_network_are_left_alone(seen, data, model):
    before = model.read_bytes()
    again = inspect(model, data, split="test")
    assert model.read_bytes() == before
    ours = {k: v for k, v in seen[0].summary.items() if k != "made"}
    assert ours == {k: v for k, v in again.summary.items() if k != "made"}


def test_one_image_is_enough(data, model, tmp_path, capsys):
    picture = data / "images" / "phantom_0005.png"
    result = inspect(model, picture, output=tmp_path / "one", json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["n"] == 1
    assert printed["scores"] is None
    assert printed["gates"][0]["change"]["low"] is None  # nobody knows the spread of one
    assert any("own prediction" in note for note in result.notes)
    assert not (tmp_path / "one" / "cases.csv").exists()
    assert "data:image/jpeg" in (tmp_path / "one" / "inspect.html").read_text("utf-8")
    trained = inspect(model, data / "images" / "phantom_0000.png")
    assert any("was trained on this image" in note for note in trained.notes)
    assert not any("was trained on this image" in note for note in result.notes)
    with pytest.raises(HyMUNetError, match="is one image; --split"):
        inspect(model, picture, limit=3)


def test_trained_cases_are_refused_unless_forced(data, model):
    with pytest.raises(HyMUNetError, match="trained on: phantom_0000, phantom_0001"):
        inspect(model, data)
    result = inspect(model, data, split="train", force=True)
    assert any(note.startswith("FORCED") for note in result.notes)


def test_limit_and_missing_folders_of_weights_are_said(data, model, tmp_path):
    result = inspect(model, data, split="val", limit=1)
    assert result.summary["n"] == 1
    assert any("1 of 3 cases" in note for note in result.notes)
    with pytest.raises(HyMUNetError, match="folder of masks"):
        inspect(data / "masks", data)


@pytest.mark.parametrize("skip", ["concat", "attention"])
def test_other_skips(data, skip, tmp_path, capsys):
    from hymunet.network.hymunet import HyMUNet
    from hymunet.network.model_file import save_model

    network = HyMUNet(3, 1, dims=(4, 8), depths=(1, 1), stages="CC", skip=skip)
    path = save_model(tmp_path / "other.safetensors", network, {})
    assert (
        main(["inspect", str(path), str(data), "--split", "test", "--output", str(tmp_path)]) == 0
    )
    written = json.loads((tmp_path / "inspect.json").read_text("utf-8"))
    assert written["memory"] == []
    assert len(written["gates"]) == (skip == "attention")
    assert all(row["theoretical_px"] for row in written["fields"])
    assert ("no gate" in " ".join(written["notes"])) == (skip == "concat")
    assert "encoder 1" in capsys.readouterr().out


def test_volumes_have_fields_gates_and_memory(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    from hymunet.network.hymunet import HyMUNet
    from hymunet.network.model_file import save_model

    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(2):
        pixels, labels = draw_volume(2 * i, (20, 24, 22), channels=1, num_labels=2)
        for folder, array in (("images", pixels[0]), ("masks", labels)):
            image = nibabel.Nifti1Image(array.T, np.eye(4))
            nibabel.save(image, tmp_path / "data" / folder / f"v{i}.nii.gz")
    network = HyMUNet(
        1, 1, spatial_dims=3, dims=(4, 8), depths=(1, 1), stages="CM", d_state=2, conv_norm="group"
    )
    windows = PreprocessConfig(
        resize="window", patch_size=(16, 16, 16), normalisation="image", mean=(0,), std=(1,)
    )
    info = {"preprocess": Preprocess(windows).to_dict(), "classes": ["lesion"]}
    model = save_model(tmp_path / "volume.safetensors", network, info)
    result = inspect(model, tmp_path / "data", output=tmp_path / "out")
    assert result.summary["grid"] == [16, 16, 16]
    assert len(result.summary["memory"][0]["directions"]) == 6
    assert result.summary["gates"][0]["n"] == 2
    assert result.summary["fields"][-1]["images"]["d95"] > 1
    assert any("group norms" in note for note in result.notes)
    assert "data:image/png" in (tmp_path / "out" / "inspect.html").read_text("utf-8")


def test_a_view_is_on_the_networks_grid_and_knows_its_padding():
    pixels = np.zeros((1, 10, 20), np.uint8)
    labels = np.zeros((10, 20), np.uint8)
    labels[4:8, 10:18] = 1
    config = PreprocessConfig((32, 32), "letterbox", mean=(0.5,), std=(0.5,))
    view = view_of(Image(pixels), labels, None, Preprocess(config), 2, torch.device("cpu"))
    assert view.image.shape == (1, 1, 32, 32)
    assert view.counted[:16].all()
    assert not view.counted[16:].any()
    assert 75 < int(view.inside.sum()) < 90  # 32 pixels, each side 1.6 times as long
    valid = np.zeros((10, 20), bool)
    valid[:, :10] = True
    view = view_of(Image(pixels), labels, valid, Preprocess(config), 2, torch.device("cpu"))
    assert int(view.inside.sum()) == 0
    assert int(view.counted.sum()) == 256


@pytest.mark.parametrize("corner", [(0, 0), (30, 50)])
def test_a_window_is_cut_around_the_structure(corner):
    labels = np.zeros((40, 60), np.uint8)
    labels[corner[0] : corner[0] + 5, corner[1] : corner[1] + 5] = 1
    pixels = labels[None].astype(np.float32)
    config = PreprocessConfig(
        resize="window", patch_size=(16, 64), mean=(0.0,), std=(1.0,), multiple=16
    )
    view = view_of(Image(pixels), labels, None, Preprocess(config), 2, torch.device("cpu"))
    assert view.image.shape == (1, 1, 16, 64)
    assert int(view.inside.sum()) == 25
    assert torch.equal(view.image[0, 0] > 0.5, view.inside)
    assert not view.counted[:, 60:].any()


def test_parts_are_measured_one_by_one():
    inside = torch.zeros(20, 20, dtype=torch.bool)
    inside[2:6, 2:6] = True
    inside[10, 10] = inside[11, 11] = True  # touch at a corner: one part
    assert part_diameters(inside) == pytest.approx(
        [2 * (16 / np.pi) ** 0.5, 2 * (2 / np.pi) ** 0.5]
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.7, 0.9, "gates suppress"), (1.1, 1.3, "gates favour"), (0.9, 1.1, "is undecided")],
)
def test_the_verdict_goes_by_the_interval(low, high, words):
    change = {"mean": (low * high) ** 0.5, "low": low, "high": high}
    whole = {"level": None, "change": change, "n": 30}
    assert words in verdict([whole])
    each = [
        {"level": level, "change": {"mean": 1.0, "low": bounds[0], "high": bounds[1]}, "n": 30}
        for level, bounds in enumerate([(0.8, 0.9), (1.2, 1.3), (0.9, 1.2)])
    ]
    told = verdict([*each, whole]).partition("By itself, ")
    assert words in told[0]
    assert told[2] == (
        "skip 1 lets less of it through, skip 2 lets more of it through, skip 3 makes no "
        "difference that these cases can show."
    )


def test_of_few_images_nothing_is_concluded():
    change = {"mean": 0.8, "low": 0.7, "high": 0.9}
    said = verdict([{"level": None, "change": change, "n": 29}])
    assert "fewer than 30" in said
    assert "suppress" not in said


def test_an_image_that_is_none_is_refused_in_words(model, tmp_path):
    path = tmp_path / "broken.png"
    Picture.new("RGB", (8, 8)).save(path)
    path.write_bytes(path.read_bytes()[:30])
    assert main(["inspect", str(model), str(path)]) == 1
