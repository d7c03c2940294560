"""What the user is told while a command works: on standard error, names shown as they are."""

from rich.console import Console


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line as it is: brackets are no markup, numbers keep one colour, and nothing is
    wrapped, so that a path can be copied."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
