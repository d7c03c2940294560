"""How times, bytes and counts are written for people: three digits and a unit."""

from hymunet.wording import memory_text

_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def duration(seconds: float | None) -> str:
    """Milliseconds, and seconds from 1 on; – for nothing."""
    if seconds is None:
        return "–"
    return _three(seconds, "s") if seconds >= 1 else _three(1e3 * seconds, "ms")


def binary(size: float | None) -> str:
    """Bytes with a binary unit; – for nothing."""
    return "–" if size is None else memory_text(int(size))


def amount(number: float | None) -> str:
    """A count with k, M, G or T; – for nothing."""
    if number is None:
        return "–"
    for factor, letter in _COUNTS:
        if abs(number) >= factor:
            return _three(number / factor, letter)
    return f"{number:g}"


def _three(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
