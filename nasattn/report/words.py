"""What a study found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from nasattn.front import FrontMember, claimed_and_honest
from nasattn.report.effects import Effect
from nasattn.report.study_data import StudyData

STEPS = (1.05, 1.1, 1.2, 1.5)  # latency ratios within which the best placement is named
MOST_EFFECTS = 3


def headline(data: StudyData) -> list[str]:
    """The findings in a few sentences, most important first; what is missing is said as well."""
    told = [_state(data)]
    if not data.front:
        return told
    best = max(data.front, key=lambda m: m.accuracy)
    told.append(f"The most accurate placement is {describe(best, data.plain)}.")
    cheaper = _within(data, best)
    if cheaper is not None:
        limit, member = cheaper
        told.append(f"Within {limit:g}x the latency of the plain host it is {describe(member, data.plain)}.")
    told.append(_membership(data))
    told.append(_where(data.effects))
    if (honest := claimed_and_honest(data.appraised)) is not None:
        told.append(
            f"On test images that no search saw, the members trained again keep a hypervolume of {honest[1]:.3f} of the {honest[0]:.3f} that validation images claim."
        )
    return [t for t in told if t]


def describe(member: FrontMember, plain: FrontMember | None) -> str:
    """A placement with its figures: accuracy, latency, gain."""
    gain = "" if member.gain is None or member is plain else f", {100 * member.gain:+.1f} points against the plain host"
    return (
        f"{member.placement} with {percent(member.accuracy)} accuracy (± {196 * member.accuracy_se:.1f}){gain}, "
        f"at {member.latency_ratio:.3f}x the plain host's latency ({member.latency_ratio_low:.3f} to {member.latency_ratio_high:.3f})"
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _state(data: StudyData) -> str:
    complete, failed = len(data.complete), sum(t.state == "FAIL" for t in data.trials)
    running = sum(t.state == "RUNNING" for t in data.trials)
    rest = f"; {running} {'are' if running > 1 else 'is'} under way" if running else ""
    if not data.trials:
        return "No trial has begun yet: there is nothing to show but the configuration."
    if not complete:
        return f"None of the {len(data.trials)} trials completed, {failed} failed{rest}: there is no front. The faults below say why."
    without = sum(t.latency is None for t in data.complete)
    if not data.front:
        return f"{_number(complete, 'trial')} completed, but no latency is known of {'it' if complete == 1 else 'any of them'}: there is no front{rest}."
    known = f", {without} of them without a latency, which are not on the front" if without else ""
    few = ", too few to tell placements apart" if len(data.appraised) < 3 else ""
    stopped = sum(t.stopped_at_rung for t in data.trials)
    early = f"; {stopped} {'was' if stopped == 1 else 'were'} stopped early, behind others of their latency" if stopped else ""
    return (
        f"{_number(complete, 'training')} of {_number(len(data.appraised), 'placement')} completed{known}{few}{early}"
        f"{f'; {failed} failed' if failed else ''}{rest}. {_number(len(data.front), 'placement')} {'is' if len(data.front) == 1 else 'are'} on the front."
    )


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


def _within(data: StudyData, best: FrontMember) -> tuple[float, FrontMember] | None:
    """The least limit within which a placement gains clearly on the plain host, if that is not the best one anyway."""
    base = data.plain.accuracy if data.plain else min(m.accuracy for m in data.front)
    for limit in STEPS:
        within = [m for m in data.front if m.latency_ratio <= limit]
        found = max(within, key=lambda m: m.accuracy, default=None)
        if found is not None and found is not best and found.accuracy - base > 0.5 * (best.accuracy - base) > 0:
            return limit, found
    return None


def _membership(data: StudyData) -> str:
    certified = [m for m in data.front if m.tier == "certified"]
    if not certified:
        return "No member of the front is certified yet: for that it has to be trained with another seed and measured end to end (nasattn certify)."
    unsure = [m for m in data.front if m.p_member < 0.5]
    doubt = f"; {_number(len(unsure), 'member')} more likely beaten than not (probability below one half)" if unsure else ""
    return f"{len(certified)} of its {_number(len(data.front), 'member')} {'is' if len(certified) == 1 else 'are'} certified{doubt}."


def _where(effects: Sequence[Effect]) -> str:
    if not effects:
        return ""
    clear = sorted((e for e in effects if e.trials and e.gain_low > 0), key=lambda e: -(e.per_ms or 0.0))
    if not clear:
        return "Which attention gains where cannot be told yet: no gain of a single choice stands out from its uncertainty."
    named = [
        f"{e.token} in stage {e.stage} ({e.gain:+.1f} points{f', {e.per_ms:+.1f} per ms' if e.per_ms is not None else ''})"
        for e in clear[:MOST_EFFECTS]
    ]
    return f"What gains most per millisecond, beyond its uncertainty: {', '.join(named)}."
