"""The curve of one training as a small SVG, written by hand: a search draws one a trial, which should cost it nothing."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

ACCURACY, LOSS, INK, GRID = "#0b7a75", "#e08e0b", "#495057", "#e5e8eb"
WIDTH, HEIGHT = 520, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 462, 46, 232  # of the axes


def curve_svg(curve: Sequence[dict[str, float]], title: str) -> str:
    """Accuracy and loss against the epochs; rungs are rings.

    Args:
        curve: Points with ``epoch``, and ``accuracy`` (0 to 1) and ``loss`` as far as they are finite.
        title: Above it.
    """
    epochs = max((p["epoch"] for p in curve), default=1.0)
    most_loss = _ceiling(max((p["loss"] for p in curve if "loss" in p), default=1.0))

    def at(epoch: float, part: float) -> tuple[float, float]:
        return round(LEFT + (RIGHT - LEFT) * epoch / epochs, 1), round(BOTTOM - (BOTTOM - TOP) * part, 1)

    accuracy = [at(p["epoch"], p["accuracy"]) for p in curve if "accuracy" in p]
    loss = [at(p["epoch"], p["loss"] / most_loss) for p in curve if "loss" in p]
    rungs = [at(p["epoch"], p["accuracy"]) for p in curve if "rung" in p and "accuracy" in p]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, size=13),
    ]
    for quarter in range(5):
        y = at(0, quarter / 4)[1]
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{quarter / 4:g}", "end", ACCURACY))
        parts.append(_text(RIGHT + 8, y + 4, f"{most_loss * quarter / 4:g}", "start", LOSS))
    for epoch in _ticks(epochs):
        parts.append(_text(at(epoch, 0)[0], BOTTOM + 18, f"{epoch:g}", "middle"))
    parts += [_text((LEFT + RIGHT) / 2, BOTTOM + 38, "epoch", "middle"), _text(LEFT, 38, "accuracy", "middle", ACCURACY)]
    parts += [_text(RIGHT, 38, "loss", "middle", LOSS), _line(loss, LOSS, 'stroke-dasharray="5 4"'), _line(accuracy, ACCURACY)]
    parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="white" stroke="{ACCURACY}" stroke-width="2"/>' for x, y in rungs]
    return "\n".join([*parts, "</svg>\n"])


def _line(points: Sequence[tuple[float, float]], color: str, more: str = "") -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" {more}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = INK, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}" font-size="{size}">{html.escape(text)}</text>'


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten, so that quarters of it are short."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if value <= step * power * (1 + 1e-9))


def _ticks(epochs: float) -> list[float]:
    """At most some six whole numbers from 0 on, or the ends of less than one epoch."""
    if epochs < 1:
        return [0.0, epochs]
    step = max(1, math.ceil(epochs / 6))
    return [float(e) for e in range(0, math.floor(epochs) + 1, step)]
