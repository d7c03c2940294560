"""The report: its numbers, its pictures, and that it needs nothing but itself."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Picture

from hymunet.data.case import Case
from hymunet.data.image_io import read_mask, write_mask
from hymunet.data.phantoms import draw_lesion
from hymunet.evaluation.evaluate import Evaluation, PredictedMask, score_case
from hymunet.evaluation.figures import (
    LONGEST_OUTLINE,
    learning_curves,
    outline,
    score_by_size,
    sorted_scores,
    thumbnail,
)
from hymunet.evaluation.report import format_interval, format_value, write_report
from hymunet.evaluation.strata import summarise

HEADER = (
    "epoch,step,lr,seconds,train_loss,train_cross_entropy,train_dice_loss,train_boundary,"
    "val_loss,val_dice,val_iou\n"
)
SCRIPT = "<script>alert('id')<script>"


class Page(HTMLParser):
    """Collects what a page refers to, its scripts, its tables and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references, self.tags, self.pictures = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "img":
            self.pictures.append(dict(attrs))


def write_cases(folder, count: int) -> list[Case]:
    cases = []
    for i in range(count):
        phantom = draw_lesion(i, (48, 64))
        picture, mask = folder / f"image_{i}.png", folder / f"mask_{i}.png"
        Picture.fromarray(np.ascontiguousarray(phantom.image.transpose(1, 2, 0))).save(picture)
        write_mask(mask, phantom.mask)
        name = SCRIPT if i == 1 else f"phantom_{i}"
        cases.append(Case(name, (picture,), label=mask))
    return cases


def an_evaluation(cases: list[Case], notes: tuple[str, ...] = ()) -> tuple[Evaluation, object]:
    """Scores of masks that move further from the truth with each case; the last is missed."""

    def predict(case, image=None):
        index = cases.index(case)
        labels = read_mask(case.label).labels
        missed = index == len(cases) - 1
        return PredictedMask(np.zeros_like(labels) if missed else np.roll(labels, index, axis=1))

    rows = [row for case in cases for row in score_case(case, ["lesion"], predict)]
    summary, more = summarise(rows)
    made = {
        "command": "hymunet evaluate run data", "date": "2026-01-02 03:04 UTC", "seconds": 61.0,
        "machine": "Linux", "versions": {"numpy": "2"},
    }  # fmt: skip
    head = {"prediction": "run/best.safetensors", "truth": "data", "data": "folder pairs"}
    summary = head | {"split": "test", "forced": False, "made": made} | summary
    sources = {case.id: case for case in cases}
    return Evaluation(rows, summary, [*notes, *more], sources=sources), predict


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [f"{e},{e},0.1,1,{1 / e},,,,{1.1 / e},{1 - 0.5 / e},0.5\n" for e in range(1, 6)]
    (folder / "metrics.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    (folder / "config.yaml").write_text("seed: 41\nmodel:\n  dims: [16, 32]\n", encoding="utf-8")
    (folder / "provenance.json").write_text(
        '{"machine": {"device": "cpu"}, "training_seconds": 7260, "split_sha256": "feedbeef"}',
        encoding="utf-8",
    )
    return folder


def test_the_report_shows_the_numbers_and_how_they_came_about(tmp_path, run):
    evaluation, predict = an_evaluation(write_cases(tmp_path, 12))
    write_report(tmp_path / "report.html", evaluation, run, predict)
    text = (tmp_path / "report.html").read_text("utf-8")
    entry = evaluation.summary["classes"]["lesion"]
    for metric, mean in entry["per_image"].items():
        assert format_value(mean["mean"], metric) in text
        assert format_interval(mean, metric) in text
    for metric, value in entry["pooled"].items():
        assert format_value(value, metric) in text
    told = ["hymunet evaluate run data", "feedbeef", "41", "model.dims", "16, 32", "2 h 1 min"]
    for words in [*told, "device cpu", "research only", "best 0.900, epoch 5"]:
        assert words in text
    assert "the prediction is empty (1)" in text
    assert text.count('<figure class="case">') == 12


def test_the_report_fetches_nothing_runs_nothing_and_describes_its_pictures(tmp_path, run):
    evaluation, predict = an_evaluation(write_cases(tmp_path, 12))
    write_report(tmp_path / "report.html", evaluation, run, predict)
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.references
    assert all(one.startswith(("data:image/jpeg;base64,", "#")) for one in page.references)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(picture["alt"].strip() for picture in page.pictures)
    assert {"caption", "thead", "tbody"} <= set(page.tags)
    targets = set(re.findall(r' id="([^"]+)"', text))
    assert len(targets) == len(re.findall(r' id="', text))
    assert {one[1:] for one in page.references if one[0] == "#"} <= targets
    assert len(text.encode()) < 3_000_000


def test_names_and_notes_are_escaped(tmp_path):
    evaluation, predict = an_evaluation(write_cases(tmp_path, 3), notes=("<b>FORCED</b>",))
    evaluation.summary["data"] = "<i>data</i>"
    write_report(tmp_path / "report.html", evaluation, None, predict)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert html.escape(SCRIPT).replace("&#x27;", "&#39;") in text


def test_a_report_without_run_pictures_or_lesions(tmp_path):
    nothing = np.zeros((20, 20), np.uint8)
    write_mask(tmp_path / "empty.png", nothing)
    case = Case("only", (), label=tmp_path / "empty.png")
    evaluation, predict = an_evaluation([case])
    write_report(tmp_path / "report.html", evaluation)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "rightly nothing (1)" in text
    assert "Learning curves" not in text
    write_report(tmp_path / "report.html", evaluation, None, predict)
    assert "All cases" in (tmp_path / "report.html").read_text("utf-8")


def test_warnings_stand_at_the_top(tmp_path):
    note = "2 of 3 cases were in the validation part; these cases chose the epoch: optimistic"
    evaluation, _ = an_evaluation(write_cases(tmp_path, 3), notes=(note,))
    write_report(tmp_path / "report.html", evaluation)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert note in text[: text.index("<main>")]


def test_an_outline_encloses_the_area_of_its_mask():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 10:50] = 1
    points = np.array(
        [pair.split() for pair in re.split("[ML]", outline(mask, (60, 40)))[1:]], dtype=float
    )
    x, y = points.T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    assert area == pytest.approx(mask.sum(), rel=0.01)
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((10, 50, 5, 35), abs=0.6)
    doubled = outline(mask, (120, 80))
    assert max(float(p.split()[0]) for p in re.split("[ML]", doubled)[1:]) == pytest.approx(
        100, 0.01
    )


