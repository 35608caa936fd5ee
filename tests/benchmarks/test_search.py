"""The replay benchmark: tables are written and read, samplers are replayed on them, and the figures are those of the table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import replay
import search
from table import TABLES, Entry, Table, shipped_tables

from nasattn.proxy import Fidelity, Recipe
from nasattn.proxy.defaults import default_settings
from nasattn.space import SearchSpace

STAGES = {"1": {"none": None, "sge": {"groups": [16, 32]}, "ela_t": None}, "all": {"none": None, "sge": {"groups": [32]}}}

FIDELITY = {"width": 0.125, "blocks": 1, "resolution": 48, "samples": 8000, "val_samples": 2000, "epochs": 2, "rungs": 3}
MADE = {"task": "cued_digits", "fidelity": FIDELITY, "recipe": {"batch_size": 32}}


def make_table(name: str = "synthetic") -> Table:
    """A stand-in: SGE in an early stage is good, and every attention takes time."""
    space = SearchSpace.from_dict(name, {"host": "nasattn_resnet50", "stages": STAGES})
    rng = np.random.default_rng(0)
    entries = {}
    for placement in space.placements():
        names = [a.name for a in placement]
        good = 0.4 + 0.3 * ("sge" in names[:2]) + 0.1 * ("ela" in names)
        curves = {seed: (0.3, (good + 0.3) / 2, good + float(rng.normal(0, 0.01))) for seed in (0, 1)}
        entries[str(placement)] = Entry(1 + 0.05 * sum(n != "none" for n in names), curves)
    return Table(name, space, entries, (0.25, 0.5, 1.0), MADE)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = make_table()
    table.write(tmp_path / "synthetic.json")
    read = Table.read(tmp_path / "synthetic.json")
    assert dict(read.entries) == dict(table.entries)
    assert (read.space.to_dict(), read.rungs, read.seeds, read.missing) == (table.space.to_dict(), table.rungs, (0, 1), [])
    assert 0.003 < read.noise() < 0.03


def test_a_table_looked_at_on_fewer_rungs() -> None:
    table = make_table()
    half = table.at_rungs(2)
    name = next(iter(table.entries))
    assert (half.rungs, half.made["fidelity"]["rungs"], half.entries[name].latency) == ((0.5, 1.0), 2, table.entries[name].latency)
    assert half.entries[name].accuracy[1] == table.entries[name].accuracy[1][1:]
    halved = replay.replay_search(half, 0, 20, sampler="random", certify=0, halving=True)
    assert 10 <= halved["compute"] < 20 and table.rungs == (0.25, 0.5, 1.0)


@pytest.mark.parametrize("table", shipped_tables(), ids=lambda table: table.name)
def test_shipped_tables_are_whole(table: Table) -> None:
    assert (len(table.entries), table.seeds, table.missing, len(table.rungs)) == (320, (0, 1), [], 3)
    assert all(len(curve) == 3 and all(0 <= a <= 1 for a in curve) for e in table.entries.values() for curve in e.accuracy.values())
    assert table.entries["none,none,none,none"].latency == 1.0
    assert min(e.latency for e in table.entries.values()) >= 1.0


def test_a_table_of_the_default_proxy_is_shipped() -> None:
    made = Table.read(TABLES / "cued_digits_resnet50.json").made
    fidelity, recipe = default_settings("cued_digits", "cpu")
    assert Fidelity.from_dict(made["fidelity"]) == fidelity.changed(rungs=3), "the table has one more"
    assert Recipe.from_dict(made["recipe"]) == recipe.changed(precision=made["recipe"]["precision"]), "which is the machine's"
    assert made["rungs_of_searches"] == fidelity.rungs


def test_samplers_are_replayed_on_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_table().write(tmp_path / "synthetic.json")
    monkeypatch.setattr(search, "TABLES", tmp_path)
    search.load_problem.cache_clear()
    for sampler in ("placement", "random", "uniform"):
        result = search.replay("synthetic", sampler, 0, 32, [5, 32])
        assert 0 <= result["shares"][0] <= result["shares"][1] + 0.1
        if sampler != "random":
            assert result["duplicates"] == 0
            assert result["shares"][1] > 0.9  # every placement of the table is trained


def test_who_trains_everything_once_claims_by_luck_too() -> None:
    accuracy = {"a": (0.5,), "b": (0.7, 0.9), "c": (0.85,), "d": (0.1,)}  # by luck b beats c, which is better
    cost = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    domain = search.Domain.of_space(make_table().space)
    lucky = search.Problem("four", accuracy, cost, lambda trial: "a", lambda params: "a", domain)
    once = search.everything_once(lucky, 20)
    assert once["low"] < 1.0 == once["high"] and once["low"] <= once["median"] <= once["high"]
    sure = replace(lucky, accuracy={key: (np.mean(trainings),) for key, trainings in accuracy.items()})
    assert search.everything_once(sure, 3) == {"low": 1.0, "median": 1.0, "high": 1.0}


def test_figures_of_a_comparison() -> None:
    ours, other = np.linspace(0.5, 0.9, 10)[:, None] + [0.0, 0.1], np.linspace(0.4, 0.8, 10)[:, None] + [0.0, 0.1]
    found = search.compare({"placement": ours, "tpe": other}, [10, 20])
    assert found["placement"]["median"] == [0.7, 0.8]
    assert found["tpe"]["ours_reaches_its_last_at"] == 10
    assert found["tpe"]["ours_below_at"] == []
    assert all(p < 0.01 for p in found["tpe"]["p_holm"].values())
    assert search.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_a_whole_search_is_replayed() -> None:
    """All placements are trained to the end: then the front is the table's, at the price of the table."""
    table = make_table()
    found = replay.replay_search(table, 0, 40, sampler="random", certify=0)
    assert found["compute"] == len(table.entries) == len(found["trace"])
    assert found["trace"][-1][1] > 0.9 and found["honest"] == pytest.approx(found["trace"][-1][1])
    assert [c for c, _ in found["trace"]] == sorted(c for c, _ in found["trace"])


