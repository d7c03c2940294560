"""What is chosen on validation cases: the rule on masks by hand, then model files end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from scipy import ndimage

from hymunet.cli import main
from hymunet.data.case_hash import case_hash
from hymunet.data.formats import find_dataset
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.errors import HyMUNetError
from hymunet.evaluation.calibrate import calibrate
from hymunet.evaluation.card_numbers import check_model
from hymunet.evaluation.choose_postprocess import (
    MARGIN,
    Pair,
    choose_operations,
    choose_postprocess,
)
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.seen import CLEANED, OPTIMISTIC, WATCHED
from hymunet.inference.postprocess import FILL_HOLES, KEEP_LARGEST, OPERATIONS, Postprocess
from hymunet.inference.predictor import Predictor
from hymunet.metrics.case import case_metrics
from hymunet.network.model_file import model_identity, read_info, replace_info
from hymunet.network.promise import ONLY_ADDS
from tests.evaluation.small_models import save_small, write_data

NAMES = ("organ", "tumour")


def square(size=(24, 24), side=12):
    truth = np.zeros(size, np.uint8)
    truth[4 : 4 + side, 4 : 4 + side] = 1
    return truth


def with_island(truth, index=1):
    mask = truth.copy()
    mask[20:23, 20:23] = index
    return mask


def with_hole(truth, index=0):
    mask = truth.copy()
    mask[8:11, 8:11] = index
    return mask


def pairs(*cases, groups=None):
    groups = groups or [None] * len(cases)
    return [
        Pair(mask, truth, None, group) for (mask, truth), group in zip(cases, groups, strict=True)
    ]


def rows(found):
    return {(row["structure"], row["operation"]): row for row in found.table}


# the rule


def test_what_helps_is_kept_and_the_rest_is_not():
    truth = square()
    found = choose_operations(pairs(*[(with_island(truth), truth)] * 8), ["organ"])
    assert found.postprocess.to_dict() == {"organ": [KEEP_LARGEST]}
    first, second = found.table
    before = case_metrics(with_island(truth) == 1, truth == 1)["dice"]
    assert first["dice_before"] == pytest.approx(before)
    assert first["dice_after"] == 1.0
    assert first["change"]["mean"] == pytest.approx(1 - before)
    assert (first["cases_changed"], first["chosen"]) == (8, True)
    # what was kept before is the ground on which the next is tried
    assert (second["operation"], second["dice_before"]) == (FILL_HOLES, 1.0)
    assert (second["cases_changed"], second["chosen"]) == (0, False)
    assert (found.n, found.groups) == (8, 8)


def test_both_are_kept_where_both_help():
    truth = square()
    found = choose_operations(pairs(*[(with_hole(with_island(truth)), truth)] * 5), ["organ"])
    assert found.postprocess.to_dict() == {"organ": [KEEP_LARGEST, FILL_HOLES]}
    assert found.table[1]["dice_after"] == 1.0


def test_nothing_is_done_where_nothing_helps_or_it_harms():
    truth = square()
    perfect = choose_operations(pairs(*[(truth, truth)] * 6), ["organ"])
    assert perfect.postprocess.to_dict() == {}
    assert not any(row["chosen"] or row["cases_changed"] for row in perfect.table)
    islands = with_hole(with_island(truth))
    harmed = choose_operations(pairs(*[(islands, islands)] * 6), ["organ"])
    assert harmed.postprocess.to_dict() == {}
    assert all(row["change"]["mean"] < 0 for row in harmed.table)


@pytest.mark.parametrize(("improved", "kept"), [(1, False), (3, False), (4, True), (20, True)])
def test_a_few_spectacular_cases_decide_nothing(improved, kept):
    truth = square()
    island = truth.copy()
    island[:, 20:] = 1
    cases = [(island, truth)] * improved + [(truth, truth)] * (20 - improved)
    found = choose_operations(pairs(*cases), ["organ"])
    row = found.table[0]
    assert row["change"]["mean"] > 10 * MARGIN
    assert row["cases_changed"] == improved
    assert row["chosen"] is kept


def test_a_gain_below_the_margin_is_left():
    truth = square((200, 200), 190)
    island = truth.copy()
    island[198, 198] = 1
    found = choose_operations(pairs(*[(island, truth)] * 6), ["organ"])
    row = found.table[0]
    assert 0 < row["change"]["low"] < row["change"]["mean"] + 1e-12 < MARGIN
    assert not row["chosen"]


def test_cases_of_one_patient_are_one():
    truth = square()
    cases = [(with_island(truth), truth)] * 6
    alone = choose_operations(pairs(*cases, groups=["p"] * 6), ["organ"])
    assert alone.postprocess.to_dict() == {}
    assert alone.groups == 1
    assert alone.table[0]["change"]["low"] is None
    json.dumps(alone.table, allow_nan=False)
    several = choose_operations(pairs(*cases, groups=["p", "p", "q", "q", "r", None]), ["organ"])
    assert several.groups == 4
    assert several.postprocess.operations


def test_what_harms_another_structure_is_left():
    """Nested: the organ's island is wrong, but it holds the whole tumour, which is right."""
    truth = square((40, 40), 12)
    truth[30:33, 30:33] = 2
    mask = truth.copy()
    mask[29:36, 29:36] = np.maximum(mask[29:36, 29:36], 1)
    found = choose_operations(pairs(*[(mask, truth)] * 6), NAMES, nested=True)
    row = rows(found)["organ", KEEP_LARGEST]
    assert row["change"]["low"] > MARGIN
    assert not row["chosen"]
    organ = ((mask > 0).astype(np.uint8), (truth > 0).astype(np.uint8))
    alone = choose_operations(pairs(*[organ] * 6), ["organ"])
    assert rows(alone)["organ", KEEP_LARGEST]["chosen"]


