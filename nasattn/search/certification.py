"""Which placement to train once more: where another seed says most about who belongs to the front.

A search chooses the best of many noisy accuracies, so its front is too good to be true: some of its members are there by luck.
Trainings with new seeds, which did not choose them, put that right. They go first to the most accurate member, which luck has chosen from
most and which users take along, then to other likely members that have none, those first that claim most, then to whoever's membership
is least certain, dominated placements included, which bad luck may have kept off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from nasattn.front import CERTIFIED_P, CERTIFIED_SEEDS, FrontMember, appraise
from nasattn.store import EvaluationRecord

MOST_SEEDS = 8  # of one placement; more say little, and one whose trainings fail is given up
SETTLED = 0.02  # the variance of a membership, p (1 - p), below which another training is not worth its time


class Retraining(NamedTuple):
    """A placement and the seed to train it with."""

    placement: str
    seed: int


class Certification:
    """What of a study's placements was trained with which seeds, and what is to be trained again.

    Args:
        seed: Of the study.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.begun: dict[str, set[int]] = {}
        self.completed: list[EvaluationRecord] = []

    def begin(self, placement: str, seed: int) -> None:
        """A training is under way."""
        self.begun.setdefault(placement, set()).add(seed)

    def note(self, record: EvaluationRecord) -> None:
        """A training has ended."""
        if record.state != "INTERRUPTED":
            self.begin(record.placement, record.seed)
        else:
            self.begun.get(record.placement, set()).discard(record.seed)
        if record.state == "COMPLETE":
            self.completed.append(record)

    def next(self) -> Retraining | None:
        """What to train again; None where no training would tell much."""
        return next_retraining(appraise(self.completed), self.begun, self.seed)


def next_retraining(points: Sequence[FrontMember], begun: Mapping[str, Collection[int]], seed: int) -> Retraining | None:
    """The training that is needed most, or None where all members are trained again and no membership is in doubt.

    Args:
        points: All placements that were completed, fastest first (see :func:`nasattn.front.appraise`).
        begun: By placement the seeds that were trained, are being trained, or failed.
        seed: Of the study: the others count up from it, so that placements are compared on the same seeds.
    """
    best = max((p for p in points if p.on_front), key=lambda p: p.accuracy, default=None)
    claims = _claims(points)
    needs = {p.placement: _need(p, len(begun[p.placement]), p is best, claims.get(p.placement, 0.0)) for p in points}
    most = max(needs, key=lambda placement: needs[placement], default="")
    if not needs.get(most):
        return None
    return Retraining(most, next(s for s in range(seed + 1, seed + 2 + MOST_SEEDS) if s not in begun[most]))


def _claims(points: Sequence[FrontMember]) -> dict[str, float]:
    """What each member of the front says it adds in accuracy to the next faster one, 0..1; nothing for the fastest."""
    members = [p for p in points if p.on_front]
    return {slower.placement: slower.accuracy - faster.accuracy for faster, slower in pairwise(members)}


def _need(point: FrontMember, seeds: int, best: bool, claim: float) -> float:
    """How much is to be learned from one more training, of the *best* of the front or of another; 0 for nothing."""
    if seeds >= MOST_SEEDS:
        return 0.0
    doubt = point.p_member * (1 - point.p_member)
    if point.on_front and seeds < CERTIFIED_SEEDS and (best or point.p_member >= CERTIFIED_P):
        return 1.0 + best + claim
    return doubt / seeds if doubt > SETTLED else 0.0
