"""Cleaning masks up: by hand, against an independent way to do it, and what must always hold."""

from itertools import chain, combinations, product

import numpy as np
import pytest
from scipy import ndimage

from hymunet import HyMUNet, Predictor
from hymunet.errors import HyMUNetError
from hymunet.inference.postprocess import FILL_HOLES, KEEP_LARGEST, OPERATIONS, Postprocess

NAMES = ("outer", "middle", "core")
BOTH = (KEEP_LARGEST, FILL_HOLES)
SUBSETS = list(chain.from_iterable(combinations(OPERATIONS, n) for n in range(3)))
SIZES = [(13, 17), (6, 7, 8)]


def blobs(seed: int, size: tuple[int, ...], classes: int = 3) -> np.ndarray:
    """Smoothed noise in levels: islands, holes and rings of every class."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(size), rng.uniform(0.4, 1.2))
    cuts = np.quantile(noise, np.sort(rng.uniform(0.2, 0.9, classes)))
    mask = np.searchsorted(cuts, noise).astype(np.uint8)
    if seed % 2:  # or else a class is always next to the one below it
        mask = rng.permutation(classes + 1).astype(np.uint8)[mask]
    return mask


def picture(text: str) -> np.ndarray:
    rows = [row.strip() for row in text.strip().splitlines()]
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.uint8)


def check(before: str, after: str, nested: bool = False, **operations) -> None:
    names = ("one", "two", "three")
    mask = picture(before)
    kept = mask.copy()
    done = Postprocess(names, nested, operations)(mask)
    np.testing.assert_array_equal(done, picture(after))
    np.testing.assert_array_equal(mask, kept)  # the input stays
    assert done.dtype == mask.dtype


# by hand


def test_the_largest_part_stays_and_corners_hold_it_together():
    check(
        """
        11......
        1..11...
        ...1....
        ..1...1.
        """,
        """
        ........
        ...11...
        ...1....
        ..1.....
        """,
        one=(KEEP_LARGEST,),
    )


def test_of_equally_large_parts_the_first_in_raster_order_stays():
    check("1.1.1", "1....", one=(KEEP_LARGEST,))
    check(
        """
        ...11
        .....
        11..1
        """,
        """
        ...11
        .....
        .....
        """,
        one=(KEEP_LARGEST,),
    )


def test_other_classes_stay_where_they_are():
    check("111.2.221", "111.2.22.", one=(KEEP_LARGEST,))
    check("111.2.221", "111...221", two=(KEEP_LARGEST,))


def test_a_part_of_a_nested_structure_falls_back_to_the_one_around_it():
    check("1222.1121", "1222.1111", nested=True, two=(KEEP_LARGEST,))
    check("1323133", "1222133", nested=True, three=(KEEP_LARGEST,))
    # what goes of the outer structure takes all inside it along
    check("1222.33.", "1222....", nested=True, one=(KEEP_LARGEST,))
    # and the inner one is looked at after that: its largest part was there
    check("12.1333", "...1333", nested=True, one=(KEEP_LARGEST,), three=(KEEP_LARGEST,))
    check("1113.133", "1113....", nested=True, one=(KEEP_LARGEST,), three=(KEEP_LARGEST,))


def test_a_hole_is_what_no_path_over_edges_leads_out_of():
    check(
        """
        .11..111
        1..1.1.1
        .1.1.1..
        .11..111
        """,
        """
        .11..111
        1111.1.1
        .111.1..
        .11..111
        """,
        one=(FILL_HOLES,),
    )


def test_a_gap_at_the_edge_of_the_image_is_no_hole():
    check("1.1\n111", "1.1\n111", one=(FILL_HOLES,))


def test_a_volume_needs_a_wall_on_all_sides():
    box = np.ones((3, 3, 3), np.uint8)
    box[1, 1, 1] = 0
    fill = Postprocess(("one",), operations={"one": (FILL_HOLES,)})
    assert fill(box).all()
    box[0, 1, 1] = 0
    np.testing.assert_array_equal(fill(box), box)


def test_filling_takes_background_only_and_what_touches_the_structure():
    check(
        """
        1111111
        1.....1
        1.222.1
        1.2.2.1
        1.222.1
        1.....1
        1111111
        """,
        """
        1111111
        1111111
        1122211
        112.211
        1122211
        1111111
        1111111
        """,
        one=(FILL_HOLES,),
    )


def test_the_inner_of_two_takes_its_own_hole():
    check("11111\n12221\n12.21\n12221\n11111", "11111\n12221\n12221\n12221\n11111",
          one=(FILL_HOLES,), two=(FILL_HOLES,))  # fmt: skip
    # a hole that both enclose and touch goes to the later one
    ring = "1111111\n1222221\n12...21\n12.1.21\n12...21\n1222221\n1111111"
    full = "1111111\n1222221\n1222221\n1221221\n1222221\n1222221\n1111111"
    check(ring, full, one=(FILL_HOLES,), two=(FILL_HOLES,))


def test_a_hole_of_a_nested_structure_takes_whatever_is_outside_it():
    check("2222\n2102\n2222", "2222\n2222\n2222", nested=True, two=(FILL_HOLES,))
    check("2222\n2102\n2222", "2222\n2112\n2222", nested=True, one=(FILL_HOLES,))


def test_smaller_parts_go_before_holes_are_filled():
    """The island in the hole is background by then."""
    check(
        "1111\n1.21\n1111\n..22", "1111\n1111\n1111\n..22", one=(FILL_HOLES,), two=(KEEP_LARGEST,)
    )


# against an independent way


def plain(mask, nested, operations):
    """The same by scipy's own filling and a search over labels, on whole arrays."""
    mask = mask.copy()
    everywhere = np.ones((3,) * mask.ndim)
    for k, name in enumerate(NAMES, 1):
        if KEEP_LARGEST in operations.get(name, ()):
            inside = mask >= k if nested else mask == k
            parts, count = ndimage.label(inside, everywhere)
            sizes = [(parts == p).sum() for p in range(1, count + 1)]
            for part in range(1, count + 1):
                if part - 1 != int(np.argmax(sizes)):
                    mask[parts == part] = k - 1 if nested else 0
    for k in (3, 2, 1):
        if FILL_HOLES in operations.get(NAMES[k - 1], ()):
            inside = mask >= k if nested else mask == k
            holes = ndimage.binary_fill_holes(inside) & ~inside
            if nested:
                mask[holes] = k
                continue
            parts, count = ndimage.label(holes & (mask == 0))
            for part in range(1, count + 1):
                if (ndimage.binary_dilation(parts == part) & inside).any():
                    mask[parts == part] = k
    return mask


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_the_plain_way_gives_the_same(size, nested):
    changed = 0
    for seed, chosen in enumerate(product(SUBSETS, repeat=3)):
        operations = dict(zip(NAMES, chosen, strict=True))
        mask = blobs(seed, size)
        done = Postprocess(NAMES, nested, operations)(mask)
        np.testing.assert_array_equal(done, plain(mask, nested, operations))
        changed += not np.array_equal(done, mask)
    assert changed > 40  # of 64, or the masks would be too simple


