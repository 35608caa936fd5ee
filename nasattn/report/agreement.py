"""How far the proxy can be trusted: as a table with a verdict for the terminal, as plain data, and as a picture."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from nasattn.report.latency import check_picture

if TYPE_CHECKING:
    from nasattn.proxy.agreement import Agreement, Estimate, PredictorAgreement
    from nasattn.search.tune_proxy import Tuned

CEILING = "seed to seed"
WIDE = 125  # columns from which every correlation has its interval
CHANCE = "chance"


def agreement_summary(found: Agreement) -> dict[str, Any]:
    """Everything as plain data for JSON, with the verdict."""
    return {"better": found.better, "verdict": verdict(found), "context": context(found), **found.to_dict()}


def verdict(found: Agreement) -> str:
    """In one sentence or a few, whether the proxy ranks better than what is merely counted."""
    tau, others = found.proxy.tau, {o.name: o for o in found.others}
    if tau.value is None:
        return "The proxy ranks nothing: its accuracies, or those of the long runs, are all equal."
    mine = f"tau {_interval(tau)}"
    rivals = [others[name] for name in found.no_better_than if name != CHANCE]
    told = []
    if rivals:
        named = [f"{r.name} (tau {_number(r.tau.value)}, difference {_interval(r.margin)})" for r in rivals]
        told.append(f"The proxy, {mine}, is no better than {_listed(named)}.")
    if CHANCE in found.no_better_than:
        told.append(f"The proxy{'' if rivals else f', {mine},'} is no better than chance: the interval of its tau does not lie above 0.")
    if found.better:
        ranking = [o.name for o in found.others if o.tau.value is not None]
        told.append(f"The proxy, {mine}, ranks better than {_listed(ranking or [CHANCE])}.")
    for name in found.stronger_reversed:
        told.append(f"Taken the other way, {name} would rank better than the proxy: less of it goes with more accuracy.")
    return " ".join(told)


def context(found: Agreement) -> str:
    """What the verdict has to be read with: how far long runs agree with each other, and the pairs that they settle."""
    told = []
    if found.ceiling.value is not None:
        told.append(f"One long run agrees with another by a tau of {_interval(found.ceiling)}.")
    if found.proxy.settled.value is not None:
        told.append(
            f"Of the {found.settled_pairs} pairs that the long runs settle, the proxy orders {found.proxy.settled.value:.0%} rightly."
        )
    return " ".join(told)


def agreement_table(found: Agreement, width: int = 80) -> Table:
    """A row a predictor, the proxy first, then one long run against another, which no proxy can be expected to exceed by far.

    Args:
        found: What was compared.
        width: Columns of the terminal; below 125 only tau has its interval, and rho is left out.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", caption_justify="left")
    runs = f"{found.seeds} long runs each" if found.seeds > 1 else "one long run each"
    table.title = Text(f"rankings of {len(found.points)} placements against {runs}")
    ends = width >= WIDE
    for name in ("", "tau", *(("rho",) if ends else ()), "top half", "given\nlatency", "pairs\nright", "regret", "front\nkept"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_row(*_row(found.proxy, ends), style="bold")
    table.add_row(Text(CEILING), _interval(found.ceiling))
    for other in found.others:
        table.add_row(*_row(other, ends))
    spearman = "; rho: Spearman's" if ends else ""
    pairs = len(found.points) * (len(found.points) - 1) // 2
    notes = [
        f"tau: Kendall's tau-b with the mean of the long runs, where more is better, and its 95 % interval{spearman}",
        "top half: tau within the more accurate half; given latency: partial Spearman correlation",
        f"{CEILING}: one long run against another, as far as a single one can be trusted",
        f"pairs right: of the {found.settled_pairs} pairs (of {pairs}) in which every long run of one is above every one of the other",
        "regret: points of accuracy that the first choice gives away",
        "front kept: hypervolume of the front chosen, in brackets how many placements that takes; "
        f"counted above accuracy {found.reference[0]:.3f} and below latency {found.reference[1]:.2f}x",
    ]
    if found.dropped:
        notes.append(f"left out: {found.dropped} without a long run that finished, a proxy accuracy or a latency")
    table.caption = Text("\n".join(notes))
    return table


def _row(of: PredictorAgreement, ends: bool) -> list[Text | str]:
    show = _interval if ends else lambda estimate: _number(estimate.value)
    kept = "-" if of.hypervolume is None else f"{of.hypervolume:.0%} ({of.chosen})"
    settled = "-" if of.settled.value is None else f"{of.settled.value:.0%}"
    regret = "-" if of.regret is None else f"{100 * of.regret:.1f}"
    rho = (show(of.spearman),) if ends else ()
    return [Text(of.name), _interval(of.tau), *rho, show(of.top_half), show(of.partial), settled, regret, kept]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} ({_number(estimate.low)}, {_number(estimate.high)})"


