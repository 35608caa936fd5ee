"""A search that certifies its front: asked and told as workers would, on a real database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nasattn.errors import UsageError
from nasattn.front import appraise, claimed_and_honest, front
from nasattn.search.bridge import PlacementSearch
from nasattn.search.events import SearchNoted
from nasattn.search.study import make_config
from nasattn.store import EvaluationRecord, Store
from tests.search.fleet import Fleet, begin, configure, space_file, store

__all__ = ["space_file", "store"]


class SeededFleet(Fleet):
    """Workers whose accuracies differ by seed, with test images for other seeds than the study's."""

    def run(self, most: int = 10_000) -> None:
        for _ in range(most):
            while len(self.work) < self.size and (given := self.search.next_trial()) is not None:
                self.work[given[0]] = given[1]["job"]
            if not self.work:
                self.search.finish()
                return
            name = next(iter(self.work))
            job: Any = self.work.pop(name)
            accuracy = 0.5 + sum(map(ord, job.placement)) * 2654435761 % 1000 / 4000 + 0.004 * (-1) ** (job.seed + len(job.placement))
            result = {"epoch": 4.0, "loss": 1.0, "accuracy": accuracy, "seconds": 4.0, "rung": 3, "worker": "here:1", "finished": True}
            self.search.on_trial_complete(name, result | ({"held_out": accuracy - 0.01} if job.tested else {}))


def retrained(store: Store) -> list[EvaluationRecord]:
    return [e for e in store.evaluations("s") if e.seed != 0]


def test_a_fifth_of_the_trials_trains_the_front_again(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, trials=30, certify=0.2, halving=False))
    heard: list[Any] = []
    search.notify = heard.append
    SeededFleet(search).run()
    records = store.evaluations("s")
    assert len(records) == 30 and {e.state for e in records} == {"COMPLETE"}
    again = retrained(store)
    assert len(again) == 6 and {e.seed for e in again} >= {1}
    assert len({(e.placement, e.seed) for e in records}) == 30  # nothing twice
    assert all(e.held_out == pytest.approx((e.accuracy or 0) - 0.01) for e in again)
    assert all(e.held_out is None for e in records if e.seed == 0)
    members = {m.placement: m for m in front(records)}
    assert {m.placement for m in members.values() if m.tier == "certified"} <= {e.placement for e in again}
    assert any(m.tier == "certified" and m.seeds >= 2 for m in members.values())
    assert sum(isinstance(e, SearchNoted) and "certifying" in e.text for e in heard) == 1
    hypervolumes = claimed_and_honest(appraise(records))
    assert hypervolumes is not None and hypervolumes[1] < hypervolumes[0]
    assert search.ended == "all 30 trials are evaluated" and search.is_over
    assert [t.state.name for t in search.study.trials] == ["COMPLETE"] * 30


@pytest.mark.parametrize("settings", [{"certify": 0}, {"trials": 9}])
def test_without_certification_and_in_short_searches_nothing_is_trained_again(
    store: Store,
    space_file: str,
    settings: dict[str, Any],
) -> None:
    SeededFleet(begin(store, configure(space_file, **{"certify": 0.2, **settings}))).run()
    assert retrained(store) == []


def test_a_certification_goes_on_where_it_was_stopped(store: Store, space_file: str) -> None:
    config = configure(space_file, trials=30, certify=0.2, halving=False)
    search = begin(store, config)
    workers = SeededFleet(search)
    workers.run(most=26)  # in the middle of the retrainings
    before = len(retrained(store))
    assert search.running and 0 < before < 6
    search.stop_all()
    search = begin(store, config)
    SeededFleet(search).run()
    again = [e for e in retrained(store) if e.state == "COMPLETE"]
    assert len(again) == 6 and len({(e.placement, e.seed) for e in again}) == 6
    assert not [t for t in search.study.trials if t.state.name in ("RUNNING", "WAITING")]


def test_a_finished_study_is_certified_further(store: Store, space_file: str) -> None:
    config = configure(space_file, trials=12, certify=0.2, halving=False)
    SeededFleet(begin(store, config)).run()
    assert len(retrained(store)) == 2
    search = begin(store, config)
    assert search.is_over  # nothing to do for the same search again
    search = begin(store, config)
    search.retrain_only(3)
    SeededFleet(search).run()
    assert 2 < len(retrained(store)) <= 5
    assert len(store.evaluations("s")) == 10 + len(retrained(store))


def test_a_space_that_is_used_up_is_certified(store: Store, tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(
        "host: nasattn_resnet18\nstages:\n  1: {none: , se: , eca: }\n  2: {none: , se: , eca: }\n  3: {none: }\n  4: {none: }\n"
    )
    search = begin(store, configure(str(small), trials=20, certify=0.2, halving=False))
    SeededFleet(search).run()
    records = store.evaluations("s")
    assert len([e for e in records if e.seed == 0]) == 9
    assert 0 < len(retrained(store)) <= 4
    assert "every placement of small" in search.ended


def test_a_space_of_a_few_placements_is_not_certified_unasked(store: Store, tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("host: nasattn_resnet18\nstages:\n  1: {none: , se: , eca: }\n  2: {none: }\n  3: {none: }\n  4: {none: }\n")
    search = begin(store, configure(str(small), trials=20, certify=0.2, halving=False))
    SeededFleet(search).run()
    assert len(store.evaluations("s")) == 3 and not retrained(store)
    search = begin(store, configure(str(small), trials=20, certify=0.2, halving=False))
    search.retrain_only(2)
    SeededFleet(search).run()
    assert 0 < len(retrained(store)) <= 2


def test_a_share_that_is_not_one(space_file: str) -> None:
    for share in (-0.1, 0.6, "much", True):
        with pytest.raises(UsageError, match="certify must be a share of the trials from 0 to 0.5"):
            make_config({"space": space_file, "certify": share})


def test_the_time_that_certification_needs_is_kept(store: Store, space_file: str) -> None:
    search: PlacementSearch = begin(store, configure(space_file, trials=1000, certify=0.2, compute_budget="200s", halving=False))
    SeededFleet(search).run()
    seconds = sum(e.seconds or 0 for e in store.evaluations("s"))
    assert 160 <= sum(e.seconds or 0 for e in store.evaluations("s") if e.seed == 0) <= 176
    assert seconds <= 216 and retrained(store)
