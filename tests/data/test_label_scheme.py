"""Declared labels: every stored value finds its class, every region stays what it was."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymunet.data.case import Dataset
from hymunet.data.label_scheme import label_scheme
from hymunet.errors import HyMUNetError

WHERE = Path("dataset.json")


def classes(scheme, used):
    """Stored value -> class, also where the map is left out since it changes nothing."""
    return dict(scheme.label_map or [(value, value) for value in (0, *used)])


def nested(scheme):
    return Dataset("", Path(), (), label_names=scheme.names, regions=scheme.regions).nested


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "Anterior", "2": "Posterior"},
        {"background": 0, "Anterior": 1, "Posterior": 2},
        {"Posterior": 2, "Anterior": [1], "background": 0},
        {"0": "Unlabelled", "2": "Posterior", "1": "Anterior"},
        {"Anterior": "1", "Posterior": "2"},
    ],
)
def test_both_ways_of_writing_labels_mean_the_same(labels):
    scheme = label_scheme(labels, None, WHERE)
    assert scheme.names == {1: "Anterior", 2: "Posterior"}
    assert scheme.label_map is None
    assert scheme.regions is None
    assert scheme.ignore_label is None


def test_values_with_gaps_become_classes_in_their_order():
    scheme = label_scheme({"background": 0, "b": 205, "a": 7}, None, WHERE)
    assert scheme.names == {1: "a", 2: "b"}
    assert scheme.label_map == ((0, 0), (7, 1), (205, 2))


def test_the_label_to_be_ignored_is_no_structure():
    for labels in ({"background": 0, "a": 1, "ignore": 2}, {"0": "bg", "1": "a", "2": "ignore"}):
        scheme = label_scheme(labels, None, WHERE)
        assert scheme.names == {1: "a"}
        assert scheme.label_map is None
        assert scheme.ignore_label == 2


def test_the_regions_of_brats_are_nested():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    scheme = label_scheme(labels, [1, 2, 3], WHERE)
    assert scheme.names == {1: "whole without core", 2: "core without enhancing", 3: "enhancing"}
    assert scheme.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert scheme.label_map is None
    assert scheme.ignore_label == 4
    assert nested(scheme)


def test_nested_regions_number_classes_from_the_outside_in():
    # as of KiTS: the tumour, 2, lies innermost
    labels = {"background": 0, "tumour": 2, "kidney": [1, 2, 3], "masses": [2, 3]}
    scheme = label_scheme(labels, None, WHERE)
    assert dict(scheme.label_map) == {0: 0, 1: 1, 3: 2, 2: 3}
    assert list(scheme.regions) == ["kidney", "masses", "tumour"]
    assert nested(scheme)


def test_one_region_of_two_labels_is_one_class():
    scheme = label_scheme({"background": 0, "tumour": [1, 2]}, [1], WHERE)
    assert scheme.names == {1: "tumour"}
    assert dict(scheme.label_map) == {0: 0, 1: 1, 2: 1}


def test_regions_that_do_not_nest_keep_their_classes():
    labels = {"background": 0, "left": [3, 5], "right": [5, 9], "spot": 5}
    scheme = label_scheme(labels, [3, 9, 5], WHERE)
    assert scheme.names == {1: "label 3", 2: "spot", 3: "label 9"}
    assert scheme.regions == {"left": (1, 2), "right": (2, 3), "spot": (2,)}
    assert not nested(scheme)


VALUES = st.sets(st.integers(1, 60), min_size=1, max_size=8).map(sorted)


@given(st.lists(VALUES, min_size=1, max_size=5), st.booleans())
def test_a_region_holds_the_same_pixels_before_and_after(regions, make_nested):
    if make_nested:  # unions of the first ones
        regions = [sorted({v for r in regions[:n] for v in r}) for n in range(1, len(regions) + 1)]
        regions = [list(r) for r in dict.fromkeys(map(tuple, regions))]
    labels = {"background": 0, **{f"region {k}": values for k, values in enumerate(regions)}}
    used = {value for values in regions for value in values}
    if all(len(values) == 1 for values in regions):
        return  # plain labels
    scheme = label_scheme(labels, None, WHERE)
    class_of = classes(scheme, used)
    assert class_of.keys() == {0, *used}
    assert class_of[0] == 0
    assert {*class_of.values()} == {0, *scheme.names}
    assert list(scheme.names) == list(range(1, len(scheme.names) + 1))
    for k, values in enumerate(regions):
        of = scheme.regions[f"region {k}"]
        assert {value for value in used if class_of[value] in of} == set(values)
    if make_nested:
        assert nested(scheme)


@pytest.mark.parametrize(
    ("labels", "order", "words"),
    [
        (
            ["background", "a"],
            None,
            r"the labels are \['background', 'a'\]; expected {\"background",
        ),
        ({"background": 0}, None, r"labels are 0 beside the background"),
        ({}, None, r"labels are 0 beside the background"),
        ({"background": 1, "a": 2}, None, r"'background' has the value 1; expected 0 for the"),
        ({"background": 0, "a": [0, 1]}, None, r"'a' has the value \[0, 1\]; expected 0 for"),
        ({"background": 0, "a": "one"}, None, r"'a' has the value 'one'; expected {"),
        ({"background": 0, "a": 1.5}, None, r"'a' has the value 1.5"),
        ({"background": 0, "a": True}, None, r"'a' has the value True"),
        ({"background": 0, "a": -1}, None, r"'a' has the value -1"),
        ({"background": 0, "a": []}, None, r"'a' has the value \[\]"),
        ({"background": 0, "a": 1, "b": 1}, None, r"'a' and 'b' both have the value 1"),
        ({"0": "background", "1": "a", "2": "a"}, None, r"two labels are called 'a'"),
        ({"background": 0, "a": 1, "ignore": 1}, None, r"to be ignored is 1; expected .* another"),
        ({"background": 0, "a": 1, "ignore": [2, 3]}, None, r"'ignore' has the value \[2, 3\]"),
        (
            {"background": 0, "a": [1, 2], "b": 2},
            [1],
            r"regions_class_order is \[1\]; .* 2 regions",
        ),
        ({f"a{v}": v for v in range(1, 257)}, None, r"labels are 256 beside"),
    ],
)
def test_labels_that_say_nothing_clear_are_refused(labels, order, words):
    with pytest.raises(HyMUNetError, match=words):
        label_scheme(labels, order, WHERE)
