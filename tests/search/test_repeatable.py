"""A study that is interrupted goes on as if it never had been, where workers are deterministic and one trial trains at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasattn.search.samplers import SAMPLERS
from nasattn.store import Store
from tests.search.fleet import Fleet, begin, configure, space_file, store

__all__ = ["space_file", "store"]  # fixtures

Outcome = list[tuple[str, int, float | None]]


def outcome(store: Store) -> Outcome:
    """What was trained."""
    return sorted((e.placement, e.seed, e.accuracy) for e in store.evaluations("s") if e.state == "COMPLETE" and e.reused_from is None)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.keys() - {"auto", "gp"}))  # the fits of gp begin from the ones before
def test_the_outcome_is_that_of_an_uninterrupted_search(store: Store, space_file: str, tmp_path: Path, sampler: str) -> None:
    config = configure(space_file, sampler=sampler, trials=16, halving=False, certify=0.2)
    Fleet(begin(store, config), size=1).run()
    whole = outcome(store)
    assert len(whole) >= 14
    for reports, stopped in ((1, False), (8, True), (23, False), (39, True)):  # in the first trial, in others, at the end of one
        other = Store(f"sqlite:///{tmp_path}/cut-{reports}.db")  # in the same one trainings would be told from the first study
        search = begin(other, config)
        Fleet(search, size=1).run(most=reports)
        if stopped:
            search.stop_all()
        Fleet(begin(other, config), size=1).run()
        assert outcome(other) == whole
