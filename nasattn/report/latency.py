"""What each attention costs in each stage: as a table for the terminal, as plain data, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from nasattn.errors import UsageError

if TYPE_CHECKING:
    from nasattn.search.latencies import SpaceLatencies

PICTURES = (".png", ".svg", ".pdf")


def latency_summary(found: SpaceLatencies) -> dict[str, Any]:
    """The table as plain data: per stage its share, and per attention what it adds in milliseconds and per cent of the plain host."""
    return {
        "space": found.space.name,
        "host": found.space.host,
        "device": found.key,
        "plain_ms": found.table.plain_ms,
        "stages": [
            {"stage": n, "share": found.table.share(n), "attentions": [_cell(found, n, str(a)) for a in offered if a.form != "none"]}
            for n, offered in enumerate(found.space.tokens, start=1)
        ],
        "error": asdict(found.error) if found.error else None,
    }


def _cell(found: SpaceLatencies, stage: int, token: str) -> dict[str, Any]:
    if (stage, token) in found.failures:
        return {"attention": token, "failure": found.failures[stage, token]}
    entry, added = found.table.entries[stage, token], found.table.added(stage, token)
    return {
        "attention": token,
        "added_ms": added * found.table.plain_ms,
        "added_percent": 100 * added,
        "plus_minus_percent": 100 * found.table.share(stage) * (entry.ratio_high - entry.ratio_low) / 2,
        "stage_ratio": entry.ratio,
        "stage_ratio_low": entry.ratio_low,
        "stage_ratio_high": entry.ratio_high,
        "exclusive": getattr(entry, "exclusive", None),
    }


def latency_table(found: SpaceLatencies, width: int = 140) -> Table:
    """A row an attention, a column a stage: milliseconds and per cent of the plain host that it adds.

    Args:
        found: What was measured.
        width: Columns of the terminal; where they do not suffice, the milliseconds are left out.
    """
    stages = range(1, len(found.space.tokens) + 1)
    tokens = _tokens(found)
    brief = width < 4 + max(map(len, [*tokens, FIRST_COLUMN])) + 26 * len(stages)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", caption_justify="left")
    table.title = Text(f"{found.space.host}, plain: {found.table.plain_ms:.1f} ms\n{found.key}")
    table.add_column(FIRST_COLUMN, no_wrap=True)
    for n in stages:
        table.add_column(
            f"{n} ({found.table.share(n):.0%})" if brief else f"stage {n} ({found.table.share(n):.0%})", justify="right", no_wrap=True
        )
    rows = [[_show(found, n, token, brief) for n in stages] for token in tokens]
    for token, cells in zip(tokens, rows, strict=True):
        table.add_row(Text(token), *map(Text, cells))
    unit = "%" if brief else "ms, and %"
    notes = [f"{unit} of the plain host with the half-width of its 95 % interval; in brackets each stage's share of the plain host"]
    if any(cell.endswith("*") for cells in rows for cell in cells):
        notes.append("* something else used the device meanwhile (shared): measured again by the same command")
    notes += [f"stage {n}, {token}: {why}" for (n, token), why in found.failures.items()]
    notes.append(
        f"error of a prediction: {found.error}" if found.error else "error of a prediction: not known, no placement measured end to end"
    )
    table.caption = Text("\n".join(notes))
    return table


FIRST_COLUMN = "adds to the plain host"


def _tokens(found: SpaceLatencies) -> list[str]:
    """Of all stages, in their order."""
    return list(dict.fromkeys(str(a) for offered in found.space.tokens for a in offered if a.form != "none"))


def _show(found: SpaceLatencies, stage: int, token: str, brief: bool) -> str:
    if token not in map(str, found.space.tokens[stage - 1]):
        return ""
    cell = _cell(found, stage, token)
    if "failure" in cell:
        return "cannot run"
    shared = "" if cell["exclusive"] else "*"
    ms = "" if brief else f"{cell['added_ms']:+.2f} ms "
    return f"{ms}{cell['added_percent']:+6.1f}±{cell['plus_minus_percent']:.1f}{'' if brief else ' %'}{shared}"


def describe_measurement(figures: dict[str, Any]) -> dict[str, Any]:
    """What :func:`nasattn.api.measure_latency` found, in words: names and values for the terminal."""

    def ms(prefix: str) -> str:
        tail = f" (90 % within {figures[f'{prefix}ms_p90']:.2f})" if figures[f"{prefix}ms_p90"] is not None else ""
        on_gpu = f", {figures[f'{prefix}device_ms']:.2f} ms by the GPU's clock" if figures[f"{prefix}device_ms"] is not None else ""
        return f"{figures[f'{prefix}ms']:.2f} ms{tail}{on_gpu}"

    settled = "" if figures["settled"] else "; the interval did not become as narrow as it should in the time"
    return {
        "host": figures["host"],
        "placement": figures["placement"],
        "device": figures["device"],
        "latency": ms(""),
        "plain": ms("baseline_"),
        "ratio": f"{figures['ratio']:.4f}x, 95 % interval {figures['ratio_low']:.4f} to {figures['ratio_high']:.4f}, {figures['pairs']} rounds{settled}",
        "equal models": f"differ by {math.expm1(figures['calibration']):+.2%} in this run",
        "shared": figures["contention"],
    }


def check_picture(path: Path) -> None:
    """Raises UsageError for a file that is no picture, or a folder that is not there."""
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {path}: unknown kind of picture {path.suffix!r}; allowed: {', '.join(PICTURES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: no folder {path.absolute().parent}; make it first")


def plot_latencies(all_found: Sequence[SpaceLatencies], path: Path) -> None:
    """Draw what each attention adds in each stage, a panel a device key: colour and number are per cent, beside them milliseconds.

    Raises:
        UsageError: *path* is no picture's name (see :func:`check_picture`).
    """
    check_picture(path)
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = max(len(_tokens(found)) for found in all_found)
    if rows == 0:
        raise UsageError(f"--plot {path}: nothing to draw: the space offers no attention besides none")
    figure = Figure(figsize=(1.2 + sum(1.2 + 1.25 * len(f.space.tokens) for f in all_found), 1.9 + 0.34 * rows), layout="constrained")
    panels = figure.subplots(1, len(all_found), squeeze=False)[0]
    percents = [c["added_percent"] for f in all_found for s in latency_summary(f)["stages"] for c in s["attentions"] if "failure" not in c]
    norm = LogNorm(0.5, max([2.0, *percents]))
    for panel, found in zip(panels, all_found, strict=True):
        tokens, stages = _tokens(found), range(1, len(found.space.tokens) + 1)
        cells = {
            (row, n - 1): _cell(found, n, token)
            for row, token in enumerate(tokens)
            for n in stages
            if token in map(str, found.space.tokens[n - 1])
        }
        percent = [[cells.get((row, n), {}).get("added_percent", math.nan) for n in range(len(stages))] for row in range(len(tokens))]
        image = panel.imshow([[max(p, 0.5) for p in row] for row in percent], cmap="YlOrRd", norm=norm, aspect="auto")
        for (row, column), cell in cells.items():
            failed = "failure" in cell
            text = "cannot run" if failed else f"{cell['added_percent']:+.1f} %\n{cell['added_ms']:+.2f} ms"
            dark = not failed and norm(max(cell["added_percent"], 0.5)) > 0.65
            panel.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black", linespacing=0.95)
        panel.set_xticks(range(len(stages)), [f"stage {n}\n{found.table.share(n):.0%} of plain" for n in stages], fontsize=8)
        panel.set_yticks(range(len(tokens)), tokens, fontsize=8)
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        parts = found.key.split(" | ")
        panel.set_title(
            f"{found.space.host}, plain {found.table.plain_ms:.1f} ms\n{parts[0]}\n{' | '.join(parts[1:])}", fontsize=8, loc="left"
        )
        if found.error:
            panel.set_xlabel(f"prediction error: median {found.error.median:.1%}, worst {found.error.worst:.1%}", fontsize=7, loc="left")
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(labelsize=8)
    bar.set_label("added latency, % of the plain host", fontsize=8)
    figure.savefig(path, dpi=150)