def test_halving_takes_less_and_certification_more_than_one_training_each() -> None:
    table = make_table()
    halved = replay.replay_search(table, 0, 30, sampler="random", certify=0, halving=True)
    assert halved["compute"] < 20 and len(halved["trace"]) < 15
    certified = replay.replay_search(table, 0, 30, sampler="local", certify=0.2)
    assert certified["certified"] >= 1 and certified["compute"] == 30 == len(certified["trace"])
    assert certified["true_certified"] <= certified["certified"] <= certified["members"]


def test_seeds_beyond_the_tables_are_drawn_about_the_mean() -> None:
    table = make_table()
    trainings = replay.Trainings(table, 0)
    name = next(iter(table.entries))
    entry = table.entries[name]
    assert {trainings.curve(name, n) for n in (0, 1)} == set(entry.accuracy.values())
    more = [trainings.curve(name, n)[-1] for n in range(2, 400)]
    assert np.mean(more) == pytest.approx(entry.true_accuracy, abs=0.005) and 0.5 * table.noise() < np.std(more) < 2 * table.noise()


def test_what_searches_are_judged_by() -> None:
    def run(trace: list[tuple[float, float]], true: int) -> dict[str, object]:
        counts = {"members": 4, "true": true, "certified": 2, "true_certified": 2}
        return {"trace": trace, "compute": trace[-1][0], "claimed": 0.92, "honest": 0.9, **counts}

    quick, slow = run([(1.0, 0.2), (2.0, 0.9)], 3), run([(4.0, 0.6)], 1)
    late = run([(1.0, 0.2), (3.0, 0.9)], 2)  # what is reached with trainings beyond the budget does not count
    flat = np.array([[0.1, 0.8]])
    told = replay.judge(
        {"certified": {1: [late], 2: [quick], 20: [late]}, "uncertified": {2: [slow]}}, [slow], 20, flat, flat - 0.3, flat - 0.25, [1, 20]
    )
    assert told["targets"]["what_tpe_has_in_the_end"] == {
        "share": 0.8,
        "reached_at": 2,
        "target": pytest.approx(2.4),
        "below": {"random": [], "local": []},
        "without_certification": {"reached_at": None, "below": {"random": [], "local": []}},
        "met": True,
    }
    assert told["targets"]["halving_alone"] == {"share": 0.6, "without": 0.5, "compute": 0.2, "met": True}
    claims = told["targets"]["claims"]
    assert claims["by_budget"][2] == {"true": 0.75, "true_certified": 1.0, "overclaim": 0.02}
    assert (claims["true_uncertified"], claims["met_with"]) == ({2: 0.25}, [2])
    assert told["searches"]["certified"][1]["median"] == 0.2 and told["searches"]["certified"][20]["high"] == 0.9
    assert replay.share_at(quick["trace"], 0.5) == 0.0  # type: ignore[arg-type]


def test_budgets_of_searches() -> None:
    assert replay.budgets_of("certified", 200, [10, 60, 100, 200]) == [10, 24, 60, 100, 200]
    assert replay.budgets_of("uncertified", 200, [10, 60, 100, 200]) == [10, 24, 60]


def test_whole_searches_are_replayed_by_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends when its budget is used up, but for what was under way."""
    make_table().write(tmp_path / "synthetic.json")
    monkeypatch.setattr(search, "TABLES", tmp_path)
    search.load_problem.cache_clear()
    searches, halving = search.replay_searches("synthetic", 1, 20, [5, 20], map)
    assert {name: list(runs) for name, runs in searches.items()} == {"certified": [2, 5, 20], "uncertified": [2, 5, 20]}
    assert all(budget - 0.5 <= run["compute"] <= budget + 2 for runs in searches.values() for budget, (run,) in runs.items() if budget <= 5)
    assert len(halving) == 1 and halving[0]["compute"] < 20