def _number(value: float | None) -> str:
    """Two decimals, ``-`` for None; never a negative zero."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plot_agreement(found: Agreement, path: Path) -> None:
    """Draw each placement's long runs over its proxy accuracy, and each predictor's tau with its interval.

    Raises:
        UsageError: *path* is no picture's name (see :func:`nasattn.report.latency.check_picture`).
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    bars = [(found.proxy.name, found.proxy.tau), (CEILING, found.ceiling), *((o.name, o.tau) for o in found.others)]
    figure = Figure(figsize=(9.5, max(4.2, 1.8 + 0.38 * len(bars))), layout="constrained")
    scatter, taus = figure.subplots(1, 2, width_ratios=(1.25, 1))

    x, y = [100 * p.proxy for p in found.points], [100 * p.long_run for p in found.points]
    runs = [[100 * v for v in p.long_runs if v is not None] for p in found.points]
    reach = [[mean - min(r) for mean, r in zip(y, runs, strict=True)], [max(r) - mean for mean, r in zip(y, runs, strict=True)]]
    scatter.errorbar(x, y, yerr=reach, fmt="none", ecolor="0.6", elinewidth=1, capsize=2, zorder=1)
    dots = scatter.scatter(
        x, y, c=[p.latency_ratio for p in found.points], cmap="viridis_r", s=36, edgecolor="0.2", linewidth=0.5, zorder=2
    )
    scatter.set_xlabel("proxy accuracy, %", fontsize=9)
    spread = f"mean and range of {found.seeds} seeds" if found.seeds > 1 else "one seed"
    scatter.set_ylabel(f"accuracy after long training, % ({spread})", fontsize=9)
    scatter.set_title(f"{len(found.points)} placements", fontsize=9, loc="left")
    bar = figure.colorbar(dots, ax=scatter, shrink=0.7, location="right")
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    bar.ax.yaxis.set_major_formatter("{x:g}x")
    bar.set_label("latency ratio", fontsize=8)
    bar.ax.tick_params(labelsize=8)

    for row, (name, tau) in enumerate(bars):
        if tau.value is None:
            taus.text(0.02, row, "ranks nothing", va="center", fontsize=8, color="0.4")
            continue
        colour = {found.proxy.name: "tab:blue", CEILING: "tab:green"}.get(name, "0.7")
        taus.barh(row, tau.value, height=0.62, color=colour)
        if tau.low is not None and tau.high is not None:
            taus.errorbar(tau.value, row, xerr=[[tau.value - tau.low], [tau.high - tau.value]], fmt="none", ecolor="black", elinewidth=1, capsize=3)  # fmt: skip
    taus.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
    taus.invert_yaxis()
    taus.axvline(0, color="0.3", linewidth=0.8)
    lows = [tau.low for _, tau in bars if tau.low is not None] + [tau.value for _, tau in bars if tau.value is not None]
    taus.set_xlim(min(-0.1, *(low - 0.05 for low in [0.0, *lows])), 1)
    taus.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    taus.set_xlabel("Kendall's tau with the long training, 95 % interval", fontsize=9)
    for panel in (scatter, taus):
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    taus.tick_params(axis="y", labelsize=9, length=0)
    figure.savefig(path, dpi=150)


def tuned_summary(found: Tuned) -> dict[str, Any]:
    """What `tune-proxy` tried, as plain data for JSON."""
    return {
        "study": found.study,
        "limit": found.limit,
        "best": found.best.study if found.best else None,
        "gain": asdict(found.gain) if found.gain else None,
        "verdict": tuned_verdict(found),
        "candidates": [
            {
                "study": c.study,
                "fidelity": c.fidelity.to_dict(),
                "seconds": c.seconds if math.isfinite(c.seconds) else None,
                "within": c.within,
                "trained": c.trained,
                "given_up": c.given_up,
                "tau": asdict(c.agreement.proxy.tau) if c.agreement else None,
            }
            for c in found.candidates
        ],
    }


def tuned_table(found: Tuned) -> Table:
    """A row a fidelity, as tried; the best is bold."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", caption_justify="left")
    table.title = Text(f"fidelities for {found.study}, at most {found.limit:g} s a training")
    for name in ("width", "blocks", "pixels", "images", "epochs", "seconds", "tau"):
        table.add_column(name, justify="right")
    for c in found.candidates:
        f = c.fidelity
        shown = _interval(c.agreement.proxy.tau) if c.agreement else "-"
        shown += " (half)" if c.given_up else ""
        seconds = f"{c.seconds:.1f}{'' if c.within else ' (too slow)'}"
        row = (f"{f.width:g}", str(f.blocks), str(f.resolution), str(f.samples or "all"), str(f.epochs), seconds, shown)
        table.add_row(*row, style="bold" if c is found.best else None)
    notes = ["the first is the study's own; the best of several estimates is a little too high, most of all where their intervals overlap"]
    if any(c.given_up for c in found.candidates):
        notes.append("half: given up after half of the placements, too slow or beyond chance worse than the best before it")
    table.caption = Text("\n".join(notes))
    return table


def tuned_verdict(found: Tuned) -> str:
    """In a sentence, whether the best of what was tried ranks better than the study's own fidelity."""
    if found.best is found.candidates[0]:
        return "None of the others ranks more like the long runs than the study's own fidelity."
    gain, side = found.gain, "above"
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return "Whether it ranks better than the study's own fidelity cannot be told."
    low = gain.low
    if gain.value < 0:  # the own one is too slow
        low, side = -gain.high, "below"
        gain = replace(gain, value=-gain.value, low=low, high=-gain.low)
    told = f"Its tau is {side} that of the study's own fidelity by {_interval(gain)}"
    if low > 0:
        return f"{told}."
    return f"{told}: that may be chance. A report on more placements tells (`nasattn proxy-report {found.study} --placements N`)."
