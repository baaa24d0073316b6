"""How commands speak: results on standard output, progress on standard error."""

import time
from collections.abc import Callable
from enum import StrEnum

import typer


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