# laws


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_what_holds_of_every_mask(size, nested):
    for seed, chosen in enumerate(product(SUBSETS, repeat=3)):
        operations = dict(zip(NAMES, chosen, strict=True))
        clean = Postprocess(NAMES, nested, operations)
        mask = blobs(1000 + seed, size)
        done = clean(mask)
        np.testing.assert_array_equal(clean(done), done)  # twice is once
        for k, name in enumerate(NAMES, 1):
            before, after = (m >= k if nested else m == k for m in (mask, done))
            if not any(operations.values()):
                np.testing.assert_array_equal(after, before)
            if KEEP_LARGEST in operations[name] and after.any():
                assert ndimage.label(after, np.ones((3,) * mask.ndim))[1] == 1
            assert after.any() or nested or not before.any()  # no structure disappears
            if nested:
                if FILL_HOLES in operations[name]:
                    np.testing.assert_array_equal(after, ndimage.binary_fill_holes(after))
                continue
            # exclusive: only smaller parts go, and only what was background, or went, is taken
            stays = before
            if KEEP_LARGEST in operations[name]:
                parts, _ = ndimage.label(before, np.ones((3,) * mask.ndim))
                stays = parts == max(1, np.bincount(parts[before], minlength=1).argmax())
            assert after[stays].all()
            others = any(KEEP_LARGEST in operations[n] for n in NAMES if n != name)
            assert others or (mask[after & ~before] == 0).all()
            if not operations[name]:
                np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_mirrored_masks_give_mirrored_results(size, nested):
    """Where no two parts are equally large, since of those one must go."""
    operations = dict.fromkeys(NAMES, BOTH)
    clean, seen = Postprocess(NAMES, nested, operations), 0
    for seed in range(60):
        mask = blobs(2000 + seed, size)
        flips = [axes for n in (1, 2) for axes in combinations(range(len(size)), n)]
        if any(_tied(mask, k, nested) for k in (1, 2, 3)):
            continue
        seen += 1
        for axes in flips:
            np.testing.assert_array_equal(clean(np.flip(mask, axes)), np.flip(clean(mask), axes))
    assert seen > 10


