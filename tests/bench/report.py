"""Tables of figures, with the same figures as JSON beside them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

RESULTS = Path("bench-results")


@dataclass(frozen=True)
class Table:
    """One bench's figures: a row per thing measured."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]
    notes: tuple[str, ...] = field(default=())


def show(tables: Sequence[Table], console: Console) -> None:
    """Print tables and write each as JSON below `bench-results`."""
    RESULTS.mkdir(exist_ok=True)
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number == 0 else "right")
        for row in table.rows:
            drawn.add_row(*(_text(value) for value in row))
        console.print(drawn)
        for note in table.notes:
            console.print(f"  {note}", highlight=False)
        stamp = {"measuredAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        (RESULTS / f"{table.name}.json").write_text(
            json.dumps({**stamp, **asdict(table)}, indent=1) + "\n"
        )


def percentile(values: Sequence[float], share: int) -> float:
    """Return the value below which `share` percent of the values lie (nearest rank)."""
    in_order = sorted(values)
    return in_order[max(0, -(-len(in_order) * share // 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def _text(value: str | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
