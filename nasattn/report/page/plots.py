"""What the page's script draws, as plain data. Texts that it shows are escaped: Plotly reads some tags in them."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from nasattn.front import NORMAL_95, FrontMember
from nasattn.report.choices import NONE, family_of, is_uniform
from nasattn.report.compute import Growth
from nasattn.report.palette import colours_of, family_of_placement
from nasattn.report.study_data import StudyData
from nasattn.store.records import METHODS

NAMES = {
    "study": "this study",
    "studies": "studies that chose at random",
    "predicted": "random choice, predicted",
}
FEW_MIXED = 0.34  # share of placements with several attentions above which colours tell one stage's attention


def plots(data: StudyData) -> dict[str, Any]:
    """By the name of its place on the page what each plot shows; a plot without data is left out."""
    made = {
        "front": _front(data),
        "growth": [_growth(g) for g in data.growths],
        "parallel": _parallel(data),
        "importance": _importance(data),
        "proxy": _proxy(data),
    }
    return {"colours": _escaped(colours_of(data.choices.all_tokens)), **{k: v for k, v in made.items() if v}}


def _front(data: StudyData) -> dict[str, Any] | None:
    if not data.appraised:
        return None
    stages = len(data.choices.tokens)
    return {
        "points": [_point(m) for m in data.appraised],
        "stages": stages,
        "mode": colour_mode(data),
    }


def colour_mode(data: StudyData) -> int:
    """What colours tell at first: 0: the attention of the whole placement; a stage's number: that stage's, where most placements mix several."""
    mixed = sum(family_of_placement(m.placement) == "several" for m in data.appraised)
    decisive = data.importances.get("accuracy")
    if not decisive or mixed <= FEW_MIXED * len(data.appraised):
        return 0
    return 1 + max(range(len(decisive)), key=lambda i: decisive[i])


def _point(m: FrontMember) -> dict[str, Any]:
    return {
        "a": _round(100 * m.accuracy),
        "e": _round(100 * NORMAL_95 * m.accuracy_se),
        "x": _round(m.latency_ratio),
        "l": _round(m.latency_ratio_low),
        "h": _round(m.latency_ratio_high),
        "p": _round(m.p_member),
        "t": {"certified": 2, "provisional": 1, "dominated": 0}[m.tier],
        "w": escape(family_of_placement(m.placement)),
        "f": [escape(family_of(t)) for t in m.placement.split(",")],
        "k": 2 if m.is_plain else 1 if is_uniform(m.placement) else 0,
        "tip": tip(m),
    }


def tip(m: FrontMember) -> str:
    """What hovering over a placement shows, escaped."""
    seeds = f"{m.seeds} seeds" if m.seeds > 1 else "1 seed"
    found = METHODS[m.latency_method]
    shared = "" if m.latency_exclusive else ", device shared"
    lines = [
        f"<b>{escape(m.placement)}</b>",
        f"accuracy {100 * m.accuracy:.1f} % ± {100 * NORMAL_95 * m.accuracy_se:.1f} ({seeds})",
        f"latency {m.latency_ratio:.3f}x ({m.latency_ratio_low:.3f} to {m.latency_ratio_high:.3f}), {m.latency_ms:.2f} ms",
        f"{found}{shared}",
        f"{m.tier}, beaten by none with probability {m.p_member:.2f}",
        f"{m.params / 1e6:.2f} M parameters, {m.macs / 1e9:.2f} G multiply-accumulates",
        *([f"{100 * m.gain:+.1f} points against the plain host"] if m.gain is not None else []),
        f"trial {m.trial}",
    ]
    return "<br>".join(lines)


def _growth(of: Growth) -> dict[str, Any]:
    return {
        "name": NAMES[of.source],
        "source": of.source,
        "x": [_round(s / 60) for s in of.seconds],
        "y": list(map(_round, of.volume)),
        **({} if of.source == "study" else {"low": list(map(_round, of.low)), "high": list(map(_round, of.high))}),
    }


def _parallel(data: StudyData) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = []
    for m in data.appraised:
        point = data.choices.point(m.placement)
        if point is not None:
            rows.append({"i": list(point), "x": _round(m.latency_ratio), "a": _round(100 * m.accuracy), "tip": tip(m)})
    if len(rows) < 2:
        return None
    used = [sorted({row["i"][s] for row in rows}) for s in range(len(data.choices.tokens))]
    for row in rows:
        row["i"] = [used[s].index(i) for s, i in enumerate(row["i"])]
    return {"tokens": [[escape(data.choices.tokens[s][i]) for i in of_stage] for s, of_stage in enumerate(used)], "rows": rows}


def _importance(data: StudyData) -> dict[str, Any]:
    names = {"stages": [f"stage {n + 1}" for n in range(len(data.choices.tokens))]}
    return {**names, **data.importances} if data.importances else {}


def _proxy(data: StudyData) -> dict[str, Any] | None:
    if data.agreement is None:
        return None
    found, longer = data.agreement
    points = [
        {
            "x": _round(100 * p.proxy),
            "y": _round(100 * p.long_run),
            "low": _round(100 * min(v for v in p.long_runs if v is not None)),
            "high": _round(100 * max(v for v in p.long_runs if v is not None)),
            "w": escape(family_of_placement(p.placement)),
            "tip": f"<b>{escape(p.placement)}</b><br>proxy {100 * p.proxy:.1f} %, trained {longer} times longer {100 * p.long_run:.1f} %<br>latency {p.latency_ratio:.3f}x",
        }
        for p in found.points
    ]
    return {"points": points, "longer": longer}


def _escaped(colours: dict[str, str]) -> dict[str, str]:
    return {escape(name): colour for name, colour in colours.items() if name != ""} | {NONE: colours[NONE]}


def _round(value: float) -> float | None:
    """Five significant digits; None for what is not finite, which JSON has no word for."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
