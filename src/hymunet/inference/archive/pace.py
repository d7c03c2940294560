"""How fast images come and how long the rest will take, as far as this call has measured it."""

from collections import deque

_SECONDS = 300.0  # the recent past
_FEWEST = 20  # images that a rate is taken from


class Pace:
    """Images a second of this call. What an earlier call had done does not count.

    Args:
        now: The time at which the call begins, in seconds on any clock.
    """

    def __init__(self, now: float) -> None:
        self._begin = now
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, now: float, done: int) -> None:
        """Takes note that `done` images of this call are through, failed ones included."""
        # twice a second is often enough, and keeps few
        if len(self._seen) > 2 and now - self._seen[-2][0] < 0.5:
            self._seen.pop()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Images a second over the last five minutes; None: too few to tell."""
        (begin, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - begin) if done - before >= _FEWEST and now > begin else None

    def left(self, rest: int) -> tuple[float, float] | None:
        """Seconds that `rest` images will take, by the faster and by the slower of two rates, that
        of the last five minutes and that of the whole call; None: too few to tell."""
        recent, (now, done) = self.rate, self._seen[-1]
        if recent is None:
            return None
        whole = done / (now - self._begin)
        return rest / max(recent, whole), rest / min(recent, whole)


def left_text(left: tuple[float, float] | None) -> str:
    """`about 40 min left`, or `2.1 to 3.4 h left` where the rates differ by more than a tenth."""
    if left is None:
        return "time left unknown yet"
    low, high = left
    factor, unit = next(
        ((size, name) for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
         if high >= 2 * size),
        (1.0, "s"),
    )  # fmt: skip
    if high <= 1.1 * low:
        return f"about {high / factor:.2g} {unit} left"
    return f"{low / factor:.2g} to {high / factor:.2g} {unit} left"