def _tied(mask, k, nested):
    """Whether several parts have one size, at whatever step they might be compared."""
    inside = mask >= k if nested else mask == k
    parts, _ = ndimage.label(inside, np.ones((3,) * mask.ndim))
    sizes = np.bincount(parts[inside], minlength=1)[1:]
    largest = sizes.max(initial=0)
    return (sizes == largest).sum() > 1 or (nested and len(set(sizes)) < len(sizes))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1, 3)], ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_thin_and_empty_masks(size, nested):
    clean = Postprocess(NAMES, nested, dict.fromkeys(NAMES, BOTH))
    for value in range(4):
        mask = np.full(size, value, np.uint8)
        np.testing.assert_array_equal(clean(mask), mask)
    assert clean(np.zeros((0, 4), np.uint8)).shape == (0, 4)


def test_types_and_memory_layouts():
    mask = blobs(4, (13, 17))
    clean = Postprocess(NAMES, False, dict.fromkeys(NAMES, BOTH))
    expected = clean(mask)
    for other in (mask.astype(np.int64), np.asfortranarray(mask), mask.astype(">i2")):
        done = clean(other)
        assert done.dtype == other.dtype
        np.testing.assert_array_equal(done, expected)
    mask.flags.writeable = False
    np.testing.assert_array_equal(clean(mask), expected)


# what is kept in files


def test_to_a_dictionary_and_back():
    given = Postprocess(NAMES, True, {"core": [FILL_HOLES, KEEP_LARGEST], "outer": ()})
    assert given.to_dict() == {"core": [KEEP_LARGEST, FILL_HOLES]}
    assert Postprocess.from_dict(given.to_dict(), NAMES, True) == given
    assert Postprocess.from_dict(None, list(NAMES), True) == Postprocess(NAMES, True)
    added = Postprocess(NAMES).with_operation("core", FILL_HOLES)
    assert added.with_operation("core", KEEP_LARGEST).to_dict() == given.to_dict()
    assert given.describe() == "core: keep largest, fill holes"
    assert Postprocess(NAMES).describe() == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"liver": [KEEP_LARGEST]}, "names the structure 'liver'; expected one of outer, middle"),
        ({"twice": [KEEP_LARGEST]}, "names the structure 'twice'.* each name once"),
        ({"core": ["open"]}, "core has open, which this version does not know.* update hymunet"),
        ({"core": KEEP_LARGEST}, "core has keep_largest, which"),
        ({"core": [[KEEP_LARGEST]]}, "core has .*, which this version does not know"),
        ([KEEP_LARGEST], "must name operations by structure, such as"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(values, message):
    with pytest.raises(HyMUNetError, match=message):
        Postprocess.from_dict(values, (*NAMES, "twice", "twice"), False)


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros(4, int)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(HyMUNetError, match="a mask holds class indices"):
        Postprocess(NAMES)(mask)


# in the predictor


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_predictor_does_as_the_file_says_unless_it_is_told_not_to(activation):
    softmax = activation == "softmax"
    network = HyMUNet(3, 3 if softmax else 2, activation=activation, dims=(4, 8), depths=(1, 1),
                      d_state=2, stages="CM")  # fmt: skip
    info = {"classes": ["a", "b"], "postprocess": {"b": [KEEP_LARGEST]}}
    probability = np.zeros((3 if softmax else 2, 1, 6), np.float32)
    probability[0] = 0.2 if softmax else 0.9
    probability[-1, 0, [0, 1, 4]] = 0.9
    cleaned, raw = ([[2, 2, 0, 0, 0, 0]], [[2, 2, 0, 0, 2, 0]]) if softmax else (
        [[2, 2, 1, 1, 1, 1]], [[2, 2, 1, 1, 2, 1]])  # fmt: skip
    np.testing.assert_array_equal(Predictor(network, info=info).cut(probability), cleaned)
    plain = Predictor(network, info=info, postprocess=False)
    np.testing.assert_array_equal(plain.cut(probability), raw)
    np.testing.assert_array_equal(
        Predictor(network, info={"classes": ["a", "b"]}).cut(probability), raw
    )
    with pytest.raises(HyMUNetError, match="names the structure 'c'"):
        Predictor(network, info=info | {"postprocess": {"c": [KEEP_LARGEST]}})
