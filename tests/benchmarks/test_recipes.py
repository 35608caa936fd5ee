"""What the comparison of recipes makes of its trainings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from recipes import summary


def test_luck_is_what_two_seeds_of_a_placement_differ_by() -> None:
    rows = [
        {"placement": placement, "accuracy": [0.3, end], "seconds": seconds}
        for placement, end, seconds in (("a", 0.9, 1.0), ("a", 0.5, 2.0), ("b", 0.8, 3.0), ("b", 0.8, 9.0))
    ]
    found = summary(rows)
    assert found == {"mean_accuracy": 0.75, "luck": pytest.approx(0.4 / 2**0.5, abs=1e-4), "broke_through": 0.75, "median_seconds": 2.5}
