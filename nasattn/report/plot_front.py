"""A study's front as a plotly figure: for notebooks, and small enough for Optuna dashboard to keep."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nasattn.front import NORMAL_95, FrontMember

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from nasattn.store.records import EvaluationRecord

CERTIFIED, PROVISIONAL, DOMINATED, PLAIN, ABOVE = "#0b7a75", "#e08e0b", "#a9b0b7", "#c0392b", "#6c757d"
BEYOND, LEAST_BEYOND = 0.35, 0.12  # what is shown right of the slowest member, in parts of the width of the front, and in ratios at least
LEAST_WIDTH = 0.1  # of the latencies shown, in ratios


def front_figure(
    points: Sequence[FrontMember],
    title: str = "",
    *,
    above: Sequence[EvaluationRecord] = (),
    limit: float | None = None,
    most: int | None = None,
) -> go.Figure:
    """Accuracy against the latency ratio, with the front as a staircase.

    Members carry their 95 % intervals; certified ones are filled, provisional ones hollow, the plain host is a diamond. Dominated
    placements are grey and small; those far slower than the front are left to a double click, so that the front can be read.

    Args:
        points: All placements that a study completed (see :func:`nasattn.front.appraise`).
        title: Above the figure.
        above: Trials above a limit, which were not trained: crosses at the lower edge, where their latency is known.
        limit: A latency ratio: a dotted line.
        most: Of dominated placements only the most accurate so many.

    Returns:
        A figure of one set of axes, without a fixed width. Empty of points where nothing is completed, with a line that says so.
    """
    import plotly.graph_objects as go

    members = [p for p in points if p.on_front]
    plain = [p for p in points if p.is_plain]
    rest = sorted((p for p in points if not p.on_front and p not in plain), key=lambda p: -p.accuracy)[:most]
    figure = go.Figure(layout=_layout(title))
    if not points:
        figure.add_annotation(text="no completed trial yet", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font_size=16)
        return figure
    left, right, low, high = _window(members, plain, rest)
    untrained = [t for t in above if t.latency is not None]
    if rest:
        figure.add_trace(_trace(rest, "dominated", {"color": DOMINATED, "size": 6, "opacity": 0.8}))
    if untrained:
        figure.add_trace(
            go.Scatter(
                x=[t.latency.ratio for t in untrained if t.latency],
                y=[low] * len(untrained),
                mode="markers",
                name="above a limit, not trained",
                marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": ABOVE}},
                hovertext=[f"trial {t.trial}<br>{html.escape(t.placement)}<br>{html.escape(t.error or '')}" for t in untrained],
                hoverinfo="text",
                cliponaxis=False,
            )
        )
    figure.add_trace(_staircase(members, right))
    for tier, color, inside in (("provisional", PROVISIONAL, "white"), ("certified", CERTIFIED, CERTIFIED)):
        of_tier = [m for m in members if m.tier == tier and m not in plain]
        if of_tier:
            marker = {"color": inside, "size": 10, "line": {"width": 2, "color": color}}
            figure.add_trace(_trace(of_tier, tier, marker, color))
    for host in plain:
        figure.add_trace(_trace([host], "plain host", {"color": PLAIN, "size": 13, "symbol": "diamond"}, PLAIN))
    slower = sum(x > right for x in (*(p.latency_ratio for p in rest), *(t.latency.ratio for t in untrained if t.latency)))
    if slower:
        figure.add_annotation(
            text=f"{slower} slower {'placements' if slower > 1 else 'placement'}: double click",
            x=1, y=0, xref="paper", yref="paper", xanchor="right", yanchor="bottom", yshift=6, showarrow=False, font={"size": 11, "color": ABOVE},
        )  # fmt: skip
    if limit is not None and limit <= right:
        figure.add_vline(x=limit, line={"dash": "dot", "width": 1, "color": ABOVE}, annotation_text=f"limit {limit:g}x")
    figure.update_xaxes(range=[left, right])
    figure.update_yaxes(range=[low, high])
    return figure


def untrained(trials: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Those that were above a limit and so never trained; one of each placement."""
    return list({t.placement: t for t in trials if t.state == "PRUNED" and not t.stopped_at_rung}.values())


