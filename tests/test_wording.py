"""Laws of `hymunet.wording`."""

import pytest

from hymunet.wording import memory_text, plural, shortened


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("case",), "0 cases"),
        (1, ("case",), "1 case"),
        (2, ("case",), "2 cases"),
        (1, ("pass",), "1 pass"),
        (2, ("pass",), "2 passes"),
        (3, ("patch",), "3 patches"),
        (8, ("epoch",), "8 epochs"),
        (1, ("case is", "cases are"), "1 case is"),
        (7, ("series", "series"), "7 series"),
        (1997, ("case",), "1997 cases"),
        (10_000, ("step",), "10,000 steps"),
    ],
)
def test_one_is_singular_and_all_else_plural(count, words, text):
    assert plural(count, *words) == text


@pytest.mark.parametrize("most", [8, 9, 40])
@pytest.mark.parametrize("length", [0, 7, 8, 9, 10, 41, 300])
def test_shortened_names_fit_and_keep_both_ends(most, length):
    name = "".join(chr(ord("a") + index % 26) for index in range(length))
    short = shortened(name, most)
    assert len(short) == min(length, most)
    if length <= most:
        assert short == name
    else:
        head, tail = short.split("…")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert abs(len(head) - len(tail)) <= 1


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (50 * 2**10, "50 KiB"),
        (2**20 - 1, "1024 KiB"),
        (3 * 2**20 + 2**19, "3.5 MiB"),
        (328 * 2**20, "328 MiB"),
        (int(21.1 * 2**30), "21.1 GiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_memory_in_a_unit_that_leaves_a_figure(size, text):
    assert memory_text(size) == text
