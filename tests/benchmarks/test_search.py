"""The replay benchmark: tables are written and read, samplers are replayed on them, and the figures are those of the table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import search
from table import Entry, Table

from nasattn.space import SearchSpace

STAGES = {"1": {"none": None, "sge": {"groups": [16, 32]}, "ela_t": None}, "all": {"none": None, "sge": {"groups": [32]}}}


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
    return Table(name, space, entries, (0.25, 0.5, 1.0), {"task": "none"})


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = make_table()
    table.write(tmp_path / "synthetic.json")
    read = Table.read(tmp_path / "synthetic.json")
    assert dict(read.entries) == dict(table.entries)
    assert (read.space.to_dict(), read.rungs, read.seeds, read.missing) == (table.space.to_dict(), table.rungs, (0, 1), [])
    assert 0.003 < read.noise() < 0.03


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


def test_figures_of_a_comparison() -> None:
    ours, other = np.linspace(0.5, 0.9, 10)[:, None] + [0.0, 0.1], np.linspace(0.4, 0.8, 10)[:, None] + [0.0, 0.1]
    found = search.compare({"placement": ours, "tpe": other}, [10, 20])
    assert found["placement"]["median"] == [0.7, 0.8]
    assert found["tpe"]["ours_reaches_its_last_at"] == 10
    assert found["tpe"]["ours_below_at"] == []
    assert all(p < 0.01 for p in found["tpe"]["p_holm"].values())
    assert search.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