def hover(p: FrontMember) -> str:
    """What is shown of a placement under the pointer, in plotly's HTML."""
    found = "predicted from the table" if p.latency_method == "table" else "measured" if p.latency_exclusive else "measured, shared"
    seeds = f"{p.seeds} seeds" if p.seeds > 1 else "1 seed"
    lines = [
        f"<b>{html.escape(p.placement)}</b>",
        f"accuracy {p.accuracy:.3f} ± {p.accuracy_se:.3f} ({seeds})" + (f", {p.gain:+.3f} on plain" if p.gain is not None else ""),
        f"latency {p.latency_ratio:.3f}x ({p.latency_ratio_low:.3f} to {p.latency_ratio_high:.3f}), {p.latency_ms:.1f} ms, {found}",
        f"{p.params / 1e6:.2f} M parameters, {p.macs / 1e9:.2f} GMACs",
        f"trial {p.trial}, {p.tier}, p {p.p_member:.2f}",
    ]
    if p.held_out is not None:
        lines.insert(2, f"accuracy on test images {p.held_out:.3f}")
    return "<br>".join(lines)


def _trace(points: Sequence[FrontMember], name: str, marker: dict[str, Any], color: str | None = None) -> go.Scatter:
    """Points with their hover texts; in a *color*, with 95 % intervals of both axes too."""
    import plotly.graph_objects as go

    trace = go.Scatter(
        x=[round(p.latency_ratio, 4) for p in points],
        y=[round(p.accuracy, 4) for p in points],
        mode="markers",
        name=name,
        marker=marker,
        hovertext=[hover(p) for p in points],
        hoverinfo="text",
    )
    if color is not None:
        bars: dict[str, Any] = {"color": color, "thickness": 1, "width": 3}
        trace.error_y = {**bars, "array": [round(NORMAL_95 * p.accuracy_se, 4) for p in points]}
        trace.error_x = {
            **bars,
            "array": [round(p.latency_ratio_high - p.latency_ratio, 4) for p in points],
            "arrayminus": [round(p.latency_ratio - p.latency_ratio_low, 4) for p in points],
        }
    return trace


def _staircase(members: Sequence[FrontMember], right: float) -> go.Scatter:
    """The edge of what the members dominate, up to the right edge."""
    import plotly.graph_objects as go

    x, y = [round(m.latency_ratio, 4) for m in members], [round(m.accuracy, 4) for m in members]
    line = {"shape": "hv", "width": 1.5, "color": CERTIFIED}
    return go.Scatter(x=[*x, max(right, x[-1])], y=[*y, y[-1]], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _window(members: Sequence[FrontMember], plain: Sequence[FrontMember], rest: Sequence[FrontMember]) -> tuple[float, float, float, float]:
    """Left, right, lower and upper edge of what is shown: the front with its intervals, and the dominated ones of about its latency."""
    shown = [*members, *plain]
    first, last = min(m.latency_ratio_low for m in shown), max(m.latency_ratio_high for m in shown)
    width = max(last - first, LEAST_WIDTH)
    left, right = first - 0.05 * width, last + max(BEYOND * width, LEAST_BEYOND)
    heights = [m.accuracy + s * NORMAL_95 * m.accuracy_se for m in shown for s in (-1, 1)]
    heights += [p.accuracy for p in rest if p.latency_ratio <= right]
    pad = 0.05 * max(max(heights) - min(heights), 0.02)
    return left, right, max(min(heights) - pad, -0.02), min(max(heights) + pad, 1.02)


def _layout(title: str) -> dict[str, Any]:
    """Without a template: its defaults are a multiple of all else in size."""
    axis = {"gridcolor": "#e5e8eb", "linecolor": "#6c757d", "showline": True, "ticks": "outside", "zeroline": False, "automargin": True}
    return {
        "template": None,
        "title": {"text": html.escape(title), "font": {"size": 16}, "x": 0.02, "xanchor": "left", "yref": "container", "y": 0.97, "yanchor": "top"},
        "font": {"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#212529"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"bgcolor": "white", "align": "left", "font": {"color": "#212529"}},
        "height": 450,
        "margin": {"l": 60, "r": 20, "t": 48, "b": 90},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "xaxis": {**axis, "title": {"text": "latency, times the plain host's"}, "ticksuffix": "x"},
        "yaxis": {**axis, "title": {"text": "accuracy of the proxy"}},
    }  # fmt: skip
