"""The one exception a user's mistake may raise: the command line prints it without a traceback."""


class HyMUNetError(ValueError):
    """What was expected, what came, and what to do about it, in one message.

    A subclass of `ValueError`, so that callers who know nothing of this package can catch it.
    Anything else that escapes a public function is a defect of ours, not of the input.
    """


class TooLargeError(HyMUNetError):
    """An image has more pixels than it may have, by its header: nothing was decoded."""


class NonFiniteError(HyMUNetError):
    """A loss, an activation or an input is NaN or infinite; the message names where."""


class NoRoomError(HyMUNetError):
    """The output folder takes no more files: its disk is full or over quota, or has become
    read-only. What was written before is whole; every further file would fail in the same way."""
