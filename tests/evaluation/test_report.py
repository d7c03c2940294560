"""The report: its numbers, its pictures, and that it needs nothing but itself."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Picture

from hymunet.data.case import Case
from hymunet.data.mask_reading import read_mask
from hymunet.data.mask_writing import write_mask
from hymunet.data.phantoms import draw_lesion
from hymunet.evaluation.evaluate import Evaluation, score_case
from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.report import write_report
from hymunet.evaluation.summary import summarise
from hymunet.evaluation.truth import read_truth

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

    def predict(case):
        index = cases.index(case)
        labels = read_mask(case.label).labels
        missed = index == len(cases) - 1
        return np.zeros_like(labels) if missed else np.roll(labels, index, axis=1)

    rows = [
        row
        for case in cases
        for row in score_case(case, read_truth(case, None, 2), predict(case), ["lesion"])
    ]
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
    prose = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)  # its letters may spell anything
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", prose)
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
