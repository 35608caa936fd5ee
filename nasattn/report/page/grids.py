"""Stage by attention: the heat map of gains, and the table of latencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nasattn.front import NORMAL_95
from nasattn.report.added import Added
from nasattn.report.choices import NONE
from nasattn.report.effects import Effect, per_ms
from nasattn.report.page.html import Html, element, join, table, text
from nasattn.report.study_data import StudyData

STRONGEST = 0.72  # opacity of a cell's colour
PALE = 0.3  # factor on it where the interval holds zero


def gains(data: StudyData, alone: bool) -> Html:
    """The heat map: by colour and bold the accuracy gained per millisecond, below it the gain and the milliseconds.

    Args:
        data: With effects.
        alone: Of the attention alone in the plain host, else on average over the placements that the study completed.
    """
    found = {(e.stage, e.token): e for e in data.effects}
    strongest = strongest_of([_ratio(e, alone)[0] for e in data.effects if e.trials])

    def cell(stage: int, token: str) -> Html:
        effect = found.get((stage, token))
        return element("td", "not offered", class_="cell absent") if effect is None else _gain_cell(effect, alone, strongest)

    return _grid(data, shown_tokens(data), cell)


def shown_tokens(data: StudyData) -> list[str]:
    """The attentions that have a row: those that a completed trial had, in whatever stage."""
    tried = {e.token for e in data.effects if e.trials}
    return [t for t in data.choices.all_tokens if t in tried]


def _gain_cell(effect: Effect, alone: bool, strongest: float) -> Html:
    gain, high = (effect.alone, effect.alone_high) if alone else (effect.gain, effect.gain_high)
    added = effect.added
    ms = (
        element("small", f"{signed(added.ms)} ± {_plain(NORMAL_95 * added.sd)}", _unit("ms")) if added else element("small", "ms not known")
    )
    attributes = {"data-tip": _gain_tip(effect), "tabindex": "0"}
    if not effect.trials:
        return _td("cell untried", attributes, element("b", "not tried"), ms)
    ratio, ratio_low, ratio_high = _ratio(effect, alone)
    shown = element("b", f"{signed(ratio)} /ms" if ratio is not None else "- /ms")
    lines = (shown, element("small", f"{gain:+.1f} ± {high - gain:.1f}", _unit("pt")), ms)
    if ratio is None:
        return _td("cell unpriced", attributes, *lines)
    sure = (ratio_low is not None and ratio_low > 0) or (ratio_high is not None and ratio_high < 0)
    weight = STRONGEST * math.sqrt(min(1.0, abs(ratio) / strongest)) * (1 if sure else PALE)
    kind = "up" if ratio > 0 else "down"
    return _td(f"cell {kind}{'' if sure else ' unsure'}", attributes | {"style": f"--w:{weight:.2f}"}, *lines)


def _ratio(effect: Effect, alone: bool) -> tuple[float | None, float | None, float | None]:
    if not alone or effect.per_ms is None or effect.added is None:
        return effect.per_ms, effect.per_ms_low, effect.per_ms_high
    return per_ms((effect.alone, (effect.alone_high - effect.alone) / NORMAL_95), effect.added)


def _gain_tip(effect: Effect) -> str:
    tried = (
        f"{effect.trials} completed trial{'s' if effect.trials > 1 else ''} had it there"
        if effect.trials
        else "no completed trial had it there: what follows is told from its relatives alone"
    )
    ratio = (
        f"{signed(effect.per_ms)} points per added ms, 95 % from {signed(effect.per_ms_low or 0)} to {signed(effect.per_ms_high or 0)}"
        if effect.per_ms is not None
        else "what it adds to the latency cannot be told from zero, or is not known: no points per millisecond"
    )
    trained = f"; trial {effect.tried_alone} trained just that" if effect.tried_alone is not None else ""
    return "\n".join(
        (
            f"{effect.token} in stage {effect.stage}",
            tried,
            f"gain on average {effect.gain:+.1f} points, 95 % from {effect.gain_low:+.1f} to {effect.gain_high:+.1f}",
            f"alone in the plain host {effect.alone:+.1f}, from {effect.alone_low:+.1f} to {effect.alone_high:+.1f}{trained}",
            f"adds {_interval(effect.added)}" if effect.added else "latency not known",
            ratio,
        )
    )


def latencies(data: StudyData) -> Html:
    """What each attention adds to the latency in each stage, in milliseconds and parts of the plain host."""
    plain = plain_ms(data)

    def cell(stage: int, token: str) -> Html:
        added = data.added.get((stage, token))
        if added is None:
            return element("td", "not measured", class_="cell absent")
        sure = added.low > 0
        weight = STRONGEST * min(1.0, math.sqrt(max(added.ms, 0.0) / plain)) if plain else 0.0
        share = element("small", f"{100 * added.ms / plain:+.1f} %") if plain else ""
        spread = element("small", f"± {_plain(NORMAL_95 * added.sd)}")
        told = "" if added.source == "stage" else element("small", "from placements")
        attributes = {"data-tip": f"{token} in stage {stage}\nadds {_interval(added)}", "tabindex": "0", "style": f"--w:{weight:.2f}"}
        return _td(f"cell slow{'' if sure else ' unsure'}", attributes, element("b", f"{signed(added.ms)} ms"), spread, share, told)

    return _grid(data, [t for t in data.choices.all_tokens if any(key[1] == t for key in data.added)], cell, _shares(data))


def plain_ms(data: StudyData) -> float:
    """The plain host's milliseconds, 0 where they are not known."""
    if any(token == NONE for _, token in data.table.entries):
        return data.table.plain_ms
    measured = [t.latency.baseline_ms for t in data.complete if t.latency]
    return sorted(measured)[len(measured) // 2] if measured else 0.0


def _shares(data: StudyData) -> list[str]:
    return [
        f"{data.table.share(n):.0%} of plain" if (n, NONE) in data.table.entries else "" for n in range(1, len(data.choices.tokens) + 1)
    ]


def _grid(data: StudyData, tokens: Sequence[str], cell: Callable[[int, str], Html], notes: Sequence[str] = ()) -> Html:
    stages = range(1, len(data.choices.tokens) + 1)
    below = notes or [""] * len(stages)
    head = [join((f"stage {n}", element("small", note) if note else "")) for n, note in zip(stages, below, strict=True)]
    rows = ([element("th", element("code", token), scope="row"), *(cell(n, token) for n in stages)] for token in tokens)
    return table(["", *head], rows, class_="grid")


def _unit(name: str) -> Html:
    """Left out on a phone, where the text above says it."""
    return element("span", f" {name}", class_="unit")


def _td(kind: str, attributes: dict[str, str], *content: object) -> Html:
    told = "".join(f' {name}="{text(value)}"' for name, value in attributes.items())
    return Html(f'<td class="{kind}"{told}>{join(content)}</td>')


def strongest_of(ratios: Sequence[float | None]) -> float:
    """The ratio of the full colour: a high one, not the highest, which may be an outlier."""
    known = sorted(abs(r) for r in ratios if r is not None)
    return known[int(0.95 * (len(known) - 1))] or 1.0 if known else 1.0


def _interval(added: Added) -> str:
    return f"{signed(added.ms)} ms, 95 % from {signed(added.low)} to {signed(added.high)}"


def signed(value: float) -> str:
    """Three digits or so, with the sign."""
    return f"{value:+.{_decimals(value)}f}"


def _plain(value: float) -> str:
    return f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
