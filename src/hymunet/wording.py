"""Counts, long names and memory in words, as every message writes them."""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def plural(count: int, one: str, many: str | None = None) -> str:
    """A counted noun: `1 case`, `0 cases`, `1 pass`, `2 passes`.

    Args:
        count: How many; a comma parts thousands from 10,000 on.
        one: The noun for one, with what hangs on the number: `case is`.
        many: The same for several or none, `cases are`; None: `one` with s, or es after s, x, tch
            and sh.
    """
    if many is None:
        many = one + ("es" if one.endswith(("s", "x", "tch", "sh")) else "s")
    number = f"{count:,}" if count >= 10_000 else f"{count}"
    return f"{number} {one if count == 1 else many}"


def some_of(part: int, total: int, one: str, verbs: tuple[str, str]) -> str:
    """A part of counted things and its verb: `1 of 20 cases was`, `2 of 20 cases were`.

    Args:
        part: How many of them.
        total: How many there are.
        one: The noun for one, see `plural`.
        verbs: For one, and for several or none: `("was", "were")`.
    """
    return f"{part} of {plural(total, one)} {verbs[0] if part == 1 else verbs[1]}"


def shortened(name: str, most: int = 40) -> str:
    """A name of at most `most` characters: of a longer one both ends, since series of names differ
    in their numbers behind as often as in their patients before."""
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def memory_text(size: int) -> str:
    """Bytes in the unit that leaves a figure to read: `21.1 GiB`, `328 MiB`, `0 bytes`."""
    value, unit = float(size), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if abs(value) >= 100 else f"{value:.3g} {_UNITS[unit]}"
