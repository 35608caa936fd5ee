"""The colours of attentions, on the page and in the figures alike: told apart in every common kind of colour blindness, on light and dark ground."""

from __future__ import annotations

from collections.abc import Iterable

from nasattn.report.choices import NONE, family_of

# Paul Tol's "bright", then those of his "vibrant" and "muted" that differ from them
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#AA3377", "#66CCEE", "#EE7733", "#009988", "#999933", "#882255")
PLAIN, SEVERAL = "#8A8F98", "#B08968"
UP, DOWN = "#4477AA", "#EE7733"  # of a gain and of a loss
SEVERAL_NAME = "several"


def colours_of(tokens: Iterable[str]) -> dict[str, str]:
    """A colour for each family among *tokens*, in their order, for ``none`` and for placements that mix families."""
    families = [f for f in dict.fromkeys(map(family_of, tokens)) if f != NONE]
    return {NONE: PLAIN} | {f: COLOURS[i % len(COLOURS)] for i, f in enumerate(families)} | {SEVERAL_NAME: SEVERAL}


def family_of_placement(placement: str) -> str:
    """The one family that a placement carries; ``none`` of the plain host, ``several`` where it mixes."""
    families = {family_of(t) for t in placement.split(",")} - {NONE}
    return SEVERAL_NAME if len(families) > 1 else next(iter(families), NONE)
