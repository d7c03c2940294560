"""The verb end to end on written files: masks of any tool, a real model file, and refusals."""

import csv
import json
import shlex
import sys
from collections import Counter

import numpy as np
import pytest

from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.data.mask_writing import write_mask
from hymunet.data.phantoms import write_phantoms
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate, score_case
from hymunet.evaluation.truth import read_truth
from hymunet.metrics.case import METRICS, case_metrics
from tests.data.dicom_files import save, segmentation, slices, volume, write_series
from tests.data.drawn_files import described, picture

SPLIT = ("train", "train", "train", "val", "test", "test")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Six phantoms of 48 x 64 pixels, three of them train, one val, two test."""
    folder = write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 6, (48, 64))
    rows = [f"phantom_{i:04d},{part}\n" for i, part in enumerate(SPLIT)]
    (folder / "split.csv").write_text("case,split\n" + "".join(rows), encoding="utf-8")
    return folder


@pytest.fixture
def shifted(phantoms, tmp_path):
    """The phantoms' masks moved by three pixels, as another tool might have written them."""
    folder = tmp_path / "predicted"
    folder.mkdir()
    for path in sorted((phantoms / "masks").iterdir()):
        moved = np.roll(read_mask(path).labels, 3, axis=1)
        write_mask(folder / f"{path.stem}_seg.png", moved)
    return folder


def save_untrained(phantoms, path, **options):
    """A small network whose file says which cases it was trained on, and how."""
    torch = pytest.importorskip("torch")
    from hymunet.network.hymunet import HyMUNet
    from hymunet.network.model_file import save_model

    torch.manual_seed(0)
    network = HyMUNet(stages="CM", dims=(4, 8), depths=(1, 1), d_state=2)
    hashes = {"train": [], "val": [], "test": []}
    for i, part in enumerate(SPLIT):
        pixels = read_image(phantoms / "images" / f"phantom_{i:04d}.png", 3).pixels
        hashes[part].append(case_hash(pixels))
    training = {"contrast_median": 2.5, "options": options}
    info = {"classes": ["lesion"], "cases": hashes, "training": training}
    return save_model(path, network, info)


@pytest.fixture(scope="module")
def model(phantoms, tmp_path_factory):
    """Its epoch was the best on validation."""
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    return save_untrained(phantoms, path, select="best")


