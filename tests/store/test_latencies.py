"""Latencies in the store, on SQLite and on PostgreSQL: of placements, of the table's entries, and on which devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import sqlalchemy as sa

from nasattn.errors import StorageError
from nasattn.store import LatencyRecord, Store

HOST, OTHER = "nasattn_resnet50", "nasattn_resnet18"
PLAIN, SGE, SB = "none,none,none,none", "none,sge_g32,none,none", "sb,sb,sb,sb"
MEASURED = LatencyRecord(ms=30.25, baseline_ms=27.5, ratio=1.1, ratio_low=1.0875, ratio_high=1.125, pairs=12, settled=True, exclusive=True)
WHOLE = LatencyRecord(
    30.25, 27.5, 1.1, 1.0875, 1.125, 12, False, False, "pair", 31.5, 28.5, 29.75, 27.25, -0.0125, "größer: 100 % of a core", {"cores": 2, "cpu_mhz": 2400.5}
)  # fmt: skip
PREDICTED = LatencyRecord(31.0, 27.5, 1.127, 1.1, 1.15, 0, True, True, "table")


@pytest.fixture
def counted(store: Store) -> Store:
    """A store that knows some architectures."""
    for host in (HOST, OTHER):
        for placement in (PLAIN, SGE, SB):
            store.add_architecture(host, placement, 1, 2)
    return store


def test_every_field_has_a_value_other_than_its_default() -> None:
    assert all(getattr(WHOLE, f.name) != f.default for f in fields(WHOLE) if f.name != "method")


@pytest.mark.parametrize("record", [MEASURED, WHOLE, PREDICTED], ids=["few", "all", "predicted"])
def test_a_latency_comes_back_as_it_went_in(counted: Store, record: LatencyRecord) -> None:
    number = counted.add_latency("a cpu", HOST, SGE, record)
    assert counted.find_latency("a cpu", HOST, SGE, method=record.method) == (number, record)


def test_a_prediction_is_not_taken_for_a_measurement(counted: Store) -> None:
    predicted = counted.add_latency("a cpu", HOST, SGE, PREDICTED)
    assert counted.find_latency("a cpu", HOST, SGE) is None
    assert counted.find_latency("a cpu", HOST, SGE, method="table") == (predicted, PREDICTED)
    assert counted.latencies("a cpu", HOST) == {}
    measured = counted.add_latency("a cpu", HOST, SGE, MEASURED)
    counted.add_latency("a cpu", HOST, SGE, PREDICTED)  # later, and still no measurement
    assert counted.find_latency("a cpu", HOST, SGE) == (measured, MEASURED)
    assert counted.latencies("a cpu", HOST) == {SGE: MEASURED}


def test_the_latest_counts(counted: Store) -> None:
    records = [replace(MEASURED, ratio=r) for r in (1.5, 1.25, 1.75)]
    numbers = [counted.add_latency("a cpu", HOST, SGE, r) for r in records]
    assert numbers == sorted(set(numbers))
    assert counted.find_latency("a cpu", HOST, SGE) == (numbers[-1], records[-1])
    assert counted.latencies("a cpu", HOST) == {SGE: records[-1]}


def test_latencies_of_a_device_and_a_host(counted: Store) -> None:
    counted.add_latency("a cpu", HOST, SGE, MEASURED)
    counted.add_latency("a cpu", HOST, PLAIN, WHOLE)
    counted.add_latency("a gpu", HOST, SGE, replace(MEASURED, ratio=3.0))
    counted.add_latency("a cpu", OTHER, SB, replace(MEASURED, ratio=4.0))
    assert counted.latencies("a cpu", HOST) == {SGE: MEASURED, PLAIN: WHOLE}
    assert counted.latencies("a gpu", HOST) == {SGE: replace(MEASURED, ratio=3.0)}
    assert counted.latencies("a cpu", OTHER) == {SB: replace(MEASURED, ratio=4.0)}
    assert counted.latencies("a gpu", OTHER) == counted.latencies("no such device", HOST) == {}
    assert counted.find_latency("a gpu", OTHER, SB) is None


def test_entries_come_back_as_they_went_in(store: Store) -> None:
    """They need no architecture: a stage by itself has none."""
    assert store.entries("a cpu", HOST) == {}
    store.add_entry("a cpu", HOST, 1, "none", MEASURED)
    store.add_entry("a cpu", HOST, 1, "sge_g32@last", WHOLE)
    store.add_entry("a cpu", HOST, 4, "sge_g32@last", replace(MEASURED, ratio=2.0))
    expected = {(1, "none"): MEASURED, (1, "sge_g32@last"): WHOLE, (4, "sge_g32@last"): replace(MEASURED, ratio=2.0)}
    assert store.entries("a cpu", HOST) == {key: replace(record, method="table") for key, record in expected.items()}


def test_the_latest_entry_counts(store: Store) -> None:
    for ratio, exclusive in ((1.5, True), (1.25, False), (1.75, True)):
        store.add_entry("a cpu", HOST, 2, "se", replace(MEASURED, ratio=ratio, exclusive=exclusive))
    (entry,) = store.entries("a cpu", HOST).values()
    assert (entry.ratio, entry.exclusive) == (1.75, True)


def test_entries_belong_to_a_device_and_a_host(store: Store) -> None:
    store.add_entry("a cpu", HOST, 2, "se", MEASURED)
    assert store.entries("a gpu", HOST) == store.entries("a cpu", OTHER) == {}
    assert store.latencies("a cpu", HOST) == {}


def test_device_keys(counted: Store) -> None:
    assert counted.device_keys(HOST) == []
    counted.add_latency("b gpu", HOST, SGE, MEASURED)
    counted.add_latency("b gpu", HOST, SB, MEASURED)
    counted.add_entry("a cpu", HOST, 2, "se", MEASURED)
    counted.add_entry("b gpu", HOST, 2, "se", MEASURED)
    counted.add_latency("c cpu", HOST, SGE, PREDICTED)
    counted.add_entry("d cpu", OTHER, 2, "se", MEASURED)
    assert counted.device_keys(HOST) == ["a cpu", "b gpu", "c cpu"]
    assert counted.device_keys(OTHER) == ["d cpu"]
    assert counted.device_keys("van_b0") == []


def test_another_connection_sees_it_at_once(url: str, counted: Store, open_store: Callable[..., Store]) -> None:
    other = open_store(url, create=False)
    counted.add_entry("a cpu", HOST, 2, "se", MEASURED)
    number = counted.add_latency("a cpu", HOST, SGE, WHOLE)
    assert list(other.entries("a cpu", HOST)) == [(2, "se")]
    assert other.find_latency("a cpu", HOST, SGE) == (number, WHOLE)


@pytest.mark.parametrize("name", ["ms", "ratio", "pairs", "exclusive"])
def test_a_measurement_is_written_whole_or_not_at_all(counted: Store, name: str) -> None:
    broken = replace(MEASURED, **{name: None})  # type: ignore[arg-type]
    for write in (
        lambda: counted.add_entry("a cpu", HOST, 2, "se", broken),
        lambda: counted.add_latency("a cpu", HOST, SGE, broken),
    ):
        with pytest.raises(StorageError, match="failed: "):
            write()
    assert counted.entries("a cpu", HOST) == counted.latencies("a cpu", HOST) == {}


def test_a_latency_needs_its_architecture(store: Store) -> None:
    with pytest.raises(sa.exc.NoResultFound):
        store.add_latency("a cpu", HOST, SGE, MEASURED)
    assert store.device_keys(HOST) == []
