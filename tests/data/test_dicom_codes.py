"""Coded terms: DICOM's own for names that it lists, the user's before them, and no guesses."""

import pytest

pytest.importorskip("pydicom", reason="NOT TESTED: DICOM needs the extra `volumes`")

from hymunet.data.dicom_codes import TISSUE, Code, read_terms, term_of
from hymunet.errors import HyMUNetError

pytestmark = pytest.mark.dicom


@pytest.mark.parametrize(
    ("name", "category", "value", "meaning"),
    [
        ("liver", "91723000", "10200004", "Liver"),
        ("Lateral ventricle", "91723000", "66720007", "Lateral Ventricle"),
        ("lesion", "49755003", "52988006", "Lesion"),
        ("tumour", "49755003", "108369006", "Neoplasm"),
        ("edema", "49755003", "79654002", "Edema"),
        ("vessels", "91723000", "59820001", "Blood Vessel"),
        ("adipose_tissue", "85756007", "55603005", "Fat"),
    ],
)
def test_names_that_dicom_lists(name, category, value, meaning):
    term = term_of(name, {})
    assert term is not None
    assert term.type == Code(value, "SCT", term.type.meaning)
    assert term.type.meaning.lower() == meaning.lower()
    assert term.category.value == category


@pytest.mark.parametrize("name", ["foreground", "class 1", "liver 2", "left", "", "WT without TC"])
def test_other_names_are_not_guessed(name):
    assert term_of(name, {}) is None


def test_a_table_of_codes(tmp_path):
    path = tmp_path / "codes.yaml"
    path.write_text(
        "Skin lesion:\n"
        "  type: [52988006, SCT, Lesion]\n"
        "  region: [39937001, SCT, Skin]\n"
        "core:\n"
        "  category: [49755003, SCT, Morphologically Abnormal Structure]\n"
        "  type: ['0012', 99KLINIK, Tumorkern]\n"
        "kern: {type: ['13', 99KLINIK, Kern]}\n"
    )
    table = read_terms(path)
    lesion = term_of("skin_lesion", table)
    assert lesion is not None
    assert (lesion.type, lesion.region) == (
        Code("52988006", "SCT", "Lesion"), Code("39937001", "SCT", "Skin")
    )  # fmt: skip
    assert lesion.category.value == "49755003"  # that of the list which has the type
    assert table["core"].type == Code("0012", "99KLINIK", "Tumorkern")
    assert table["kern"].category == TISSUE
    json = tmp_path / "codes.json"
    json.write_text('{"liver": {"type": ["1", "99KLINIK", "mine"]}}')
    assert str(term_of("liver", read_terms(json)).type) == "mine (99KLINIK 1)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", r"holds \['1', '2'\]; expected structures"),
        ("liver: {type: [1, SCT]}", r"liver, type is \['1', 'SCT'\]; expected \[value, scheme"),
        ("liver: {type: [1, SCT, '']}", r"liver, type is"),
        ("liver: {type: [1, SCT, 'a\\b']}", r"liver, type is"),
        ("liver: {type: [1, SCHEME OF TOO MANY LETTERS, x]}", r"scheme up to 16"),
        ("liver: {kind: [1, SCT, Liver]}", r"liver is .*expected a type"),
        ("liver: {type: [1, SCT, Liver], side: left}", r"nothing but a category and a region"),
        ("liver: {type: [0123, SCT, x]}", r"liver, type is .*reads 83 .*: write it in quotes"),
        ("liver: {type: [12:30, SCT, x]}", r"reads 750 .*: write it in quotes"),
        ("liver: {type: [1, true, x]}", r"reads True .*: write it in quotes"),
        ("liver: {type: [1.0, SCT, x]}", r"reads 1.0 .*: write it in quotes"),
        ("yes: {type: [1, SCT, x]}", r"reads True .*: write it in quotes"),
        (
            "Left liver: {type: [1, SCT, x]}\nLEFT-LIVER: {type: [2, SCT, y]}",
            r"Left liver and LEFT-LIVER are the same name, keep one",
        ),
        ("a: {type: [1, SCT, x]}\na: {type: [2, SCT, y]}", r"a and a are the same name"),
        ("liver: {", r"cannot read the codes"),
    ],
)
def test_a_table_of_anything_else_is_refused(tmp_path, text, words):
    path = tmp_path / "codes.yaml"
    path.write_text(text)
    with pytest.raises(HyMUNetError, match=words):
        read_terms(path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(HyMUNetError, match="cannot read the codes in"):
        read_terms(tmp_path / "none.yaml")
