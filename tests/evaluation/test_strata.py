"""A case is described by its valid pixels, and bands are cut where they say."""

import numpy as np

from hymunet.evaluation.strata import (
    BORDER_BANDS,
    COMPACTNESS_BANDS,
    CONTRAST_BANDS,
    STRATA,
    add_bands,
    describe,
    members,
)


def test_bands_are_cut_where_they_say():
    properties = [
        # fraction, contrast, compactness, border
        (0.0, None, None, None),
        (0.049, 1.0, 0.1, False),
        (0.05, 2.0, 0.2, True),
        (0.2, 3.0, 0.3, False),
        (0.21, 4.0, 0.4, False),
        (0.9, 5.0, 0.5, False),
        (0.9, 6.0, 0.6, False),
    ]
    names = ("target_fraction", "contrast", "compactness", "touches_border")
    rows = [dict(zip(names, values, strict=True)) for values in properties]
    cuts, notes = add_bands(rows)
    assert [r["size_band"] for r in rows] == [
        None, "< 5 %", "5-20 %", "5-20 %", "> 20 %", "> 20 %", "> 20 %"
    ]  # fmt: skip
    low, high = CONTRAST_BANDS
    assert [r["contrast_band"] for r in rows] == [None, low, low, low, high, high, high]
    thirds = [band for band in COMPACTNESS_BANDS for _ in range(2)]
    assert [r["compactness_band"] for r in rows] == [None, *thirds]
    assert [r["border_band"] for r in rows][1:3] == list(BORDER_BANDS)
    assert cuts["contrast"] == 3.5
    assert notes == ["strata of contrast are cut at 3.5, the median of these cases"]

    cuts, notes = add_bands(rows, contrast_median=1.5)
    assert [r["contrast_band"] for r in rows] == [None, low, high, high, high, high, high]
    assert notes == ["strata of contrast are cut at 1.5, the median of the training cases"]
    assert sum(map(len, members(rows, STRATA[0]).values())) == 6


def test_a_case_is_described_by_its_valid_pixels():
    pixels = np.random.default_rng(0).normal(0, 1, (1, 20, 20))
    target = np.zeros((20, 20), bool)
    target[5:12, 0:9] = True
    found = describe(pixels, target)
    assert found["touches_border"]
    assert found["contrast"] > 0
    assert 0 < found["compactness"] < 1
    valid = np.zeros_like(target)
    valid[:, 2:] = True
    inside = describe(pixels, target, valid)
    assert not inside["touches_border"]
    assert inside["compactness"] != found["compactness"]
    assert describe(None, target)["contrast"] is None
    assert set(describe(pixels, target, ~target).values()) == {None}
