"""CSV tables: read as spreadsheets save them, every flaw with its message."""

import pytest

from hymunet.data.formats import find_dataset
from hymunet.data.tables import part_name, read_cases, read_split_table, read_table
from hymunet.errors import HyMUNetError


def test_names_of_parts():
    assert [part_name(name) for name in ("VALID", " Training ", "testing", "dev", "")] == [
        "val",
        "train",
        "test",
        None,
        None,
    ]


def test_split_tables(tmp_path):
    path = tmp_path / "split.csv"
    path.write_bytes("\ufeffCase;Split\r\na;Training\r\n\r\nb;val\r\n".encode())  # as Excel does
    assert read_split_table(path, ["a", "b"]) == {"a": "train", "b": "val"}
    for text, words in (
        ("case,part\na,train\n", r"columns case, part; expected case and split"),
        ("case,split\na,train\na,val\n", r"names cases twice: a"),
        ("case,split\na,train\nb\n", r"row 3 has 1 cells, the header 2"),
        ("case,split\n", r"has no rows"),
        ("case,case\na,b\n", r"same name: case"),
        ('case,split\n"a,train\n', r"is not a CSV file"),
    ):
        path.write_text(text)
        with pytest.raises(HyMUNetError, match=words):
            read_split_table(path, ["a", "b"])
    path.write_bytes("case,split\nä,train\n".encode("latin-1"))
    with pytest.raises(HyMUNetError, match=r"not UTF-8"):
        read_table(path)


def test_a_tables_own_parts_go_before_those_of_a_split_table(tmp_path):
    for name in ("a.png", "b.png", "a_mask.png", "b_mask.png"):
        (tmp_path / name).touch()  # finding cases reads no pixels
    (tmp_path / "split.csv").write_text("case,split\na,val\nb,train\n")
    path = tmp_path / "cases.csv"
    path.write_text("image,mask,split\na.png,a_mask.png,train\nb.png,b_mask.png,val\n")
    cases, parts, notes = read_cases(path)
    assert [case.id for case in cases] == ["a", "b"]
    assert parts == {"a": "train", "b": "val"}
    assert notes == ["split taken from cases.csv"]
    assert find_dataset(path).split == parts
    path.write_text("image,mask\na.png,a_mask.png\nb.png,b_mask.png\n")
    assert read_cases(path)[1:] == (None, [])
    assert find_dataset(path).split == {"a": "val", "b": "train"}
