"""Tables for the terminal, and the same content as plain data for JSON."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from nasattn.errors import one_line
from nasattn.front import FrontMember, claimed_and_honest
from nasattn.store.records import METHODS

if TYPE_CHECKING:
    from nasattn.hosts import Host
    from nasattn.space import SearchSpace
    from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord


def front_table(members: Sequence[FrontMember], title: str, width: int = 120) -> Table:
    """A front, fastest first; where *width* is below 130 columns, without the gain; below 120, without milliseconds, parameters and tier; below 80, with folded columns."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    columns = ["trial", "placement", "accuracy", "latency (95 % interval)", "p", "ms", "params", "tier", "gain"]
    for column in columns[: 9 if width >= 130 else 8 if width >= 120 else 5]:
        justify: Literal["left", "right"] = "left" if column in ("placement", "tier") else "right"
        table.add_column(column, justify=justify, no_wrap=column != "placement" and width >= 80, overflow="fold")
    for m in members:
        spread = m.accuracy_sd if m.accuracy_sd is not None else m.accuracy_se
        row = (
            str(m.trial),
            m.placement,
            f"{m.accuracy:.3f} ± {spread:.3f}",
            f"{m.latency_ratio:.3f}x ({m.latency_ratio_low:.3f}-{m.latency_ratio_high:.3f}){latency_mark(m)}",
            f"{m.p_member:.2f}",
            f"{m.latency_ms:.1f}",
            f"{m.params / 1e6:.2f}M",
            m.tier,
            f"{m.gain:+.3f}" if m.gain is not None else "",
        )
        table.add_row(*row[: len(table.columns)])
    notes = [MEMBERSHIP]
    if width >= 130 and any(m.gain is not None for m in members):
        notes.append("gain: accuracy above the plain host's, trained in the same way")
    notes += mark_notes(members)
    table.caption = "\n".join(notes) if members else "no completed trial"
    return table


def honest_line(appraised: Sequence[FrontMember]) -> str:
    """What the front claims beside what test images leave of it; empty where no member was scored on them."""
    found = claimed_and_honest(appraised)
    if found is None:
        return ""
    members = [m for m in appraised if m.on_front]
    tested = sum(m.held_out is not None for m in members)
    return (
        f"Hypervolume of the {tested} of {len(members)} members that were trained again: {found[0]:.3f} by validation images, "
        f"{found[1]:.3f} by test images that no search saw"
    )


MEMBERSHIP = "p: probability that no other placement of the study beats it, given the errors of accuracy and latency"
MARKS = {"~": METHODS["table"], "*": "something else used the device during the measurement (shared)"}


def latency_mark(member: FrontMember) -> str:
    """How the latency was found, where it was not measured end to end with the device to itself."""
    return ("~" if member.latency_method == "table" else "") + ("" if member.latency_exclusive else "*")


def mark_notes(members: Sequence[FrontMember]) -> list[str]:
    """What the marks of these members' latencies mean, a line each."""
    marks = {latency_mark(m) for m in members}
    return [f"{mark} {MARKS[mark]}" for mark in MARKS if any(mark in each for each in marks)]


