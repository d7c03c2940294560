"""Parts are added, whole; a killed call's loose ends are tied up by the next one."""

import json
import shutil

import pytest

from hymunet.errors import HyMUNetError
from hymunet.inference.archive.manifest import Manifest, alone
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.table import schema
from hymunet.inference.measurements import measure
from tests.inference.archive.conftest import manifest, needs_cluster, tables

SETTINGS = {"models": ["abc"], "threshold": 0.5}
pytestmark = [pytest.mark.cluster, needs_cluster]


@pytest.fixture
def mask():
    import numpy as np

    mask = np.zeros((9, 11), np.uint8)
    mask[2:5, 3:8] = 1
    return mask


def outcome(mask):
    rows = measure(mask, ["lesion"])
    return {"status": "done", "measurements": rows, "suspect": None, "seconds": 0.1}


def opened(output, settings=SETTINGS):
    return Manifest(Storage(output), settings, spatial_dims=2)


def test_what_was_noted_is_read_by_the_next_call(tmp_path, mask):
    first = opened(tmp_path)
    first.add("/a.jpg", "a.png", "1", outcome(mask))
    first.add("/b.jpg", "b.png", "2", {"status": "failed", "reason": "broken"})
    first.flush()
    first.add("/c.jpg", "c.png", "3", outcome(mask))
    first.flush()
    first.flush()  # nothing new, no part
    assert len(list((tmp_path / "manifest").glob("*.jsonl"))) == 2
    lines = list(opened(tmp_path).lines())
    assert [(line["mask"], line["status"]) for line in lines] == [
        ("a.png", "done"), ("b.png", "failed"), ("c.png", "done")
    ]  # fmt: skip
    assert lines == manifest(tmp_path)
    rows = tables(tmp_path)
    assert [row["mask"] for row in rows] == ["a.png", "c.png"]
    expected = measure(mask, ["lesion"])[0]
    assert {name: rows[0][name] for name in expected} == expected
    assert rows[0]["area_mm2"] is None


def test_earlier_parts_are_never_touched(tmp_path, mask):
    first = opened(tmp_path)
    first.add("/a.jpg", "a.png", "1", outcome(mask))
    first.flush()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = opened(tmp_path)
    again.add("/b.jpg", "b.png", "1", outcome(mask))
    again.flush()
    assert {path: path.read_bytes() for path in before} == before
    assert len(manifest(tmp_path)) == 2


def test_measurements_without_their_part_are_removed(tmp_path, mask):
    """The state after a kill between the two files of a part."""
    first = opened(tmp_path)
    first.add("/a.jpg", "a.png", "1", outcome(mask))
    first.flush()
    parts = tmp_path / "measurements.parquet"
    shutil.copy(parts / "00000001.parquet", parts / "00000002.parquet")
    assert len(tables(tmp_path)) == 2
    opened(tmp_path)
    assert len(tables(tmp_path)) == 1


def test_results_of_other_settings_are_not_mixed_in(tmp_path):
    opened(tmp_path)
    with pytest.raises(HyMUNetError, match=r"of other settings \(threshold: 0.5, now 0.7\)"):
        opened(tmp_path, SETTINGS | {"threshold": 0.7})


def test_an_altered_part_is_said(tmp_path, mask):
    first = opened(tmp_path)
    first.add("/a.jpg", "a.png", "1", outcome(mask))
    first.flush()
    for text in ('{"image": "/a.j', "{}", "[]"):
        (tmp_path / "manifest" / "00000001.jsonl").write_text(text)
        with pytest.raises(HyMUNetError, match="holds a line that is none of a manifest"):
            list(opened(tmp_path).lines())
    (tmp_path / "manifest" / "00000001.jsonl").unlink()
    (tmp_path / "manifest" / "copy.jsonl").write_text("a user's own file")
    assert list(opened(tmp_path).lines()) == []
    for text in ('{"models": [', "[1]"):
        (tmp_path / "manifest" / "settings.json").write_text(text)
        with pytest.raises(HyMUNetError, match=r"settings\.json was altered"):
            opened(tmp_path)


def test_what_has_lost_its_measurements_is_not_done(tmp_path, mask):
    first = opened(tmp_path)
    first.add("/a.jpg", "a.png", "1", outcome(mask))
    first.flush()
    first.add("/b.jpg", "b.png", "2", outcome(mask))
    first.flush()
    (tmp_path / "measurements.parquet" / "00000001.parquet").unlink()
    again = opened(tmp_path)
    assert [line["mask"] for line in again.lines()] == ["b.png"]
    assert again.lost == 1


def test_a_second_process_is_refused(tmp_path):
    storage = Storage(tmp_path)
    said = pytest.raises(HyMUNetError, match="another process is segmenting into")
    with alone(storage), said, alone(Storage(tmp_path)):
        pass
    with alone(storage):  # free again
        pass


@pytest.mark.parametrize("size", [(9, 11), (3, 9, 11)])
@pytest.mark.parametrize("spacing", [None, 0.5])
def test_every_measurement_has_its_column(size, spacing):
    """Else it would be dropped without a word."""
    import numpy as np

    spacing_mm = None if spacing is None else (spacing,) * len(size)
    for mask in (np.ones(size, np.uint8), np.zeros(size, np.uint8)):
        (row,) = measure(mask, ["x"], spacing_mm)
        assert set(row) <= set(schema(len(size)).names)
        assert json.loads(json.dumps(row)) == row
