"""Checks of options against channels, shared by the attentions."""

from __future__ import annotations


def divides(channels: int, groups: int | None, what: str) -> str | None:
    """The message for *groups* that do not divide *channels*, or None when they do."""
    if groups is None or channels % groups == 0:
        return None
    allowed = [d for d in range(1, channels + 1) if channels % d == 0]
    shown = ", ".join(map(str, allowed if len(allowed) <= 12 else [*allowed[:6], "...", *allowed[-3:]]))
    return f"{groups} {what} do not divide {channels} channels; allowed: {shown}"
