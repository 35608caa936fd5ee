"""Limits on what a placement may cost: read, said, and held against a cost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasattn.errors import UsageError
from nasattn.search.limits import UNITS, Cost, Limit, evaluate, show_amount, violations


@pytest.mark.parametrize(
    ("cost", "text", "limit"),
    [
        ("latency", "1.3x", Limit("latency", 1.3, "x")),
        ("latency", "12ms", Limit("latency", 12, "ms")),
        ("latency", "0.5ms", Limit("latency", 0.5, "ms")),
        ("params", "1.1x", Limit("params", 1.1, "x")),
        ("params", "30M", Limit("params", 30, "M")),
        ("params", "2.5K", Limit("params", 2.5, "K")),
        ("params", "1G", Limit("params", 1, "G")),
        ("params", "11689530", Limit("params", 11_689_530, "")),
        ("params", "3e7", Limit("params", 3e7, "")),
        ("macs", "5G", Limit("macs", 5, "G")),
        ("macs", "1.5T", Limit("macs", 1.5, "T")),
        ("macs", "1.1x", Limit("macs", 1.1, "x")),
        ("memory", "200MB", Limit("memory", 200, "MB")),
        ("memory", "200MiB", Limit("memory", 200, "MiB")),
        ("memory", "1.2x", Limit("memory", 1.2, "x")),
        ("memory", "100B", Limit("memory", 100, "B")),
    ],
)
def test_reading(cost: str, text: str, limit: Limit) -> None:
    assert Limit.parse(cost, text) == limit


@pytest.mark.parametrize(("cost", "unit"), [(cost, unit) for cost, units in UNITS.items() for unit in ("x", *units)])
@pytest.mark.parametrize("value", [0.25, 1.3, 12, 4096, 123456, 11_689_530])
def test_what_is_said_reads_back(cost: str, unit: str, value: float) -> None:
    limit = Limit(cost, value, unit)
    assert Limit.parse(cost, str(limit)) == limit
    assert Limit.parse(cost, f"{value}{unit}") == limit


EXPECTED = {
    "latency": "a latency limit is a ratio such as 1.3x or a time such as 12ms, got ",
    "params": "a params limit is a ratio such as 1.3x or a number such as 30M, got ",
    "macs": "a macs limit is a ratio such as 1.3x or a number such as 5G, got ",
    "memory": "a memory limit is a ratio such as 1.3x or a size such as 200MB, got ",
}


@pytest.mark.parametrize("cost", UNITS)
@pytest.mark.parametrize(
    "text", ["", "x", "fast", "0x", "-1x", "nanx", "infx", "1.3X", "1.3 times", "1,3x", "3xx", "5s", "0", "-3", "nan", "inf"]
)
def test_what_is_no_limit(cost: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Limit.parse(cost, text)
    assert str(caught.value) == EXPECTED[cost] + repr(text)


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        *(("latency", text) for text in ("12", "12s", "30M")),
        *(("memory", text) for text in ("200", "200mb", "5T")),
        *(("params", text) for text in ("12ms", "5T", "30MB", "30m")),
        *(("macs", text) for text in ("200B", "KM")),
    ],
)
def test_the_unit_is_one_of_the_costs_own(cost: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"a {cost} limit is .*, got '{text}'"):
        Limit.parse(cost, text)


@pytest.mark.parametrize(
    ("cost", "text", "amount", "ratio", "excess"),
    [
        ("latency", "1.25x", 99.0, 1.5, 0.2),
        ("latency", "1.25x", 99.0, 1.25, 0.0),
        ("latency", "2x", 99.0, 1.0, -0.5),
        ("latency", "20ms", 25.0, 1.0, 0.25),
        ("latency", "20ms", 15.0, 9.0, -0.25),
        ("params", "30M", 33_000_000, 1.0, 0.1),
        ("params", "1K", 1500, 1.0, 0.5),
        ("params", "1000", 1500, 1.0, 0.5),
        ("macs", "4G", 3_000_000_000, 9.0, -0.25),
        ("macs", "2T", 1e12, 9.0, -0.5),
        ("memory", "200MB", 300e6, 1.0, 0.5),
        ("memory", "2KiB", 3072, 1.0, 0.5),
        ("memory", "1GiB", 2**30, 1.0, 0.0),
        ("memory", "1.5x", 1.0, 3.0, 1.0),
    ],
)
def test_the_excess_is_a_part_of_the_limit(cost: str, text: str, amount: float, ratio: float, excess: float) -> None:
    assert Limit.parse(cost, text).excess(amount, ratio) == pytest.approx(excess)


def test_names() -> None:
    assert [(Limit(c, 1, "x").name, Limit(c, 1, "x").flag) for c in ("latency", "macs")] == [
        ("max_latency", "--max-latency"),
        ("max_macs", "--max-macs"),
    ]


@pytest.mark.parametrize(
    ("cost", "amount", "shown"),
    [
        ("latency", 30.123, "30.12 ms"),
        ("latency", 0.01234, "0.01234 ms"),
        ("latency", 1234, "1234 ms"),
        ("params", 11_689_512, "11.69M"),
        ("params", 1000, "1K"),
        ("params", 999, "999"),
        ("params", 0, "0"),
        ("macs", 1_814_073_344, "1.814G"),
        ("macs", 2.5e12, "2.5T"),
        ("memory", 53_820_000, "53.82 MB"),
        ("memory", 2**10, "1.024 KB"),
        ("memory", 12, "12 B"),
        ("memory", 3e9, "3 GB"),
    ],
)
def test_an_amount_is_shown_in_the_largest_unit_that_fits(cost: str, amount: float, shown: str) -> None:
    assert show_amount(cost, amount) == shown


def test_a_cost_as_a_message_says_it() -> None:
    assert Limit("latency", 1.3, "x").describe(30.123, 1.4118) == "latency 30.12 ms, 1.412x"
    assert Limit("memory", 1, "GiB").describe(2e9, 1.0) == "memory 2 GB, 1.000x"
    assert Limit("latency", 0.9, "x").describe(math.nan, 1.0) == "latency 1.000x"  # without an amount


LIMITS = {"latency": Limit("latency", 1.3, "x"), "params": Limit("params", 30, "M"), "memory": Limit("memory", 2, "x")}
COSTS = {"latency": Cost(30.12, 1.4118), "params": Cost(25_000_000, 1.02), "memory": Cost(250e6, 2.5), "macs": Cost(1e9, 1.0)}


def test_what_every_limit_says() -> None:
    found = evaluate(LIMITS, COSTS)
    assert list(found) == ["max_latency", "max_params", "max_memory"]
    assert found["max_latency"] == {"limit": "1.3x", "amount": 30.12, "ratio": 1.4118, "excess": 1.4118 / 1.3 - 1}
    assert found["max_params"] == {"limit": "30M", "amount": 25_000_000, "ratio": 1.02, "excess": pytest.approx(-1 / 6)}
    assert found["max_memory"]["excess"] == 0.25
    assert evaluate({}, COSTS) == {}


def test_a_constraint_that_is_not_evaluated_is_an_error() -> None:
    for judge in (evaluate, violations):
        with pytest.raises(KeyError, match="macs"):
            judge({**LIMITS, "macs": Limit("macs", 5, "G")}, {k: v for k, v in COSTS.items() if k != "macs"})


def test_what_is_exceeded_is_said() -> None:
    assert violations(LIMITS, COSTS) == [
        "above --max-latency 1.3x: latency 30.12 ms, 1.412x",
        "above --max-memory 2x: memory 250 MB, 2.500x",
    ]
    assert violations({"params": LIMITS["params"]}, COSTS) == []
    assert violations({"latency": Limit("latency", 1.4118, "x")}, COSTS) == []  # at the limit is within it
    assert violations({"macs": Limit("macs", 900, "M")}, COSTS) == ["above --max-macs 900M: macs 1G, 1.000x"]


@given(st.sampled_from(sorted(UNITS)), st.floats(0.01, 1e4), st.floats(0, 1e15), st.floats(0, 1e4))
def test_what_is_above_a_limit_is_violated_and_only_that(cost: str, value: float, amount: float, ratio: float) -> None:
    limit = Limit(cost, value, "x")
    assert bool(violations({cost: limit}, {cost: Cost(amount, ratio)})) == (limit.excess(amount, ratio) > 0) == (ratio / value - 1 > 0)
