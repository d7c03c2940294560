"""What the server takes upon itself: sizes, waiting, time."""

from dataclasses import dataclass

from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Args:
        megapixels: Pixels, or voxels times channels of a volume, that an image may have, / 10^6.
        megabytes: Size of a request's body, / 10^6.
        queue: Requests that may wait for the model, besides those in work.
        timeout_s: From a request's first byte to its answer.
        batch: Pictures that go through the network together when several wait.
    """

    megapixels: float = 50.0
    megabytes: float = 64.0
    queue: int = 16
    timeout_s: float = 60.0
    batch: int = 8

    def __post_init__(self) -> None:
        for name, option in (
            ("megapixels", "--max-megapixels"),
            ("megabytes", "--max-megabytes"),
            ("timeout_s", "--timeout"),
        ):
            value = getattr(self, name)
            if not 0 < value < 1e6:
                raise HyMUNetError(f"{option} must lie above 0 and below 1000000, {value:g} came")
        for name in ("queue", "batch"):
            value = getattr(self, name)
            if not 1 <= value <= 10_000:
                raise HyMUNetError(f"--{name} must lie between 1 and 10000, {value} came")

    @property
    def pixels(self) -> int:
        """`megapixels` as a number of pixels."""
        return int(self.megapixels * 1e6)

    @property
    def body_bytes(self) -> int:
        """`megabytes` as a number of bytes."""
        return int(self.megabytes * 1e6)

    @property
    def held_bytes(self) -> int:
        """Of all bodies together that lie in memory, arriving, waiting or in work."""
        return 4 * self.body_bytes
