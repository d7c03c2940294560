"""Cells are kept whole, never mixed with those of other conditions, and go on when stopped."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from hymunet.errors import HyMUNetError
from hymunet.experiments import timing
from hymunet.experiments.profile.cells import (
    FAILED,
    MEASURED,
    NOT_RUN,
    OPEN,
    OUT_OF_MEMORY,
    Cell,
    Cells,
    Record,
)
from hymunet.experiments.profile.dry_run import counted
from hymunet.experiments.profile.measure import Settings, measure
from hymunet.network.config import HyMUNetConfig

TOY = asdict(HyMUNetConfig(stages="CCCC", dims=(4, 4, 4, 4), depths=(1, 1, 1, 1)))
CELL = Cell("CCCC", TOY, 32)
CONDITIONS = {"threads": 2, "batch": 1}
SETTINGS = Settings(1, False, 2, 60.0, torch.device("cpu"), None)


def a_record(cell=CELL, **fields):
    return Record(cell, CONDITIONS, **fields)


def test_a_record_comes_back(tmp_path):
    cells = Cells(tmp_path)
    record = a_record(status=MEASURED, times_s=[0.1, 0.2], stages_s=[{"stem": 0.1}], peak_bytes=7)
    cells.save(record)
    (again,) = cells.load([CELL], CONDITIONS)
    assert again == record
    (other,) = cells.load([replace(CELL, side=64)], CONDITIONS)
    assert other == a_record(replace(CELL, side=64))


def test_names_of_files_are_apart_and_harmless(tmp_path):
    keys = [
        Cell(name, TOY, side, depth).key
        for name, side, depth in (("CCMM", 32, None), ("CCMM", 32, 2), ("CCMM", 322, None),
                                  ("../my model/x", 32, None))
    ]  # fmt: skip
    assert len(set(keys)) == 4
    Cells(tmp_path).save(a_record(Cell("../my model/x", TOY, 32)))
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "cells"]


@pytest.mark.parametrize(
    ("conditions", "config", "words"),
    [
        ({"threads": 1, "batch": 1}, TOY, "with threads 2, now it is 1"),
        (CONDITIONS, TOY | {"dims": [4, 4, 4, 8]}, "with dims .* now it is"),
    ],
)
def test_figures_of_other_conditions_are_refused(tmp_path, conditions, config, words):
    cells = Cells(tmp_path)
    cells.save(a_record())
    with pytest.raises(HyMUNetError, match=words):
        cells.load([Cell("CCCC", config, 32)], conditions)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cell": {"network": 1}}'])
def test_a_broken_file_is_named(tmp_path, content):
    cells = Cells(tmp_path)
    (tmp_path / "cells" / f"{CELL.key}.json").write_text(content)
    with pytest.raises(HyMUNetError, match=r"CCCC-32px\.json should hold .* remove it"):
        cells.load([CELL], CONDITIONS)


def test_what_may_be_different_next_time_is_tried_again(tmp_path):
    cells = Cells(tmp_path)
    for status, then in ((NOT_RUN, OPEN), (FAILED, OPEN), (OUT_OF_MEMORY, OUT_OF_MEMORY)):
        cells.save(a_record(status=status, reason="why"))
        (record,) = cells.load([CELL], CONDITIONS)
        assert (record.status, record.reason) == (then, None if then == OPEN else "why")


def ready(side, name="CCCC", **fields):
    """A record whose memory is known, so that no process is started for it."""
    known = {"first_pass_s": 0.01, "peak_bytes": 10**6} | fields
    return a_record(Cell(name, TOY, side), **known)


def test_networks_take_turns_and_every_turn_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    cells, seen = Cells(tmp_path), []

    def watch(text):
        kept = [json.loads(p.read_text()) for p in (tmp_path / "cells").glob("*.json")]
        seen.append((text, sum(len(one["times_s"]) for one in kept)))

    records = [ready(side, name) for name in ("one", "two") for side in (32, 64)]
    measure(records, SETTINGS, cells, watch)
    turns = [(text, kept) for text, kept in seen if "round" in text]
    order = ["one-32px", "two-32px", "one-64px", "two-64px"]
    assert [text for text, _ in turns] == [f"{key}: round {i}" for i in (1, 2) for key in order]
    assert [kept for _, kept in turns] == [1, 2, 3, 4, 5, 6, 7, 8]
    for record in records:
        assert record.status == MEASURED
        assert len(record.times_s) == len(record.stages_s) == 2
        assert record.parts[0]["name"] == "stem"


def test_an_interrupted_measurement_goes_on_with_the_turn_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    cells = Cells(tmp_path)
    cells_of_all = [Cell("CCCC", TOY, side) for side in (32, 64)]
    for cell in cells_of_all:
        cells.save(ready(cell.side))

    def stop(text):
        if text == "CCCC-32px: round 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(cells.load(cells_of_all, CONDITIONS), SETTINGS, cells, stop)
    left = cells.load(cells_of_all, CONDITIONS)
    assert [len(record.times_s) for record in left] == [2, 1]
    assert [record.status for record in left] == [MEASURED, OPEN]
    again = cells.load(cells_of_all, CONDITIONS)
    measure(again, SETTINGS, cells)
    assert again[0] == left[0]
    assert again[1].times_s[0] == left[1].times_s[0]
    assert [len(record.times_s) for record in again] == [2, 2]
    # more rounds later: only they are measured
    measure(again, replace(SETTINGS, repeats=3), cells)
    assert [len(record.times_s) for record in again] == [3, 3]
    assert again[0].times_s[:2] == left[0].times_s


def test_what_does_not_fit_or_takes_too_long_is_said_before_it_is_tried(tmp_path):
    cells = Cells(tmp_path)
    poor = a_record(Cell("poor", TOY, 512))
    measure([poor], replace(SETTINGS, free=10**6), cells)
    assert poor.status == NOT_RUN
    assert (
        poor.reason == f"would need {poor.estimated_bytes / 2**30:.3g} GiB, 0.000931 GiB are free"
    )
    assert poor.estimated_bytes > 512 * 512 * 3 * 4
    assert poor.multiply_adds > 0
    # a pass at 32 took 20 s: 4 times the pixels are 80 s, more than the limit
    parts = [vars(part) for part in counted(HyMUNetConfig(**TOY), 32).parts]
    slow = ready(32, first_pass_s=21.0, times_s=[20.0, 22.0], status=MEASURED, parts=parts)
    slower, slowest = (a_record(Cell("CCCC", TOY, side)) for side in (64, 128))
    measure([slow, slower, slowest], SETTINGS, cells)
    assert slower.reason == "a pass would take about 80 s, and --limit is 60 s"
    assert slowest.reason == "a pass would take about 320 s, and --limit is 60 s"
    assert (tmp_path / "cells" / "CCCC-64px.json").is_file()


def test_a_cell_without_memory_is_recorded_and_the_rest_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    cells = Cells(tmp_path)
    huge = a_record(Cell("one", TOY, 2**25))  # PiB, for which no address space has room
    huger, other = a_record(Cell("one", TOY, 2**26)), ready(32, "two")
    measure([huge, huger, other], SETTINGS, cells)
    assert huge.status == OUT_OF_MEMORY
    assert "memory" in huge.reason
    assert huger.status == NOT_RUN
    assert huger.reason == f"there was no memory for {2**25} already"
    assert other.status == MEASURED
    assert json.loads((tmp_path / "cells" / "one-33554432px.json").read_text())["times_s"] == []
