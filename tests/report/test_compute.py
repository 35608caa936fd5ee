"""How a front grew, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nasattn.report.study_data import gather
from nasattn.store import Store
from tests.report.studies import PLAIN, add_study, add_table, add_trials, placements


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store("sqlite://")
    add_study(made, "s")
    add_table(made)
    yield made
    made.engine.dispose()


def test_a_front_grows_with_the_time_of_all_trainings(store: Store) -> None:
    add_trials(store, "s", placements(20), noise=0)
    add_trials(store, "s", placements(24)[20:], first=20, state="FAIL", error="lost")
    own = gather(store, "s").growths[0]
    assert own.source == "study" and own.seconds[-1] == 20 * 20
    assert np.all(np.diff(own.volume) >= 0) and 0 < own.volume[-1] <= 1


def test_trials_told_from_the_database_cost_nothing(store: Store) -> None:
    add_study(store, "t")
    add_trials(store, "t", placements(6))
    known = store.evaluations("t")[3]
    store.set_reused_from(known.id or 0, 1)
    data = gather(store, "t")
    assert data.growths[0].seconds[-1] == 5 * 20 and data.training_seconds == 5 * 20


def test_another_seed_that_disappoints_lets_the_front_shrink(store: Store) -> None:
    of = [PLAIN, "none,ela_t,none,none"]
    add_trials(store, "s", of, noise=0)
    add_trials(store, "s", of[1:], seed=1, noise=0, first=2, accuracy=0.52)
    volumes = gather(store, "s").growths[0].volume
    assert volumes[-1] < volumes[-2]


def test_random_choice_is_predicted_where_none_was_trained(store: Store) -> None:
    add_trials(store, "s", placements(30))
    own, random = gather(store, "s").growths
    assert random.source == "predicted" and random.seconds[-1] <= own.seconds[-1] + 1
    assert all(low <= mean <= high for low, mean, high in zip(random.low, random.volume, random.high, strict=True))
    assert min(random.low) >= 0 and max(random.high) <= 1
    assert abs(random.volume[-1] - own.volume[-1]) < 0.15  # these trials were drawn at random themselves


def test_studies_that_chose_at_random_come_before_a_prediction(store: Store) -> None:
    add_trials(store, "s", placements(30))
    for seed in (1, 2):
        add_study(store, f"random{seed}", sampler="random", seed=seed)
        add_trials(store, f"random{seed}", placements(20, seed), seed)
    add_study(store, "other", sampler="random", task="digits")
    add_trials(store, "other", placements(20, 3), 3)
    data = gather(store, "s")
    assert set(data.rivals) == {"random1", "random2"}
    random = data.growths[1]
    assert random.source == "studies" and random.name == "random1, random2" and random.seconds[-1] == pytest.approx(400)


def test_too_few_trials_are_compared_with_nothing(store: Store) -> None:
    add_trials(store, "s", placements(1))
    assert gather(store, "s").growths == []
    add_trials(store, "s", placements(5)[1:], first=1)
    assert [g.source for g in gather(store, "s").growths] == ["study"]
