"""The picture of docs/benchmarks.md: a bar for each contender's CPU for a click, as SVG.

The scale is logarithmic, because the slowest takes fifty times the CPU of the fastest.

Why not a chart library: these 80 lines make 6 kB that change only with the results. The same
picture by matplotlib 3 took 12 lines, nine more packages of 100 MB, and 18 kB; pygal 3 took six
lines, but writes today's date and a random id into its 22 kB, so every run changes the file.
"""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP = 860, 230, 90, 64
ROW, BAR = 36, 20
OURS, OTHERS, WHISKER = "#1f6feb", "#9aa4b2", "#30363d"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
STYLE = "font-family:system-ui,sans-serif;font-size:13px;fill:#24292f"


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="{STYLE};font-size:{size}px">{escape(words)}</text>'
    )


class _Scale:
    """Microseconds to pixels, logarithmic."""

    def __init__(self, high: float) -> None:
        self.ticks = [t for t in TICKS if t <= high * 1.3]
        self._low = math.log(self.ticks[0])
        self._span = math.log(max(high, self.ticks[-1])) - self._low

    def x(self, value: float) -> float:
        """Where a value lies."""
        share = (math.log(max(value, 1e-9)) - self._low) / (self._span or 1.0)
        return LEFT + max(0.0, share) * (WIDTH - LEFT - RIGHT)


def _bar(row: dict[str, Any], y: float, scale: _Scale) -> list[str]:
    cpu = row["cpu_us"]
    colour = OURS if row["key"] in ("clickmill", "ordinary") else OTHERS
    end, middle = scale.x(cpu["median"]), y + BAR / 2
    low, high = scale.x(cpu["low"]), scale.x(cpu["high"])
    return [
        _text(LEFT - 10, middle + 4, row["name"], "end"),
        (
            f'<rect x="{LEFT}" y="{y:.1f}" width="{end - LEFT:.1f}" height="{BAR}" rx="2" '
            f'fill="{colour}"/>'
        ),
        (
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
            f'stroke="{WHISKER}" stroke-width="2"/>'
        ),
        _text(max(end, high) + 8, middle + 4, f"{cpu['median']:.1f} µs"),
    ]


def bars(rows: list[dict[str, Any]]) -> str:
    """The picture, from the rows of the section `side`."""
    ordered = sorted(rows, key=lambda row: row["cpu_us"]["median"])
    scale = _Scale(ordered[-1]["cpu_us"]["median"])
    height = TOP + ROW * len(ordered) + 40
    foot = height - 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>CPU for each click, side by side</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(16, 26, "CPU for each click", size=17),
        _text(16, 46, "microseconds, median and range of the rounds; logarithmic scale"),
    ]
    for tick in scale.ticks:
        x = scale.x(tick)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{foot}" stroke="#d8dee4"/>'
        )
        parts.append(_text(x, foot + 16, f"{tick:g}", "middle", 12))
    for number, row in enumerate(ordered):
        parts += _bar(row, TOP + ROW * number + (ROW - BAR) / 2, scale)
    return "\n".join([*parts, "</svg>", ""])
