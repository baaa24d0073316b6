"""The fleet's cells over time as an SVG: one row per host cell, the darker the fuller."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from numavm_cli.simulation.run import Result

CELL_WIDTH, CELL_HEIGHT = 4, 6
LEFT, TOP, BOTTOM = 120, 24, 20
FONT = 'font-family="sans-serif" font-size="6"'
MOST_ROWS = 400
"""More host cells are left out of the picture, so that a browser can show it."""


def svg_of(result: Result) -> str:
    """Return the picture."""
    rows = result.cells[:MOST_ROWS]
    width = LEFT + CELL_WIDTH * max(1, len(result.samples))
    height = TOP + CELL_HEIGHT * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<text x="{LEFT}" y="14" font-size="11">dedicated CPUs held per host cell over time</text>',
    ]
    for row, name in enumerate(rows):
        y = TOP + row * CELL_HEIGHT
        parts.append(f'<text x="2" y="{y + CELL_HEIGHT - 1}">{escape(name)}</text>')
        parts += _row(result, row, y)
    if result.samples:
        end = f"time 0 to {result.samples[-1].time:g}"
        parts.append(f'<text x="{LEFT}" y="{height - 6}" font-size="9">{escape(end)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _row(result: Result, row: int, y: int) -> list[str]:
    """Return the boxes of one host cell; neighbours of one shade are one box."""
    boxes, start = [], 0
    shades = [round(sample.held[row] * 10) for sample in result.samples]
    for at in range(1, len(shades) + 1):
        if at == len(shades) or shades[at] != shades[start]:
            x, width = LEFT + start * CELL_WIDTH, (at - start) * CELL_WIDTH
            colour = quoteattr(f"hsl(210, 60%, {95 - 7 * shades[start]}%)")
            boxes.append(
                f'<rect x="{x}" y="{y}" width="{width}" height="{CELL_HEIGHT - 1}" fill={colour}/>'
            )
            start = at
    return boxes
