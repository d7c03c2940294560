"""Every table fits into a terminal of 80 columns, with nothing cut off; few cases are said beside
averages."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from hymunet.evaluation.evaluate import Evaluation
from hymunet.evaluation.summary import few_groups_notes, summarise
from hymunet.evaluation.terminal import print_tables
from hymunet.experiments.compare import tables as comparison
from hymunet.experiments.profile.terminal import print_profile
from hymunet.inference.predict import PredictReport
from hymunet.inference.predict_terminal import print_report
from hymunet.metrics.case import METRICS
from hymunet.network.pretrained import models
from hymunet.workflows.result_table import PRINTED, print_table

SHOWN = ("dice", "iou", "precision", "recall", "thresholded_iou", "hd", "hd95")


@pytest.fixture(params=[80, 120])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def shown(capsys, columns):
    """The lines of tables: what is wrapped by the terminal itself (paths, commands) left out."""
    text = capsys.readouterr().out
    assert "…" not in text
    assert all(len(line) <= columns for line in text.splitlines() if "hymunet " not in line)
    return text


def result(name, tta):
    means = {metric: {"mean": 0.9018, "low": 0.8884, "high": 0.9146} for metric in SHOWN}
    means |= {metric: {"mean": 123.4, "low": 101.5, "high": 155.2} for metric in ("hd", "hd95")}
    return {
        "model": name, "tta": tta, "n": 399, "length_unit": "px",
        "per_image": means, "pooled": {"dice": 0.9123, "iou": 0.8432},
    }  # fmt: skip


def test_the_table_of_results(capsys, columns):
    rows = [result(f"{size}-weights", tta) for size in ("small", "tiny") for tta in (False, True)]
    print_table(rows, "the packaged weights")
    text = shown(capsys, columns)
    assert text.count("0.888–0.915") == 4 * 5
    assert text.count("102–155") == 4 * 2
    assert text.count("+ TTA") == 2 * 2
    for _, values, _ in PRINTED:
        assert all(f"{value:.4f}" in text for value in values.values())


def test_packaged_models(capsys, columns):
    rows = models()
    text = " ".join(shown(capsys, columns).split())
    for row in rows:
        assert f"licence {row['licence']}" in text
        for score in row["scores"]:
            assert f"{score['dice']['low']:.4f} to {score['dice']['high']:.4f}" in text


def case(name, dice):
    row = {"case": name, "class": "foreground", "group": name, "seen": "", "unit": "px"}
    row |= {"dimensions": 2, "tp": 5, "fp": 1, "fn": 1, "tn": 93}
    row |= {name: 123456.0 if metric.unit else 0.25 for name, metric in METRICS.items()}
    row |= {"dice": dice}
    row |= {"target_fraction": 0.06, "contrast": 1.0, "compactness": 0.9}
    return row | {"touches_border": False}


@pytest.mark.parametrize("count", [5, 30])
def test_an_evaluation_says_of_few_cases_beside_its_averages(capsys, columns, count):
    rows = [case(f"c{i}", 0.5 + i / 100) for i in range(count)]
    summary, notes = summarise(rows)
    evaluation = Evaluation(rows, {"data": "folder pairs", **summary}, [*notes, "another note"])
    print_tables(evaluation)
    lines = shown(capsys, columns)
    text = " ".join(lines.split())
    mean = summary["classes"]["foreground"]["per_image"]["target_area"]["low"]
    assert sum(f"{mean:,.0f} to {mean:,.0f}" in line for line in lines.splitlines()) >= 2
    few = few_groups_notes(count)
    assert bool(few) == (count < 30)
    for note in few:
        assert text.count(note) == 1
        assert text.index("pooled") < text.index(note) < text.index("note: another note")


def test_long_names_in_the_table_of_predict_keep_both_ends(monkeypatch):
    name = "patient-0001_" + "x" * 200 + "_slice-17.png"
    row = {"image": name, "class": "foreground", "area_px": 12345678, "fraction": 0.5, "parts": 3}
    stream = io.StringIO()
    report = PredictReport(written=[Path("a")], measurements=[row])
    print_report(report, 1, Path("masks"), Console(file=stream, width=80))
    text = stream.getvalue()
    assert "patient-0001_" in text
    assert "_slice-17.png" in text
    assert "12,345,678 px" in text
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines() if "segmented" not in line)


def test_suspect_masks_are_few_lines_and_a_count():
    suspects = {f"full{i}.png": "the mask covers 99.0% of the image" for i in range(30)}
    suspects |= {"empty.png": "the mask is empty"}
    stream = io.StringIO()
    report = PredictReport(written=[Path(f"{i}") for i in range(40)], suspects=suspects)
    print_report(report, 40, Path("masks"), Console(file=stream, width=200))
    text = stream.getvalue()
    assert text.count("note: full") == 5
    assert "31 masks of 40 to look at: 1 empty and 30 over 95% or more of the image" in text


LONG = "my_file:a_network_with_a_rather_long_name"


def test_a_comparison_with_long_names(capsys, columns):
    change = {"mean": -0.1234, "low": -0.2345, "high": -0.0123, "p_holm": 0.0001}
    models = [
        {
            "name": name,
            "seeds": [0],
            "per_image": {"dice": {"mean": 0.9018}},
            "cost": {"parameters": 11_800_000, "cpu_s": 0.0659},
            "difference": {"dice": change} if name != LONG else None,
        }
        for name in (LONG, "attention-unet", "another_file:" + "n" * 40)
    ]
    split = {"train": 10, "val": 2, "test": 2}
    summary = {"models": models, "reference": LONG, "split": split, "size": [32, 32], "n": 2}
    summary |= {"data": "folder pairs", "part": "test", "groups": 2, "budget": None}
    comparison.print_tables(summary | {"batch_size": 4, "failed": [], "notes": []}, "Comparison")
    text = shown(capsys, columns)
    assert text.count("−0.123 (−0.234 to −0.012)") == 2
    assert text.count("< 0.001") == 2
    assert text.count("11.8 M") == text.count("65.9 ms") == text.count("0.902") == 3
    assert "attention-unet" in text


def test_a_profile_with_long_names(capsys, columns):
    name = "Task04_Hippocampus-seed0"
    row = {"network": name, "size": 1024, "depth": None, "parameters": 6_630_000}
    row |= {"multiply_adds": 123e9, "scan_updates": 123e6, "median_s": 0.123, "status": "measured"}
    estimate = {"value": 1.02, "low": 0.98, "high": 1.06}
    growth = {"exponent": estimate, "steps": [{"start": 512, "stop": 1024, "estimate": estimate}]}
    growth |= {"verdict": "faster than the pixels from 512 to 1024"}
    network = {"name": name, "time": growth, "memory": growth, "arithmetic": growth, "depth": None}
    conditions = {"pass": "forward pass", "batch": 1, "device": "cpu", "threads": 2}
    cells = [row | {"peak_bytes": 1234 * 2**20}]
    print_profile({"conditions": conditions, "cells": cells, "networks": [network]}, [])
    text = shown(capsys, columns)
    assert all(figure in text for figure in ("6,630,000", "123 G", "123 M", "123 ms", "GiB"))
    assert "1.02 (0.98 to 1.06)" in text
    assert "faster than" in text
