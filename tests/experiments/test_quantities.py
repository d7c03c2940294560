"""Three digits and a unit, from nothing to the largest."""

import pytest

from hymunet.experiments.quantities import amount, binary, duration


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (duration, None, "–"), (duration, 0.00649, "6.49 ms"), (duration, 0.3361, "336 ms"),
        (duration, 1.2345, "1.23 s"), (duration, 123.4, "123 s"),
        (binary, None, "–"), (binary, 512, "512 bytes"), (binary, 1536, "1.5 KiB"),
        (binary, 120.4 * 2**20, "120 MiB"), (binary, -3 * 2**30, "-3 GiB"),
        (amount, None, "–"), (amount, 0, "0"), (amount, 999, "999"), (amount, 808_817, "809 k"),
        (amount, 2_620_000, "2.62 M"), (amount, 1.0234e9, "1.02 G"), (amount, 5e12, "5 T"),
    ],
)  # fmt: skip
def test_quantities_are_written_with_three_digits(write, value, text):
    assert write(value) == text
