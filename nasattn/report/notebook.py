"""Studies, fronts and their members as a notebook shows them. Whatever comes from a database is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nasattn.front import FrontMember, appraise
from nasattn.report.tables import MEMBERSHIP, count_states, honest_line, latency_mark, mark_notes

if TYPE_CHECKING:
    from nasattn.store.records import EvaluationRecord, StudyRecord

CELL = "text-align:left;padding:2px 12px 2px 0;white-space:nowrap"
COLUMNS = ("trial", "placement", "accuracy", "latency (95 % interval)", "ms", "params", "GMACs", "p", "tier", "gain")
DEAD = "opacity:.65"


def front_html(members: Sequence[FrontMember], heading: str = "") -> str:
    """A table, fastest first."""
    if not members:
        return f"{heading}<p>No completed trial yet.</p>"
    head = "".join(f'<th style="{CELL}">{name}</th>' for name in COLUMNS)
    rows = "".join("<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in _cells(m)) + "</tr>" for m in members)
    notes = [MEMBERSHIP, "gain: accuracy above the plain host's, trained in the same way", *mark_notes(members)]
    return f'{heading}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><div style="{DEAD}">{"<br>".join(map(html.escape, notes))}</div>'


def member_html(member: FrontMember) -> str:
    """A table of one member, a line a figure."""
    names = ("trial", "placement", "accuracy", "latency (95 % interval)", "latency, ms", "params", "GMACs", "p", "tier", "gain on plain")
    pairs = dict(zip(names, _cells(member), strict=True))
    pairs["seeds"] = str(member.seeds)
    if member.held_out is not None:
        pairs["accuracy on test images"] = f"{member.held_out:.3f}"
    rows = "".join(f'<tr><th style="{CELL}">{name}</th><td style="{CELL}">{value}</td></tr>' for name, value in pairs.items() if value)
    return f"<table><tbody>{rows}</tbody></table>"


def study_html(record: StudyRecord, storage: str, trials: Sequence[EvaluationRecord]) -> str:
    """What a study is, how far it has come, and its front."""
    config = record.config
    device = config.get("deployment", {}).get("device", config["device"])
    placements = appraise(trials)
    facts = (
        f"<code>{html.escape(str(config['space']['host']))}</code> on <code>{html.escape(str(config['task']))}</code>, "
        f"space {html.escape(str(config['space_name']))}, latency on {html.escape(str(device))}, seed {record.seed}; "
        f"{count_states(trials)}; in {html.escape(storage)}"
    )
    heading = f"<h4>{html.escape(record.name)}</h4><p>{facts}</p>"
    honest = honest_line(placements)
    front = front_html([p for p in placements if p.on_front], heading)
    return front + (f'<div style="{DEAD}">{html.escape(honest)}</div>' if honest else "")


def _cells(m: FrontMember) -> list[str]:
    spread = m.accuracy_sd if m.accuracy_sd is not None else m.accuracy_se
    tier = f"<b>{m.tier}</b>" if m.tier == "certified" else html.escape(m.tier)
    return [
        str(m.trial),
        f"<code>{html.escape(m.placement)}</code>",
        f"{m.accuracy:.3f} ± {spread:.3f}",
        f"{m.latency_ratio:.3f}x ({m.latency_ratio_low:.3f}-{m.latency_ratio_high:.3f}){latency_mark(m)}",
        f"{m.latency_ms:.1f}",
        f"{m.params / 1e6:.2f}M",
        f"{m.macs / 1e9:.3f}",
        f"{m.p_member:.2f}",
        tier,
        f"{m.gain:+.3f}" if m.gain is not None else "",
    ]