def front_csv(members: Sequence[FrontMember]) -> str:
    """A front as CSV with the fields of the JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(FrontMember)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(m.to_dict() for m in members)
    return text.getvalue()


def study_summaries(store: Store) -> list[dict[str, Any]]:
    """One mapping a study."""
    return [_study_summary(study, store.evaluations(study.name)) for study in store.studies()]


def _study_summary(study: StudyRecord, trials: Sequence[EvaluationRecord]) -> dict[str, Any]:
    accuracies = [t.accuracy for t in trials if t.state == "COMPLETE" and t.accuracy is not None]
    return {
        "study": study.name,
        "space": study.config.get("space_name"),
        "task": study.config.get("task"),
        "trials": len(trials),
        "complete": len(accuracies),
        "failed": sum(t.state == "FAIL" for t in trials),
        "best_accuracy": max(accuracies, default=None),
        "seed": study.seed,
        "begun": study.created_at.isoformat(timespec="seconds") if study.created_at else None,
    }


def count_states(trials: Sequence[EvaluationRecord]) -> str:
    """``24 trials: 20 complete, 4 fail``."""
    counts = Counter(t.state.lower() for t in trials)
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    return f"{len(trials)} {'trials' if len(trials) > 1 else 'trial'}: {states}" if trials else "no trial yet"


def studies_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """All studies, oldest first."""
    columns = ("study", "space", "task", "trials", "complete", "failed", "best_accuracy", "seed", "begun")
    table = Table(
        *columns,
        box=box.SIMPLE_HEAD,
        caption=None if summaries else "no study yet: begin one with `nasattn search --space resnet50_stages`",
    )
    for s in summaries:
        table.add_row(*(f"{s[c]:.3f}" if isinstance(s[c], float) else one_line(str(s[c] if s[c] is not None else "")) for c in columns))
    return table


def shipped_studies_table() -> Table:
    """The study files that `nasattn run` takes by name."""
    from nasattn.config import list_yaml, read_yaml, shipped
    from nasattn.errors import StudyError

    table = Table("study file", "space", "task", "trials", "description", box=box.SIMPLE_HEAD)
    for name in list_yaml("studies"):
        content = read_yaml(shipped("studies") / f"{name}.yaml", StudyError)
        table.add_row(name, *(str(content.get(key, "")) for key in ("space", "task", "trials", "description")))
    return table


def space_summary(space: SearchSpace) -> dict[str, Any]:
    """A space: size, host, and per stage the tokens."""
    return {
        "space": space.name,
        "host": space.host,
        "placements": space.size,
        "description": space.description,
        "stages": {str(i): [str(a) for a in tokens] for i, tokens in enumerate(space.tokens, start=1)},
    }


def spaces_table(spaces: Sequence[SearchSpace]) -> Table:
    """All spaces in a row each."""
    table = Table("space", "host", "placements", "choices per stage", "description", box=box.SIMPLE_HEAD)
    for s in spaces:
        table.add_row(s.name, s.host, f"{s.size:,}", " x ".join(str(len(t)) for t in s.tokens), s.description)
    return table


def space_table(space: SearchSpace) -> Table:
    """One space, a row a stage."""
    table = Table(
        "stage", "choices", title=f"{space.name}: {space.size:,} placements on {space.host}", title_justify="left", show_lines=True
    )
    for number, tokens in enumerate(space.tokens, start=1):
        table.add_row(str(number), ", ".join(map(str, tokens)))
    return table


def attention_summaries(channels: int = 256) -> list[dict[str, Any]]:
    """One mapping an attention: its canonical token, paper, options, and parameters at *channels* channels."""
    from nasattn.attention import Attention, create_attention, list_attention
    from nasattn.hosts.count import count_params

    rows = []
    for name in list_attention():
        attention = Attention.make(name)
        definition = attention.definition
        rows.append(
            {
                "token": str(attention),
                "paper": definition.paper,
                "options": {o.keyword: {"letter": o.letter, "default": dict(attention.options)[o.keyword]} for o in definition.options},
                "form": definition.form,
                f"params_at_{channels}": count_params(create_attention(attention, channels, device="meta")),
            }
        )
    return rows


def host_summary(host: Host) -> dict[str, Any]:
    """A host: its original form and, per stage, the blocks and the channels at each position."""
    return {
        "host": host.name,
        "resolution": host.resolution,
        "native": str(host.native),
        "stages": [
            {"blocks": s.blocks, "channels": {p: list(c) for p, c in s.channels.items()}, "forms": list(s.forms), "sb": bool(s.widened)}
            for s in host.stages
        ],
    }


def host_table(host: Host) -> Table:
    """One host, a row a stage."""
    table = Table("stage", "blocks", "channels at each position", "carries", box=box.SIMPLE_HEAD, title_justify="left")
    table.title = f"{host.name}, {host.resolution} px; in its original form {host.native}"
    for number, s in enumerate(host.stages, start=1):
        channels = "; ".join(f"@{p} {_runs(c)}" for p, c in s.channels.items())
        forms = [*s.forms, *(["widening (sb)"] if s.widened else [])]
        table.add_row(
            str(number), str(s.blocks), f"{channels} (the first by default)" if len(s.channels) > 1 else channels, ", ".join(forms)
        )
    return table


def _runs(values: Sequence[int]) -> str:
    """``256 x3`` for (256, 256, 256); ``64, 72 x2`` for (64, 72, 72)."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(values)]
    return ", ".join(f"{value} x{n}" if n > 1 else str(value) for value, n in runs)


