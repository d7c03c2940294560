"""Each check finds what it is for, names the cases, and is silent where all is well."""

import dataclasses

import pytest

from hymunet.data.case import Dataset
from hymunet.data.survey import CaseSurvey, Intensities
from hymunet.data.verify import verify
from hymunet.data.verify_masks import label_values, names_by_value


def row(number, **changes):
    """A case in order: 20 % labelled, a picture unlike the others."""
    values = Intensities(10.0, 100.0 + number % 3, 30.0, 200.0)
    base = CaseSurvey(
        id=f"case{number:02}",
        size=(64, 64),
        channels=3,
        dtype="uint8",
        image=(values,) * 3,
        inside=(values,) * 3,
        counts=((0, 3200), (255, 800)),
        sha256=f"{number}",
        picture_hash=int.from_bytes(bytes([number * 37 % 256] * 8), "big") ^ (number << 20),
    )
    return dataclasses.replace(base, **changes)


def rows(n=24, **of):
    """`n` cases; `of` maps a number (as "_3") to what differs."""
    return [row(i, **of.get(f"_{i}", {})) for i in range(n)]


def found(cases, structures=None, **dataset):
    data = Dataset("folder pairs", None, (), **dataset)
    return {(f.level, f.check): f for f in verify(data, cases, structures)}


def test_a_clean_data_set_has_no_findings():
    assert found(rows()) == {}


def test_what_cannot_be_read_is_an_error_each_up_to_twenty():
    broken = [CaseSurvey(f"b{i}", problem=f"file {i} is broken") for i in range(25)]
    findings = verify(Dataset("folder pairs", None, ()), [*rows(), *broken])
    errors = [f for f in findings if f.level == "error"]
    assert len(errors) == 21
    assert errors[0].message == "file 0 is broken"
    assert errors[-1].message == "5 more cases cannot be used"
    assert verify(Dataset("folder pairs", None, ()), broken)[0].level == "error"


def test_pictures_and_volumes_do_not_mix():
    finding = found(rows(_3={"size": (8, 8, 8)}))["error", "kind of image"]
    assert finding.cases == ("case03",)
    assert "23 2-D integer" in finding.message
    assert ("error", "kind of image") in found(rows(_3={"dtype": "float32"}))
    volumes = {f"_{i}": {"size": (8, 8, 8), "dtype": "float32"} for i in range(24)}
    volumes["_3"] = {"size": (8, 8, 8), "dtype": "uint8"}
    kinds = found(rows(**volumes))
    assert ("error", "kind of image") not in kinds
    assert kinds["note", "dtype"].cases == ("case03",)


def test_grey_among_rgb_is_a_note_other_channels_an_error():
    assert found(rows(_2={"channels": 1}))["note", "channels"].cases == ("case02",)
    assert found(rows(_2={"channels": 4}))["error", "channels"].cases == ("case02",)


def test_other_orientations_are_warned_of():
    volumes = {f"_{i}": {"size": (8, 8, 8), "orientation": "RAS"} for i in range(24)}
    volumes["_5"]["orientation"] = "LPS"
    assert found(rows(**volumes))["warning", "orientation"].cases == ("case05",)


def test_spacing_that_is_unknown_or_far_off():
    volumes = {f"_{i}": {"size": (8, 8, 8), "spacing_mm": (3.0, 1.0, 1.0)} for i in range(24)}
    assert ("warning", "spacing") not in found(rows(**volumes))
    volumes["_5"] = {"size": (8, 8, 8), "spacing_mm": (3.0, 1.0, 2.5)}
    volumes["_6"] = {"size": (8, 8, 8), "spacing_mm": (30.0, 1.0, 1.0)}
    finding = found(rows(**volumes))["warning", "spacing"]
    assert finding.cases == ("case06", "case05")
    assert "median 3 x 1 x 1 mm, case06 30 x 1 x 1 mm" in finding.message
    volumes = {f"_{i}": {"size": (8, 8, 8), "spacing_mm": None} for i in range(24)}
    assert len(found(rows(**volumes))["warning", "spacing"].cases) == 24


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_one_structure_may_be_any_of_the_usual_whites(top):
    counts = {f"_{i}": {"counts": ((0, 90), (top, 10))} for i in range(24)}
    assert found(rows(**counts)) == {}


def test_other_values_come_with_a_mapping():
    counts = {f"_{i}": {"counts": ((0, 90), (7, 10))} for i in range(24)}
    assert "0 -> 0, 7 -> 1" in found(rows(**counts))["error", "labels"].message
    counts = {f"_{i}": {"counts": ((0, 80), (64, 10), (128, 10))} for i in range(24)}
    finding = found(rows(**counts), structures=2)["error", "labels"]
    assert "0 -> 0, 64 -> 1, 128 -> 2 (--structures 2)" in finding.message
    assert len(finding.cases) == 24


def test_classes_that_are_missing_or_rare():
    counts = {f"_{i}": {"counts": ((0, 90), (1, 10))} for i in range(24)}
    counts["_4"] = {"counts": ((0, 80), (1, 10), (3, 10))}
    names = {1: "liver", 2: "spleen", 3: "kidney"}
    findings = verify(Dataset("nnU-Net raw", None, (), label_names=names), rows(**counts))
    said = {f.message.split(" ")[0]: f for f in findings}
    assert said["spleen"].level == "error"
    assert said["kidney"].level == "warning"
    assert said["kidney"].cases == ("case04",)
    assert "liver" not in said


