"""What the user is told while a command works: on standard error, names shown as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line as it is: brackets are no markup, numbers keep one colour, and nothing is
    wrapped, so that a path can be copied."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar of `total` things, gone when it is full; gives what is to be called after
    each, from any thread. Where nobody looks (no terminal) nothing is drawn."""
    from rich.progress import Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)
