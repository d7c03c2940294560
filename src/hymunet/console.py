"""What the user is told while a command works: on standard error, names shown as they are."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from hymunet.errors import HyMUNetError


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line as it is: brackets are no markup, numbers keep one colour, and nothing is
    wrapped, so that a path can be copied."""
    console.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


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


def run_script(main: Callable[..., object], name: str | None = None) -> None:
    """`main` as the command of a script: its signature and docstring are the options and the help,
    and a user's mistake is a line and exit code 1, not a traceback.

    Args:
        main: What the script does.
        name: What the help calls it; None: the file.
    """
    import cyclopts

    app = cyclopts.App(name=name, version_flags=[])
    app.default(main)
    try:
        app(sys.argv[1:], result_action="return_value")
    except HyMUNetError as error:
        say(Console(stderr=True), f"error: {error}", style="red")
        raise SystemExit(1) from None