class OpenedFiles:
    """Counts how often each file is opened while it is active."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.active = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.active and event == "open":
            self.counts[str(arguments[0])] += 1

    def __enter__(self) -> Counter[str]:
        sys.addaudithook(self)  # it cannot be removed again, only told to do nothing
        self.active = True
        return self.counts

    def __exit__(self, *_: object) -> None:
        self.active = False


def test_masks_against_a_data_set_end_to_end(phantoms, shifted, tmp_path, capsys):
    output = tmp_path / "out"
    result = evaluate(shifted, phantoms, output=output)
    assert [row["case"] for row in result.cases] == [f"phantom_{i:04d}" for i in range(6)]
    expected = []
    for row in result.cases:
        target = read_mask(phantoms / "masks" / f"{row['case']}.png").labels
        exact = case_metrics(np.roll(target, 3, axis=1) == 1, target == 1)
        assert {name: row[name] for name in METRICS} == {name: exact[name] for name in METRICS}
        expected.append(exact["dice"])
    entry = result.summary["classes"]["foreground"]
    assert entry["per_image"]["dice"]["mean"] == pytest.approx(np.mean(expected))
    assert 0 < np.mean(expected) < 1

    with open(output / "cases.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["dice"]) for row in rows] == [row["dice"] for row in result.cases]
    assert {"case", "class", "seen", "unit", "size_band", "contrast_band", *METRICS} <= set(rows[0])
    written = json.loads((output / "metrics.json").read_text("utf-8"))
    assert written["classes"]["foreground"]["per_image"] == entry["per_image"]
    assert written["length_unit"] == "px"
    assert result.report == output / "report.html"
    assert result.report.is_file()
    printed = capsys.readouterr().out
    assert f"{np.mean(expected):.3f}" in printed
    assert "pooled" in printed


def test_without_output_nothing_is_written_and_json_is_all_of_stdout(phantoms, shifted, capsys):
    before = sorted(shifted.parent.rglob("*"))
    result = evaluate(str(shifted), phantoms, split="test", json=True)
    assert sorted(shifted.parent.rglob("*")) == before
    assert result.report is None
    printed = json.loads(capsys.readouterr().out)
    assert printed["n"] == 2
    assert printed["split"] == "test"
    assert any("2 of 6 cases: the part test of" in note for note in printed["notes"])


def test_perfect_masks_score_one_and_are_zero_away(phantoms):
    result = evaluate(phantoms / "masks", phantoms)
    entry = result.summary["classes"]["foreground"]
    assert entry["per_image"]["dice"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert entry["per_image"]["hd"]["mean"] == 0
    assert entry["pooled"]["iou"] == 1


def test_two_plain_folders_of_masks(phantoms, shifted, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for path in (phantoms / "masks").iterdir():
        (truth / f"{path.stem}_mask.png").write_bytes(path.read_bytes())
    plain = evaluate(shifted, truth, output=tmp_path / "out")
    full = evaluate(shifted, phantoms)
    assert [r["dice"] for r in plain.cases] == [r["dice"] for r in full.cases]
    assert all(row["contrast"] is None for row in plain.cases)
    assert any("no contrast" in note for note in plain.notes)


def test_missing_and_extra_masks_are_counted_and_listed(phantoms, shifted):
    (shifted / "phantom_0002_seg.png").rename(shifted / "other.png")
    words = r"1 missing \(phantom_0002\) and 1 extra \(other.png\)"
    with pytest.raises(HyMUNetError, match=words):
        evaluate(shifted, phantoms)
    with pytest.raises(HyMUNetError, match=r"got 0 missing and 1 extra \(other.png\)"):
        evaluate(shifted, phantoms, split="test")
    (shifted / "other.png").unlink()
    assert evaluate(shifted, phantoms, split="test").summary["n"] == 2  # its masks are all there
    (shifted / "phantom_0002.png").write_bytes((shifted / "phantom_0001_seg.png").read_bytes())
    (shifted / "phantom_0002_mask.png").write_bytes((shifted / "phantom_0002.png").read_bytes())
    with pytest.raises(HyMUNetError, match=r"several masks are meant for one case.*phantom_0002"):
        evaluate(shifted, phantoms)


def test_masks_of_another_size_are_refused(phantoms, shifted):
    write_mask(shifted / "phantom_0001_seg.png", np.ones((24, 32), np.uint8))
    words = r"phantom_0001: the reference has the size \(48, 64\), the prediction \(24, 32\)"
    with pytest.raises(HyMUNetError, match=words):
        evaluate(shifted, phantoms)


def test_what_is_neither_model_nor_masks_is_refused(phantoms, tmp_path):
    with pytest.raises(HyMUNetError, match="a run folder or a folder of masks"):
        evaluate(tmp_path, phantoms)
    (tmp_path / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    with pytest.raises(HyMUNetError, match=r"holds no best.safetensors yet"):
        evaluate(tmp_path, phantoms)
    with pytest.raises(HyMUNetError, match="no file or folder"):
        evaluate(phantoms / "masks", tmp_path / "nowhere")
    with pytest.raises(HyMUNetError, match="expected --split train, val or test, got 'tset'"):
        evaluate(phantoms / "masks", phantoms, split="tset")


def test_a_case_that_was_trained_on_is_refused_and_forcing_is_told(phantoms, model, capsys):
    words = r"3 of 6 cases were trained on: phantom_0000, phantom_0001, phantom_0002;.*--split test"
    with pytest.raises(HyMUNetError, match=words):
        evaluate(model, phantoms)
    result = evaluate(model, phantoms, force=True, output=model.parent / "forced")
    assert [row["seen"] for row in result.cases] == ["train"] * 3 + ["val", "", ""]
    assert result.summary["forced"]
    assert sum(note.startswith("FORCED: 3 of 6 cases") for note in result.notes) == 1
    assert "TRAINED ON" in capsys.readouterr().out
    assert "FORCED: 3 of 6 cases" in result.report.read_text("utf-8")


def test_a_renamed_copy_of_a_training_image_is_recognised(phantoms, model, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        content = (phantoms / kind / "phantom_0001.png").read_bytes()
        (tmp_path / kind / "innocent.png").write_bytes(content)
    with pytest.raises(HyMUNetError, match="1 of 1 case was trained on: innocent"):
        evaluate(model, tmp_path)


def test_every_training_case_is_named_wherever_it_comes_and_nothing_is_written(
    phantoms, model, tmp_path
):
    data, output = tmp_path / "data", tmp_path / "out"
    order = {"a_new": 4, "b_known": 1, "c_new": 5, "d_known": 0}
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        for name, index in order.items():
            content = (phantoms / kind / f"phantom_{index:04d}.png").read_bytes()
            (data / kind / f"{name}.png").write_bytes(content)
    with pytest.raises(HyMUNetError, match="2 of 4 cases were trained on: b_known, d_known;"):
        evaluate(model, data, output=output)
    assert list(output.iterdir()) == []


def test_the_training_part_is_scored_only_by_force(phantoms, model):
    with pytest.raises(HyMUNetError, match="3 of 3 cases were trained on"):
        evaluate(model, phantoms, split="train")
    result = evaluate(model, phantoms, split="train", force=True)
    assert [row["seen"] for row in result.cases] == ["train"] * 3
    assert result.summary["forced"]


def test_each_image_is_read_once_for_the_check_and_the_score(phantoms, model):
    files = [phantoms / "images" / f"phantom_{i:04d}.png" for i in (4, 5)]
    with OpenedFiles() as once:
        for path in files:
            read_image(path)
    with OpenedFiles() as both:
        evaluate(model, phantoms, split="test")
    for path in map(str, files):
        assert both[path] == once[path] >= 1


def test_held_out_cases_are_scored_and_validation_cases_called_optimistic(phantoms, model, capsys):
    held_out = evaluate(model, phantoms, split="test")
    assert [row["seen"] for row in held_out.cases] == ["", ""]
    assert not any("optimistic" in note for note in held_out.notes)
    assert any("cut at 2.5, the median of the training cases" in n for n in held_out.notes)
    assert list(held_out.summary["classes"]) == ["lesion"]
    assert "optimistic" not in capsys.readouterr().out
    chose = evaluate(model, phantoms, split="val", output=model.parent / "val")
    assert [row["seen"] for row in chose.cases] == ["val"]
    assert "these cases chose the epoch: optimistic" in chose.notes[-2] + chose.notes[-1]
    assert "optimistic" in capsys.readouterr().out
    assert "these cases chose the epoch: optimistic" in chose.report.read_text("utf-8")


@pytest.mark.parametrize(("patience", "chose"), [(0, False), (5, True)], ids=str)
def test_validation_cases_of_a_model_of_the_last_epoch_chose_nothing(
    phantoms, tmp_path, capsys, patience, chose
):
    path = tmp_path / "last.safetensors"
    save_untrained(phantoms, path, select="last", patience=patience)
    result = evaluate(path, phantoms, split="val", output=tmp_path / "out")
    assert [row["seen"] for row in result.cases] == ["val"]
    assert (result.summary["chose_the_epoch"], result.summary["watched"]) == (chose, not chose)
    told = " ".join(capsys.readouterr().out.split())
    page = result.report.read_text("utf-8")
    for text in (told, page, " ".join(result.notes)):
        assert ("these cases chose the epoch: optimistic" in text) is chose
        assert ("were watched during training but chose nothing" in text) is not chose
    assert ("1 of them watched during training, chose nothing" in told) is not chose
    assert ('class="warning"' in page) is chose


def test_the_command_in_the_report_repeats_the_evaluation(phantoms, tmp_path):
    from hymunet.cli import main

    data = tmp_path / "my data"
    pictures, truth, other = (data / name for name in ("the pictures", "by hand", "other's"))
    for folder, kind in ((pictures, "images"), (truth, "masks"), (other, "masks")):
        folder.mkdir(parents=True)
        for path in (phantoms / kind).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "out put"
    options = {"images": pictures, "masks": truth, "num_labels": 2, "output": output}
    result = evaluate(other, data, **options)
    command = result.summary["made"]["command"]
    words = shlex.split(command)
    assert words[:4] == ["hymunet", "evaluate", str(other), str(data)]
    for name, value in options.items():
        assert words[words.index("--" + name.replace("_", "-")) + 1] == str(value)
    assert not {"--force", "--split", "--device"} & set(words)
    first = json.loads((output / "metrics.json").read_text("utf-8"))
    (output / "metrics.json").unlink()
    assert main(words[1:]) == 0
    second = json.loads((output / "metrics.json").read_text("utf-8"))
    assert second["classes"] == first["classes"]
    assert second["made"]["command"] == command


def test_flags_in_the_command(phantoms, model):
    result = evaluate(model, phantoms, split="train", force=True, device="cpu")
    words = shlex.split(result.summary["made"]["command"])
    assert words[4:] == ["--split", "train", "--force", "--device", "cpu"]


def test_a_run_folder_is_evaluated_by_its_own_split(phantoms, model, tmp_path):
    from hymunet.data.splits import Split, save_split

    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(model.read_bytes())
    (run / "config.yaml").write_text("seed: 7\n", encoding="utf-8")
    (run / "metrics.csv").write_text("epoch,train_loss,val_loss,val_dice\n1,1,1,0.5\n", "utf-8")
    names = [f"phantom_{i:04d}" for i in range(6)]
    split = Split(tuple(names[:3]), tuple(names[3:5]), tuple(names[5:]), 7, ())
    save_split(run / "split.json", split)
    result = evaluate(run, phantoms, split="test", output=run)
    assert [row["case"] for row in result.cases] == ["phantom_0005"]
    page = result.report.read_text("utf-8")
    assert "Learning curves" in page
    assert "SHA-256" in page


def test_nested_structures_hold_the_ones_after_them(tmp_path):
    truth, predicted = np.zeros((2, 8, 8), np.uint8)
    truth[1:7, 1:7], truth[3:5, 3:5] = 1, 2
    predicted[1:7, 1:7] = 1
    write_mask(tmp_path / "truth.png", truth)
    case = Case("x", (), label=tmp_path / "truth.png")

    reference = read_truth(case, None, 3)
    whole, core = score_case(case, reference, predicted, ["whole", "core"], nested=True)
    assert (whole["dice"], core["dice"]) == (1, 0)
    edge, _ = score_case(case, reference, predicted, ["edge", "core"])
    assert edge["dice"] == pytest.approx(2 * 32 / (36 + 32))


def test_masks_of_other_tools_hold_the_values_of_the_data_set(tmp_path):
    root = described(
        tmp_path / "data",
        {
            "channel_names": {"0": "grey"},
            "labels": {"background": 0, "far": 200, "near": 3, "ignore": 9},
            "file_ending": ".png",
        },
    )
    stored = np.zeros((16, 16), np.uint8)
    stored[2:8, 2:8], stored[9:14, 9:14], stored[:2] = 3, 200, 9
    picture(root / "imagesTr" / "a_0000.png", stored)
    picture(root / "labelsTr" / "a.png", stored)
    other = np.where(stored == 9, 3, stored).astype(np.uint8)  # wrong only where nothing counts
    picture(tmp_path / "theirs" / "a.png", other)
    result = evaluate(tmp_path / "theirs", root, output=tmp_path / "out", num_labels=3)
    assert [row["dice"] for row in result.cases] == [1, 1]
    assert [row["target_fraction"] > 0 for row in result.cases] == [True, True]
    picture(tmp_path / "theirs" / "a.png", np.where(stored == 9, 4, stored).astype(np.uint8))
    with pytest.raises(HyMUNetError, match=r"1 values that are no label of its data set \(4\)"):
        evaluate(tmp_path / "theirs", root, num_labels=3)


def test_dicom_segmentations_are_judged_on_the_grid_of_their_series(tmp_path):
    """Reference and prediction as DICOM, NIfTI or both: one Dice, in mm of the series."""
    shape, step = (4, 12, 14), 2.5
    truth = np.zeros((*shape, 1), np.uint8)
    truth[1:3, 3:8, 4:9] = 1
    guess = np.roll(truth, 1, axis=0)  # one slice off
    for number in range(2):
        made = slices(volume(shape, number), step=step, PatientID=f"P{number}")
        series = write_series(tmp_path / "data" / "images" / f"c{number}", made)
        save(segmentation(made, truth), tmp_path / "data" / "masks" / f"c{number}.dcm")
        save(segmentation(made, guess), tmp_path / "seg" / f"c{number}.dcm")
        target = tmp_path / "nifti" / f"c{number}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        write_mask(target, guess[..., 0], read_image(series, None))
    for kind in ("seg", "nifti"):
        output = tmp_path / f"report-{kind}"
        result = evaluate(tmp_path / kind, tmp_path / "data", output=output, num_labels=2)
        assert [row["dice"] for row in result.cases] == [0.5, 0.5]
        assert [row["hd"] for row in result.cases] == pytest.approx([step, step])
        written = (output / "report.html").read_text(encoding="utf-8")
        assert "CANARY" not in written
