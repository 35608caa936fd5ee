"""Which attention, where: what the model of a study's trials makes of effects that are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nasattn.report.effects import Effect
from nasattn.report.study_data import StudyData, gather
from nasattn.store import Store
from tests.report.studies import GAIN, SHARES, SLOWER, add_study, add_table, add_trials, placements


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store("sqlite://")
    add_study(made, "s")
    yield made
    made.engine.dispose()


def studied(store: Store, count: int, table: bool = True, uncertain: tuple[int, str] | None = None) -> StudyData:
    if table:
        add_table(store, uncertain)
    add_trials(store, "s", placements(count))
    return gather(store, "s")


def known(data: StudyData) -> dict[tuple[int, str], Effect]:
    return {(e.stage, e.token): e for e in data.effects}


def test_known_gains_are_within_their_intervals(store: Store) -> None:
    found = known(studied(store, 60))
    true = {(n, t): 100 * GAIN[t] * (1.0 if n == 2 else 0.1) for n in range(1, 5) for t in GAIN if t != "none"}
    within = [found[key].gain_low <= gain <= found[key].gain_high for key, gain in true.items()]
    assert sum(within) >= len(true) - 1
    assert found[2, "ela_t"].gain == pytest.approx(10, abs=1) and found[2, "ela_t"].clear
    assert found[2, "lka_k21_d3"].alone == pytest.approx(12, abs=1.5)
    assert all(found[key].gain_high - found[key].gain_low < 5 for key in true)


def test_fewer_trials_are_less_certain(store: Store) -> None:
    few = known(studied(store, 10))[2, "ela_t"]
    add_trials(store, "s", placements(70)[10:], first=10)
    many = known(gather(store, "s"))[2, "ela_t"]
    assert few.gain_high - few.gain_low > 2 * (many.gain_high - many.gain_low)


def test_what_was_never_tried_is_told_from_its_relatives_and_says_so(store: Store) -> None:
    found = known(studied(store, 40))
    untried, tried = found[2, "lka_k7_d3"], found[2, "lka_k21_d3"]
    assert untried.trials == 0 and untried.tried_alone is None and tried.trials > 0
    assert untried.gain_high - untried.gain_low > tried.gain_high - tried.gain_low


def test_latency_is_that_of_the_table(store: Store) -> None:
    effect = known(studied(store, 40))[2, "ela_t"]
    assert effect.added is not None and effect.added.source == "stage"
    assert effect.added.ms == pytest.approx(20 * SHARES[1] * (SLOWER["ela_t"] - 1), rel=0.01)
    assert effect.added.low < effect.added.ms < effect.added.high
    assert effect.per_ms == pytest.approx(effect.gain / effect.added.ms)
    assert effect.per_ms_low is not None and effect.per_ms_high is not None
    assert effect.per_ms_low < effect.per_ms < effect.per_ms_high


def test_without_a_table_latency_is_told_from_whole_placements(store: Store) -> None:
    found = known(studied(store, 60, table=False))
    for stage, token in ((2, "lka_k21_d3"), (4, "ela_t")):
        added = found[stage, token].added
        assert added is not None and added.source == "placements"
        assert added.ms == pytest.approx(20 * SHARES[stage - 1] * (SLOWER[token] - 1), abs=0.1)
        assert added.low - 0.05 <= 20 * SHARES[stage - 1] * (SLOWER[token] - 1) <= added.high + 0.05


def test_a_latency_that_cannot_be_told_from_zero_gives_no_ratio(store: Store) -> None:
    effect = known(studied(store, 40, uncertain=(2, "sge_g32")))[2, "sge_g32"]
    assert effect.added is not None and effect.added.low < 0 < effect.added.high
    assert (effect.per_ms, effect.per_ms_low, effect.per_ms_high) == (None, None, None)
    assert np.isfinite(effect.gain)


def test_too_few_placements_have_no_effects(store: Store) -> None:
    data = studied(store, 3)
    assert data.model is None and data.effects == [] and data.importances == {}


def test_equal_accuracies_have_no_effects(store: Store) -> None:
    add_trials(store, "s", placements(12), accuracy=0.5)
    assert gather(store, "s").effects == []


def test_importances_name_the_stage_that_decides(store: Store) -> None:
    found = studied(store, 60).importances
    assert set(found) == {"accuracy", "latency"} and all(sum(v) == pytest.approx(1) for v in found.values())
    assert int(np.argmax(found["accuracy"])) == 1 and int(np.argmin(found["latency"])) in (0, 1)
