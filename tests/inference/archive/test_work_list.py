"""Each image once; what a manifest calls done is left out."""

import pytest

from hymunet.errors import HyMUNetError
from hymunet.inference.archive.work_list import Entry, WorkList, as_entry


def entry(name, folder="/a", real=None, others=()):
    file = f"{folder}/{name}.jpg"
    return Entry(file, f"{name}.png", "9-9", name, ".", (file,), real or file, None, others)


def done(one, stamp="9-9"):
    return {"image": one.label, "mask": one.mask, "stamp": stamp, "status": "done"}


@pytest.fixture
def work():
    with WorkList() as work:
        yield work


def everything(mask):
    return True


def names(groups):
    return [[as_entry(text).name for _, text in group] for group in groups]


def test_images_come_in_groups_each_once(work):
    work.add(entry(name) for name in "abcdeabc")
    assert names(work.waiting(0, 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert names(work.waiting(0, 2)) == []


def test_what_is_not_through_waits_for_its_next_try(work):
    work.add(entry(name) for name in "abc")
    for group in work.waiting(0, 10):
        number, text = group[1]
        assert work.finish(number) == as_entry(text)
        assert work.finish(number) is None  # only once
    assert names(work.waiting(1, 10)) == [["a", "c"]]
    assert names(work.waiting(2, 1)) == [["a"], ["c"]]
    assert (work.count(True), work.count(False)) == (1, 2)


def test_what_is_done_is_left_out_and_what_failed_is_not(work):
    work.add(entry(name) for name in "abc")
    failed = {**done(entry("b")), "status": "failed", "reason": "broken"}
    assert work.take_over([done(entry("a")), failed, done(entry("elsewhere"))], everything) == (
        [],
        0,
    )
    assert names(work.waiting(0, 10)) == [["b", "c"]]


def test_what_is_done_but_gone_is_done_again(work):
    work.add(entry(name) for name in "abc")
    lines = [done(entry(name)) for name in "abc"]
    assert work.take_over(lines, lambda mask: mask != "b.png") == ([], 1)
    assert names(work.waiting(0, 10)) == [["b"]]


def test_a_changed_image_is_told(work):
    work.add(entry(name) for name in "ab")
    assert work.take_over([done(entry("a"), "8-9"), done(entry("b"))], everything) == (
        ["/a/a.jpg"],
        0,
    )
    assert work.count(False) == 0


def test_two_images_of_one_mask_are_refused(work):
    with pytest.raises(
        HyMUNetError, match=r"/a/x\.jpg and /b/x.jpg would both be written to x\.png"
    ):
        work.add([entry("x"), entry("x", "/b")])


def test_an_image_by_another_name_is_the_same(work):
    work.add([entry("x"), entry("link", "/b", real="/a/x.jpg"), entry("x", "/b", real="/a/x.jpg")])
    assert names(work.waiting(0, 10)) == [["x"]]


@pytest.mark.parametrize("turned", [False, True])
def test_what_else_an_image_becomes_overwrites_nothing(work, turned):
    """a.jpg's overlay would be a_overlay.png, and so would be the mask of a_overlay.jpg."""
    both = [entry("a", others=("a_overlay.png",)), entry("a_overlay", others=("x.png",))]
    with pytest.raises(HyMUNetError, match=r"would both be written to a_overlay\.png"):
        work.add(both[::-1] if turned else both)


def test_the_mask_of_another_archive_is_not_taken_for_this_ones(work):
    work.add([entry("x", "/b")])
    with pytest.raises(HyMUNetError, match=r"is the mask of /a/x\.jpg, and would be that of /b/x"):
        work.take_over([done(entry("x"))], everything)
