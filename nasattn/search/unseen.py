"""Placements that a study has not seen, drawn when its sampler suggests only what is known or not allowed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

import numpy as np

from nasattn.attention import Placement
from nasattn.space import SearchSpace

DRAWS = 200  # random placements tried before all are gone through


def draw_unseen(
    space: SearchSpace, seen: Collection[str], is_ruled_out: Callable[[Placement], bool], seed: tuple[int, ...], thrift: float = 0.0
) -> Placement | None:
    """A random placement of *space* that is not in *seen* and not ruled out; None when there is none.

    Args:
        space: What may be placed where.
        seen: The placements not to give.
        is_ruled_out: Whether a placement is known to exceed a limit.
        seed: Of the draw.
        thrift: Probability, 0 to 1, with which a stage that offers ``none`` takes it; it grows from draw to draw, so that
            limits which leave little are met soon.
    """
    rng = np.random.default_rng(seed)

    def draw(number: int) -> Placement:
        plain = thrift + (1 - thrift) * number / DRAWS
        tokens = []
        for offered in space.tokens:
            none = next((a for a in offered if a.form == "none"), None)
            tokens.append(none if none is not None and rng.random() < plain else offered[rng.integers(len(offered))])
        return Placement(tuple(tokens))

    candidates = itertools.chain(map(draw, range(DRAWS)), space.placements())
    return next((p for p in candidates if str(p) not in seen and not is_ruled_out(p)), None)