def test_the_outline_of_a_speckled_mask_stays_short_and_of_nothing_is_empty():
    speckle = np.random.default_rng(0).integers(0, 2, (600, 800)).astype(np.uint8)
    assert 0 < len(outline(speckle, (320, 240))) <= LONGEST_OUTLINE
    assert outline(np.zeros((9, 9), np.uint8), (9, 9)) == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32], ids=lambda d: d.__name__)
def test_thumbnails_are_small_and_show_the_slice_with_the_most_reference(dtype):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 700)).astype(dtype)
    flat = thumbnail(pixels, np.zeros((50, 700), np.uint8), np.zeros((50, 700), np.uint8))
    assert (flat.width, flat.height) == (320, 23)
    volume = np.zeros((9, 20, 30), np.uint8)
    volume[4, 5:9, 5:9], volume[6, 5:15, 5:15] = 1, 1
    deep = thumbnail(np.zeros((4, 9, 20, 30), dtype), volume, np.zeros_like(volume))
    assert deep.where == "slice 7 of 9"
    assert deep.truth
    assert deep.predicted == ""


def test_charts_of_many_cases_stay_small_and_say_what_they_show():
    scores = np.random.default_rng(0).beta(9, 1, 20_000)
    for chart in (sorted_scores(scores), score_by_size(scores / 2, scores)):
        assert len(chart.svg) < 150_000
        assert "20000 cases" in chart.alt + chart.title
    assert f"median {np.median(scores):.3f}" in sorted_scores(scores).svg


def test_the_same_numbers_give_the_same_chart():
    assert sorted_scores([0.1, 0.5, 0.9]) == sorted_scores([0.9, 0.1, 0.5])


def test_learning_curves_skip_what_is_no_number(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER, encoding="utf-8")
    assert learning_curves(path) == []
    path.write_text(HEADER + "1,1,0,1,0.5,,,,nan,0.25,\n2,2,0,1,0.4,,,,,,\n", encoding="utf-8")
    loss, dice = learning_curves(path)
    assert loss.alt == "Loss by epoch; at the end training 0.4."
    assert "0.250" in dice.alt
