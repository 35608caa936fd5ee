"""What Optuna dashboard says of a study and of the members of its front, in Markdown. Below the last line of a note its reader may write."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from nasattn.front import FrontMember, appraise
from nasattn.report.markdown import code
from nasattn.report.plot_front import untrained
from nasattn.report.tables import MEMBERSHIP, count_states, honest_line, latency_mark, mark_notes
from nasattn.store.records import METHODS, EvaluationRecord, StudyRecord

BORDER = "*Written by nasattn at the end of each run. What you write below this line stays.*"


def merged(old: str, new: str) -> str:
    """A note that is written again: *new* in place of what stood above the border; what a reader wrote is kept below it."""
    _, border, below = old.partition(BORDER)
    kept = (below if border else old).strip()
    return f"{new.strip()}\n\n---\n\n{BORDER}\n" + (f"\n{kept}\n" if kept else "")


def study_note(study: StudyRecord, trials: Sequence[EvaluationRecord], ended: str, storage: str) -> str:
    """Of a study: its front as a table, what it was asked for, and what to do next.

    Args:
        study: As it was begun.
        trials: All of them.
        ended: Why the last run ended.
        storage: `` --storage URL`` for the commands, or nothing where they need none.
    """
    points = appraise(trials)
    members = [p for p in points if p.on_front]
    config = study.config
    facts = f"Host {code(config['space']['host'])}, task {code(config['task'])}, space {code(config['space_name'])}, seed {study.seed}"
    plain = next((p for p in points if p.is_plain), None)
    if plain is not None:
        facts += f". The plain host: {plain.latency_ms:.1f} ms, accuracy {plain.accuracy:.3f}"
    lines = [f"# Front of {code(study.name)}", "", f"{facts}.", "", f"{count_states(trials)}. {ended[:1].upper()}{ended[1:]}.", ""]
    lines += front_rows(members) if members else ["No trial has completed yet."]
    lines += _limits(trials)
    if honest := honest_line(points):
        lines += ["", honest]
    if members:
        name = shlex.quote(study.name)
        commands = [f"nasattn export {name} --best --out model{storage}", f"nasattn export {name} --max-latency 1.2x --out model{storage}"]
        lines += ["", "```bash", *commands, f"nasattn report {name}{storage}", "```"]
    return "\n".join(lines)


def front_rows(members: Sequence[FrontMember]) -> list[str]:
    """A table of Markdown, fastest first, and what its columns mean."""
    rows = [
        f"| {m.trial} | {code(m.placement)} | {m.accuracy:.3f} ± {_spread(m):.3f} | {_latency(m)} | {m.params / 1e6:.2f} M | {m.tier} | {m.p_member:.2f} |"
        for m in members
    ]
    notes = [MEMBERSHIP, *mark_notes(members)]
    return [
        "| trial | placement | accuracy | latency (95 %) | params | tier | p |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        *(f"{note.replace('*', chr(92) + '*').replace('~', chr(92) + '~')}\n" for note in notes),
    ]


def member_note(study: StudyRecord, member: FrontMember, trials: Sequence[EvaluationRecord], storage: str) -> str:
    """Of a member of the front: what is known of it, which trainings that rests on, and how to export it."""
    gain = f", {member.gain:+.3f} on the plain host" if member.gain is not None else ""
    lines = [
        f"## On the front, {member.tier}",
        "",
        "| | |",
        "|---|---|",
        f"| placement | {code(member.placement)} |",
        f"| accuracy | {member.accuracy:.3f} ± {_spread(member):.3f}, {_seeds(member)}{gain} |",
        *([f"| accuracy on test images | {member.held_out:.3f} |"] if member.held_out is not None else []),
        f"| latency | {member.latency_ms:.1f} ms, {_latency(member)}, {_found(member)} |",
        f"| parameters | {member.params / 1e6:.3f} M |",
        f"| multiply-accumulates | {member.macs / 1e9:.3f} G |",
        f"| probability of membership | {member.p_member:.2f} |",
        f"| trainings | {_trainings(member, trials)} |",
        "",
        "```bash",
        f"nasattn export {shlex.quote(study.name)} --trial {member.trial} --out model-{member.trial}{storage}",
        "```",
    ]
    return "\n".join(lines)


def former_note(placement: str) -> str:
    """Of a trial that was on the front when the study was looked at last."""
    return f"No longer on the front: {code(placement)} is dominated by what was found since."


def _limits(trials: Sequence[EvaluationRecord]) -> list[str]:
    """A line for each limit: how many placements are above it and were not trained."""
    limits = {name: str(c["limit"]) for t in trials for name, c in (t.constraints or {}).items()}
    above = {name: sum((t.constraints or {}).get(name, {}).get("excess", 0) > 0 for t in untrained(trials)) for name in limits}
    told = {name: f"{n} placements above it were" if n != 1 else "1 placement above it was" for name, n in above.items()}
    rows = [f"- --{name.replace('_', '-')} {limit}: {told[name]} not trained" for name, limit in limits.items()]
    return ["", "Limits:", "", *rows] if rows else []


def _trainings(member: FrontMember, trials: Sequence[EvaluationRecord]) -> str:
    of_placement = [t for t in trials if t.placement == member.placement and t.state == "COMPLETE" and t.accuracy is not None]
    return "; ".join(f"trial {t.trial}, seed {t.seed}: {t.accuracy:.3f}" for t in of_placement)


def _spread(member: FrontMember) -> float:
    return member.accuracy_sd if member.accuracy_sd is not None else member.accuracy_se


def _seeds(member: FrontMember) -> str:
    return f"{member.seeds} seeds" if member.seeds > 1 else "1 seed"


def _latency(member: FrontMember) -> str:
    mark = latency_mark(member).replace("*", "\\*").replace("~", "\\~")
    return f"{member.latency_ratio:.3f}x ({member.latency_ratio_low:.3f} to {member.latency_ratio_high:.3f}){mark}"


def _found(member: FrontMember) -> str:
    measured = member.latency_method == "pair"
    return METHODS[member.latency_method] + (" while something else used the device" if measured and not member.latency_exclusive else "")
