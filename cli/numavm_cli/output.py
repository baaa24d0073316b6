"""How commands speak: results on standard output, progress on standard error."""

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

_LOG_WIDTH = 160


class OutputFormat(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


def progress_to_stderr() -> Callable[[str], None]:
    """Return a function that prints a line with the seconds since now."""
    started = time.monotonic()

    def say(message: str) -> None:
        typer.echo(f"[{time.monotonic() - started:5.1f}s] {message}", err=True)

    return say


def result_console() -> "Console":
    """Return where results with colours are printed: tables need some width, also in a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=_LOG_WIDTH, highlight=False)
