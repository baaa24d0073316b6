"""How long work tells that it goes on: a function that takes one short line."""

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_message: str) -> None:
    """Say nothing."""