@pytest.mark.parametrize("nested", [False, True])
def test_figures_are_those_of_whole_masks(nested):
    """Boxes, packing and the table of classes against masks as they are and `case_metrics`."""
    rng = np.random.default_rng(0)
    cases = []
    for size in [(20, 30), (9, 9), (6, 7, 8), (5, 4)]:
        both = []
        for _ in range(2):
            noise = ndimage.gaussian_filter(rng.standard_normal(size), 1)
            both.append(np.searchsorted(np.quantile(noise, [0.6, 0.8]), noise).astype(np.uint8))
        both[0][0] = both[1][0] = 0
        cases.append((*both, rng.random(size) < 0.8))
    cases.append((np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), None))
    found = choose_operations([Pair(*case) for case in cases], NAMES, nested)
    done = Postprocess(NAMES, nested)
    for row in found.table:
        k = NAMES.index(row["structure"]) + 1
        candidate = done.with_operation(row["structure"], row["operation"])
        for which, clean in (("dice_before", done), ("dice_after", candidate)):
            scores = []
            for mask, truth, valid in cases:
                p, t = (m >= k if nested else m == k for m in (clean(mask), truth))
                scores.append(case_metrics(p, t, valid)["dice"])
            assert row[which] == pytest.approx(np.mean(scores), abs=1e-12)
        changed = [not np.array_equal(candidate(m), done(m)) for m, _, _ in cases]
        assert row["cases_changed"] == sum(changed)
        if row["chosen"]:
            done = candidate
    assert done == found.postprocess
    assert len(found.table) == len(NAMES) * len(OPERATIONS)


def test_order_of_cases_does_not_matter_and_no_case_is_refused():
    truth = square()
    cases = [(with_island(truth), truth)] * 5 + [(with_hole(truth), truth)] * 5
    one, other = (choose_operations(pairs(*c), ["organ"]) for c in (cases, cases[::-1]))
    assert one.postprocess == other.postprocess
    with pytest.raises(HyMUNetError, match="no validation case with a reference"):
        choose_operations([], ["organ"])
    with pytest.raises(HyMUNetError, match=r"shape \(24, 24\), the reference \(24, 23\)"):
        Pair(truth, truth[:, 1:])