def test_masks_that_are_empty_full_or_tiny():
    changes = {
        "_1": {"counts": ((0, 100),)},
        "_2": {"counts": ((0, 1), (255, 99))},
        "_3": {"counts": ((255, 100),)},
        "_4": {"counts": ((0, 999), (255, 1))},
    }
    findings = found(rows(**changes))
    assert findings["warning", "empty masks"].cases == ("case01",)
    assert findings["warning", "nearly full masks"].cases == ("case03", "case02")
    assert findings["note", "tiny masks"].cases == ("case04",)


def test_constant_and_strange_intensities():
    flat = Intensities(5.0, 5.0, 0.0, 5.0)
    bright = Intensities(200.0, 250.0, 3.0, 255.0)
    findings = found(rows(_1={"image": (flat,) * 3}, _2={"image": (bright,) * 3}))
    assert findings["error", "intensities"].cases == ("case01",)
    assert set(findings["warning", "intensities"].cases) == {"case01", "case02"}


def test_copies_near_duplicates_and_leaks():
    twin = row(4).picture_hash
    changes = {"_7": {"picture_hash": twin ^ 1}, "_8": {"sha256": "9"}}
    changes["_8"]["picture_hash"] = row(9).picture_hash
    findings = found(rows(**changes))
    assert findings["warning", "copies"].cases == ("case08", "case09")
    assert findings["note", "near-duplicates"].cases == ("case04", "case07")
    split = {f"case{i:02}": "train" for i in range(24)}
    assert ("warning", "leaks") not in found(rows(**changes), split=split)
    leak = found(rows(**changes), split=split | {"case07": "val"})["warning", "leaks"]
    assert leak.cases == ("case04", "case07")
    # val and test on both sides is no leak into what was trained on
    apart = split | {"case04": "test", "case07": "val"}
    assert ("warning", "leaks") not in found(rows(**changes), split=apart)


def test_a_patient_on_both_sides_is_a_leak():
    changes = {"_1": {"group": "p"}, "_2": {"group": "p"}}
    split = {f"case{i:02}": "train" for i in range(24)} | {"case02": "test"}
    assert "one patient" in found(rows(**changes), split=split)["warning", "leaks"].message


def test_errors_come_first():
    findings = verify(
        Dataset("folder pairs", None, ()), rows(_1={"counts": ((0, 100),)}, _2={"channels": 4})
    )
    levels = [f.level for f in findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)


def test_values_and_structures():
    data = Dataset("folder pairs", None, ())
    assert label_values(data, rows(2)) == ([0, 255], 1)
    assert label_values(data, [row(0, counts=((0, 5), (3, 5), (1, 2)))]) == ([0, 1, 3], 3)
    named = Dataset("BraTS", None, (), label_names={1: "a", 2: "b"})
    assert label_values(named, rows(1)) == ([0, 255], 2)


def test_a_value_that_the_data_do_not_declare_is_named_with_its_mask():
    cases = rows(_3={"counts": ((0, 3000), (1, 500), (7, 596))})
    cases = [dataclasses.replace(r, counts=((0, 9), (1, 9))) if r.counts[-1][0] == 255 else r
             for r in cases]  # fmt: skip
    finding = found(cases, label_names={1: "lesion"})["error", "labels"]
    assert "1 of 24 masks, case03 first, hold values that are no label of the data: 7" in (
        finding.message
    )
    assert "expected 0 background, 1 lesion" in finding.message
    assert finding.cases == ("case03",)


def test_black_and_white_masks_are_the_one_structure_that_the_data_declare():
    assert found(rows(), label_names={1: "lesion"}) == {}


def test_structures_have_one_name_whether_their_value_is_1_or_255():
    nameless = Dataset("folder pairs", None, ())
    for value in (1, 255):
        cases = [row(0, counts=((0, 3000), (value, 9)))]
        assert names_by_value(nameless, cases) == {value: "foreground"}
        finding = found(cases)["warning", "classes"]
        assert finding.message.startswith(f"foreground (value {value}) occurs in 1 of 1 case;")
    two = [row(0, counts=((0, 3000), (1, 9), (2, 9)))]
    assert names_by_value(nameless, two) == {1: "class 1", 2: "class 2"}
    odd = [row(0, counts=((0, 3000), (1, 9), (7, 9)))]
    assert names_by_value(nameless, odd, 2) == {1: "class 1", 7: "value 7"}
    named = Dataset("folder pairs", None, (), label_names={1: "lesion"})
    assert names_by_value(named, [row(0)]) == {255: "lesion"}


def test_long_names_are_short_in_messages_and_whole_among_the_cases():
    ids = [f"patient_{i}_" + "x" * 100 + "_end" for i in range(2)]
    copies = [row(0, id=ids[0]), row(1, id=ids[1], sha256="0"), *rows(24)[2:]]
    finding = found(copies)["warning", "copies"]
    assert finding.cases == tuple(ids)
    assert "patient_0_xx" in finding.message
    assert ids[0] not in finding.message
