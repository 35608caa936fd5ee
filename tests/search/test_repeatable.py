"""A study that is interrupted goes on as if it never had been, where workers are deterministic and one trial trains at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasattn.search.samplers import SAMPLERS
from nasattn.store import Store
from tests.search.fleet import Fleet, begin, configure, space_file, store

__all__ = ["space_file", "store"]  # fixtures

Outcome = list[tuple[str, int, float]]


def outcome(store: Store) -> Outcome:
    """What was trained, and how far."""
    return sorted((e.placement, e.seed, e.curve[-1]["epoch"]) for e in store.evaluations("s") if e.is_own_trial)


@pytest.mark.parametrize("halving", [False, True])
@pytest.mark.parametrize(
    "sampler",
    [
        sampler if sampler in ("placement", "random") else pytest.param(sampler, marks=pytest.mark.slow)
        for sampler in sorted(SAMPLERS.keys() - {"auto", "gp"})  # the fits of gp begin from the ones before
    ],
)
def test_the_outcome_is_that_of_an_uninterrupted_search(store: Store, space_file: str, tmp_path: Path, sampler: str, halving: bool) -> None:
    config = configure(space_file, sampler=sampler, trials=20 if halving else 16, halving=halving, certify=0.2)
    fleet = Fleet(begin(store, config), size=1)
    fleet.run()
    whole, reports = outcome(store), sum(map(len, fleet.steps.values()))
    assert len(whole) >= (9 if halving else 14)
    assert halving == any(e.stopped_at_rung for e in store.evaluations("s"))
    for cut, stopped in ((1, False), (8, True), (23, False), (reports - 11, True), (reports - 4, False)):  # some at the end of a trial
        other = Store(f"sqlite:///{tmp_path}/cut-{cut}.db")  # in the same one trainings would be told from the first study
        search = begin(other, config)
        Fleet(search, size=1).run(most=cut)
        if stopped:
            search.stop_all()
        Fleet(begin(other, config), size=1).run()
        assert outcome(other) == whole, cut