# a model file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "phantoms")


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return save_small(data, tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def copy(model, tmp_path):
    return Path(shutil.copy(model, tmp_path / "copy.safetensors"))


def part(data, name):
    dataset = find_dataset(data)
    return [case for case in dataset.cases if dataset.split[case.id] == name]


def stored(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def test_the_file_says_what_was_chosen_how_and_on_which_cases(data, model, copy):
    found = choose_postprocess(copy, part(data, "val"), data="drawn")
    info = read_info(copy)
    record = info["postprocess_choice"]
    assert record["table"] == found.table
    assert (record["n"], record["groups"], record["data"]) == (3, 3, "drawn")
    assert (record["split"], record["threshold"], record["margin"]) == ("val", 0.5, MARGIN)
    hashes = [
        case_hash(read_image(data / "images" / f"phantom_000{i}.png", 3).pixels) for i in (2, 3, 4)
    ]
    assert record["cases"] == sorted(hashes)
    assert info.get("postprocess", {}) == found.postprocess.to_dict()
    assert stored(copy) == stored(model)
    scores = [
        case_metrics(
            Predictor(model)(data / "images" / f"{name}.png").mask == 1,
            read_mask(data / "masks" / f"{name}.png").labels == 1,
        )["dice"]
        for name in ("phantom_0002", "phantom_0003", "phantom_0004")
    ]
    assert found.table[0]["dice_before"] == pytest.approx(np.mean(scores))
    # from the network's masks again, whatever the file says by now: the same file
    once = copy.read_bytes()
    replace_info(copy, read_info(copy) | {"postprocess": {"lesion": [FILL_HOLES]}})
    choose_postprocess(copy, part(data, "val"), data="drawn")
    assert copy.read_bytes() == once


def test_cases_that_were_trained_on_are_refused(data, model, copy):
    before = copy.read_bytes()
    with pytest.raises(HyMUNetError, match="2 of 5 cases were trained on"):
        choose_postprocess(copy, [*part(data, "train"), *part(data, "val")])
    with pytest.raises(HyMUNetError, match="no validation case"):
        choose_postprocess(copy, [])
    with pytest.raises(HyMUNetError, match="belongs to the installed package"):
        choose_postprocess("isic2018-tiny", part(data, "val"))
    assert copy.read_bytes() == before


def cleaned(copy, data, **operations):
    """The file with operations that the val cases are said to have chosen."""
    choose_postprocess(copy, part(data, "val"))
    replace_info(copy, read_info(copy) | {"postprocess": operations})
    return copy


def test_evaluate_judges_the_cleaned_masks_and_says_so(data, model, copy):
    cleaned(copy, data, lesion=[KEEP_LARGEST])
    found = evaluate(copy, data, split="test")
    clean, raw = Predictor(copy), Predictor(copy, postprocess=False)
    differ = 0
    for row in found.cases:
        image = data / "images" / f"{row['case']}.png"
        truth = read_mask(data / "masks" / f"{row['case']}.png").labels == 1
        assert row["dice"] == pytest.approx(case_metrics(clean(image).mask == 1, truth)["dice"])
        differ += not np.array_equal(clean(image).mask, raw(image).mask)
        assert clean(image).measurements[0]["parts"] == 1
    assert differ
    assert "masks are post-processed (lesion: keep largest)" in found.notes
    assert not any("post-processed" in note for note in evaluate(model, data, split="test").notes)


def test_cases_that_chose_it_are_optimistic(data, copy):
    cleaned(copy, data, lesion=[KEEP_LARGEST])
    found = evaluate(copy, data, split="val")
    assert {row["seen"] for row in found.cases} == {"postprocess"}
    assert any(CLEANED in note for note in found.notes)
    assert found.summary["watched"] == 0
    # probabilities know nothing of it
    assert any(WATCHED in note for note in calibrate(copy, data, split="val").notes)
    # where validation chose the epoch as well, that is what is said
    info = read_info(copy)
    replace_info(copy, info | {"training": {"options": {"select": "best"}}})
    assert any(OPTIMISTIC in note for note in evaluate(copy, data, split="val").notes)
    # and where nothing was chosen, nothing was
    replace_info(copy, {k: v for k, v in info.items() if k != "postprocess"})
    assert any(WATCHED in note for note in evaluate(copy, data, split="val").notes)


def test_other_post_processing_is_another_model(data, model, copy):
    before = model_identity(model)
    assert model_identity(copy) == before
    assert "postprocess" not in before
    cleaned(copy, data, lesion=[KEEP_LARGEST])
    after = model_identity(copy)
    assert after == before | {"postprocess": {"lesion": [KEEP_LARGEST]}}
    check_model({"model": after}, "metrics.json", after)
    for measured, now in ((before, after), (after, before)):
        with pytest.raises(HyMUNetError, match="measured with other post-processing"):
            check_model({"model": measured}, "metrics.json", now)
        # calibration looks at probabilities
        check_model({"model": measured, "probabilities": {}}, "calibration.json", now)


# with a controlled miss rate


def test_calibrate_counts_masks_as_they_are_cut(data, model, copy):
    cleaned(copy, data, lesion=[KEEP_LARGEST, FILL_HOLES])
    for options in ({"split": "test"}, {"miss_rate": 0.45, "split": "test"}):
        one, other = (calibrate(path, data, **options) for path in (model, copy))
        for name in ("threshold", "risk_control", "probabilities"):
            assert one.summary.get(name) == other.summary.get(name)
        said = [note for note in other.notes if "without the post-processing" in note]
        assert len(said) == 1
        assert not [note for note in one.notes if "post-processing" in note]
        warned = any("holds for masks without post-processing only" in n for n in other.notes)
        assert warned is ("miss_rate" in options)


def test_predict_says_when_a_promise_does_not_hold_for_cleaned_masks(data, copy, tmp_path, capsys):
    cleaned(copy, data, lesion=[KEEP_LARGEST])
    calibrate(copy, data, split="test", miss_rate=0.45, write=True)
    image = data / "images" / "phantom_0005.png"
    base = ["predict", str(image), "--model", str(copy), "--output"]
    capsys.readouterr()

    def run(name, *options):
        assert main([*base, str(tmp_path / name), *options]) == 0
        written = json.loads((tmp_path / name / "measurements.json").read_text())
        return " ".join(capsys.readouterr().err.split()), written

    said, written = run("cleaned")
    assert "post-processing: lesion: keep largest" in said
    assert "this does not hold here, since post-processing takes away parts" in said
    assert written["miss_rate"] is None
    assert written["postprocess"] == {"lesion": [KEEP_LARGEST]}
    said, written = run("raw", "--no-postprocess")
    assert "post-processing" not in said
    assert "this does not hold" not in said
    assert (written["miss_rate"], written["postprocess"]) == (0.45, {})
    masks = [read_mask(tmp_path / name / "phantom_0005.png").labels for name in ("cleaned", "raw")]
    assert masks[0].sum() < masks[1].sum()
    # filled holes miss no more
    replace_info(copy, read_info(copy) | {"postprocess": {"lesion": [FILL_HOLES]}})
    said, written = run("filled")
    assert "this does not hold" not in said
    assert written["miss_rate"] == 0.45


def test_what_only_adds_does_so_and_nothing_else_is_said_to():
    rng = np.random.default_rng(1)
    assert set(ONLY_ADDS) < set(OPERATIONS)
    for operation in OPERATIONS:
        clean = Postprocess(NAMES, True, dict.fromkeys(NAMES, (operation,)))
        masks = rng.integers(0, 3, (40, 9, 9)).astype(np.uint8)
        assert all((clean(mask) >= mask).all() for mask in masks) is (operation in ONLY_ADDS)
