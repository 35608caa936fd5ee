"""Figures for a paper: the front and the heat map of gains, as wide as a column, in the colours of the page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasattn.errors import StudyError
from nasattn.front import NORMAL_95, FrontMember
from nasattn.report.choices import family_of, is_uniform
from nasattn.report.effects import Effect
from nasattn.report.page.grids import PALE, STRONGEST, shown_tokens, signed, strongest_of
from nasattn.report.page.plots import colour_mode
from nasattn.report.palette import DOWN, UP, colours_of, family_of_placement
from nasattn.report.study_data import StudyData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.5  # inches
STYLE: dict[Any, Any] = {
    "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "legend.fontsize": 6.5,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "nasattn",
}  # fmt: skip
LIKELY = 0.2  # probability of membership from which a placement has bars
RATIOS = (1, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


def draw_figures(data: StudyData, folder: Path, kind: str) -> list[Path]:
    """Write ``front`` and, where effects are known, ``effects`` into *folder*.

    Args:
        data: The study.
        folder: That exists.
        kind: ``png`` or ``svg``.

    Returns:
        The files.

    Raises:
        StudyError: There is no placement to draw.
    """
    if not data.appraised:
        raise StudyError(
            f"study {data.record.name!r} has no completed trial with a latency, so there is nothing to draw: `nasattn report {data.record.name}` says what there is"
        )
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figures = {"front": front_figure(data)} | ({"effects": effects_figure(data)} if data.effects else {})
        files = []
        for name, figure in figures.items():
            file = folder / f"{name}.{kind}"
            figure.savefig(file, dpi=300, metadata={"Date": None} if kind == "svg" else None)
            files.append(file)
    return files


def front_figure(data: StudyData) -> Figure:
    """Accuracy over latency ratio: members with their intervals, the others small."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    mode, colours = colour_mode(data), colours_of(data.choices.all_tokens)

    def family(m: FrontMember) -> str:
        return family_of(m.placement.split(",")[mode - 1]) if mode else family_of_placement(m.placement)

    members = data.front
    axes.step([m.latency_ratio for m in members], [100 * m.accuracy for m in members], where="post", color="0.55", linewidth=0.7, linestyle=":", zorder=1)  # fmt: skip
    for m in data.appraised:
        _draw_point(axes, m, colours[family(m)])
    shown = [name for name in colours if any(family(m) == name for m in data.appraised)]
    handles = [_handle("o", name, colours[name]) for name in shown]
    handles += [_handle("*", "plain host", "0.45")] if data.plain else []
    handles += [_handle("D", "uniform", "0.45")] if any(is_uniform(m.placement) for m in data.appraised) else []
    handles += [_handle("o", "provisional", "white", edge="0.3")] if any(m.tier == "provisional" for m in members) else []
    title = f"attention in stage {mode}" if mode else "attention"
    figure.legend(handles=handles, title=title, title_fontsize=6.5, loc="outside lower center", ncols=5, frameon=False, handletextpad=0.1, columnspacing=0.9)  # fmt: skip
    ratios = [m.latency_ratio for m in data.appraised]
    if max(ratios) / min(ratios) > 1.6:
        _log_axis(axes, min(ratios), max(ratios))
    axes.set_xlabel("latency, times the plain host")
    axes.set_ylabel("accuracy of the proxy, %")
    axes.grid(True, linewidth=0.3, color="0.88")
    axes.set_axisbelow(True)
    return figure


def _draw_point(axes: Axes, m: FrontMember, colour: str) -> None:
    on, likely = m.on_front, m.on_front or m.p_member >= LIKELY
    x, y = m.latency_ratio, 100 * m.accuracy
    if likely:
        reach = [[x - m.latency_ratio_low], [m.latency_ratio_high - x]]
        axes.errorbar(x, y, xerr=reach, yerr=100 * NORMAL_95 * m.accuracy_se, fmt="none", ecolor=colour, elinewidth=0.7, alpha=1 if on else 0.35, zorder=2)  # fmt: skip
    marker, size = ("*", 70) if m.is_plain else ("D", 18) if is_uniform(m.placement) else ("o", 22)
    fill = "white" if m.tier == "provisional" and marker != "*" else colour
    axes.scatter([x], [y], s=size if on else 0.4 * size, marker=marker, facecolor=fill, edgecolor=colour, linewidth=0.9, alpha=1 if likely else 0.55, zorder=3)  # fmt: skip


def _handle(marker: str, label: str, colour: str, edge: str | None = None) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=marker, markersize=4.5, markerfacecolor=colour, markeredgecolor=edge or colour, label=label)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    least, ticks = math.log(high / low) / 8, list[float]()
    for ratio in RATIOS:
        if 0.98 * low <= ratio <= 1.02 * high and (not ticks or math.log(ratio / ticks[-1]) > least):
            ticks.append(ratio)
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.minorticks_off()


def effects_figure(data: StudyData) -> Figure:
    """Stage by attention: points of accuracy per added millisecond, below it the gain with its interval."""
    from matplotlib.figure import Figure

    tokens, stages = shown_tokens(data), len(data.choices.tokens)
    figure = Figure(figsize=(max(COLUMN, 0.75 + 0.69 * stages), 0.75 + 0.235 * len(tokens)), layout="constrained")
    axes = figure.subplots()
    found = {(e.token, e.stage): e for e in data.effects}
    strongest = strongest_of([e.per_ms for e in data.effects if e.trials])
    ground = np.ones((len(tokens), stages, 3))
    for row, token in enumerate(tokens):
        for column in range(stages):
            effect = found.get((token, column + 1))
            if effect is not None and effect.trials:
                ground[row, column] = _colour(effect, strongest)
                bold = (
                    effect.per_ms_low is not None and effect.per_ms_high is not None and (effect.per_ms_low > 0 or effect.per_ms_high < 0)
                )
                ratio = f"{signed(effect.per_ms)} /ms" if effect.per_ms is not None else "- /ms"
                axes.text(column, row - 0.17, ratio, ha="center", va="center", fontsize=5.5, fontweight="bold" if bold else "normal")
                gain = f"{effect.gain:+.1f} ± {effect.gain_high - effect.gain:.1f}"
                axes.text(column, row + 0.2, gain, ha="center", va="center", fontsize=4.6, color="0.2")
            else:
                axes.text(column, row, "not tried" if effect else "", ha="center", va="center", fontsize=4.8, color="0.55", style="italic")
    axes.imshow(ground, aspect="auto")
    axes.set_xticks(range(stages), [f"stage {n + 1}" for n in range(stages)])
    axes.set_yticks(range(len(tokens)), tokens)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(stages - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(tokens) - 1) + 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("points of accuracy per added ms; below: points, ± 95 % interval.\nPale: the interval holds zero. -: the added ms cannot be told from zero.", fontsize=5.5)  # fmt: skip
    return figure


def _colour(effect: Effect, strongest: float) -> Any:
    """On white, as the page's cells."""
    from matplotlib.colors import to_rgb

    if effect.per_ms is None or effect.per_ms_low is None or effect.per_ms_high is None:
        return np.array([0.95, 0.95, 0.95])
    sure = effect.per_ms_low > 0 or effect.per_ms_high < 0
    weight = STRONGEST * math.sqrt(min(1.0, abs(effect.per_ms) / strongest)) * (1 if sure else PALE)
    return 1 - weight * (1 - np.array(to_rgb(UP if effect.per_ms > 0 else DOWN)))