def attentions_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """All attentions."""
    table = Table("token", "paper", "options", "params at 256 channels", box=box.SIMPLE_HEAD)
    for s in summaries:
        options = ", ".join(
            f"{o['letter']}: {keyword} ({'from the channels' if o['default'] is None else o['default']})"
            for keyword, o in s["options"].items()
        )
        table.add_row(s["token"], s["paper"], options, f"{s['params_at_256']:,}")
    return table


def trial_details(study: StudyRecord, trial: EvaluationRecord) -> dict[str, Any]:
    """Everything known of one trial."""
    from nasattn.hosts import get_host
    from nasattn.proxy import Recipe

    host = get_host(study.config["space"]["host"])
    latency = trial.latency
    details: dict[str, Any] = {
        "study": study.name,
        "trial": trial.trial,
        "state": trial.state,
        "placement": trial.placement,
        "proxy placement": _proxy_placement(host, trial, study.config["recipe"].get("pretrained", "")),
        "accuracy": trial.accuracy,
        "on test images": trial.held_out,
        "latency": f"{latency.ms:.2f} ms, {latency.ratio:.3f}x ({latency.ratio_low:.3f} to {latency.ratio_high:.3f}) of the plain {latency.baseline_ms:.2f} ms" if latency else None,
        "latency found by": _found_by(latency) if latency else None,
        "constraints": {name: f"{c['limit']}: {'within' if c['excess'] <= 0 else 'above'}, {c['ratio']:.3f}x the plain host" for name, c in (trial.constraints or {}).items()} or None,
        "params": f"{trial.params:,}",
        "macs": f"{trial.macs:,}",
        "curve": [_curve_line(point) for point in trial.curve],
        "fidelity": trial.fidelity,
        "recipe": Recipe.from_dict(study.config["recipe"]).to_dict(),
        "seed": trial.seed,
        "certifies": f"trained again with another seed than the study's, {study.seed}" if trial.seed != study.seed else None,
        "seconds": trial.seconds,
        "worker": trial.worker,
        "notes": trial.notes,
        "reused": trial.reused_from is not None,
        "error": trial.error,
    }  # fmt: skip
    return details


def _proxy_placement(host: Host, trial: EvaluationRecord, pretrained: str) -> str:
    if pretrained:
        return f"{trial.placement}, in the host itself with the weights {pretrained}"
    width, blocks = trial.fidelity["width"], trial.fidelity["blocks"]
    rule = f"numbers of groups times the width {width:g}, so that each group keeps its channels"
    return f"{host.proxy_placement(trial.placement, width, blocks)} ({rule})"


def _curve_line(point: dict[str, float]) -> str:
    rung = f", rung {point['rung']:g}" if "rung" in point else ""
    loss, accuracy = (f"{name} {point[name]:.4f}" if name in point else f"{name} not finite" for name in ("loss", "accuracy"))
    return f"epoch {point['epoch']:.3g}{rung}: {loss}, {accuracy}, {point['seconds']:.1f} s"


def _found_by(latency: LatencyRecord) -> str:
    if latency.method == "table":
        return "prediction from the table of stages"
    state = "with the device to itself" if latency.exclusive else f"shared: {latency.contention or 'other processes used the device'}"
    return f"measurement end to end, {latency.pairs} rounds, {state}"


def pairs_table(pairs: dict[str, Any]) -> Table:
    """Names and values; empty values are left out, lists and mappings take a line an entry."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        if isinstance(value, dict):
            value = [f"{k}: {v}" for k, v in value.items()]
        if value is None or value is False or value == []:
            continue
        table.add_row(name, Text("\n".join(map(str, value)) if isinstance(value, list) else str(value)))  # no markup: errors hold brackets
    return table
