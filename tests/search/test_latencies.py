"""The latencies of a host: measured once, kept, predicted where the table is right; on real models and a real database."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from torch import nn

from nasattn.attention import Placement
from nasattn.cli import _run
from nasattn.errors import NasattnError, StudyError
from nasattn.hosts import Host, get_host
from nasattn.latency import Deployment, DeviceLease, LatencyTable, RuntimeFailure
from nasattn.search.appraisal import Appraiser
from nasattn.search.latencies import TABLE_CHECKS, TABLE_ERROR, HostLatencies, find_latencies, measure_space, read_table
from nasattn.search.limits import Limit
from nasattn.space import SearchSpace
from nasattn.store import EvaluationRecord, LatencyRecord, Store
from tests.search.timers import measure

HOST = "nasattn_resnet18"
BRIEF = 0.02  # seconds: how long is measured does not matter here
PLAIN = "none,none,none,none"
STAGES = {
    1: {"none": None, "se": None, "eca": None},
    2: {"none": None, "se": None, "sge": {"groups": [8]}},
    3: {"none": None},
    4: {"none": None},
}
SPACE = SearchSpace.from_dict("tiny", {"host": HOST, "stages": STAGES})
ALL = [(1, "none"), (1, "se"), (1, "eca"), (2, "none"), (2, "se"), (2, "sge_g8"), (3, "none"), (4, "none")]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'latencies.db'}")


def of(store: Store, host: Host | None = None, **deployment: Any) -> HostLatencies:
    return HostLatencies(store, host or get_host(HOST), Deployment(**{"resolution": 32, **deployment}), BRIEF, BRIEF)


def has_measured(latencies: HostLatencies) -> bool:
    """Whether the meter was used: its first act is to calibrate itself."""
    return "calibration" in vars(latencies.meter)


def rows(store: Store) -> tuple[int, int]:
    """How many latencies and entries there are."""
    with store.engine.connect() as connection:
        counts = [connection.scalar(sa.text(f"SELECT COUNT(*) FROM {t}")) for t in ("nasattn_latency", "nasattn_latency_entry")]
    return counts[0], counts[1]


def record(ratio: float, exclusive: bool = True, **values: Any) -> LatencyRecord:
    return LatencyRecord(20 * ratio, 20.0, ratio, 0.99 * ratio, 1.01 * ratio, 9, True, exclusive, **values)


ENTRIES = {(1, "none"): 0.25, (2, "none"): 0.25, (1, "se"): 1.4, (1, "eca"): 1.2, (2, "se"): 1.8, (2, "sge_g8"): 1.6}
CHECKS = {"se,none,none,none": 1.1, "eca,none,none,none": 1.05, "none,se,none,none": 1.2, "none,sge_g8,none,none": 1.15}
NEW = "se,sge_g8,none,none"  # by the table 1 + .25 * .4 + .25 * .6 = 1.25


def prepare(
    store: Store, key: str, checks: Mapping[str, float] = CHECKS, exclusive: bool = True, entries: Mapping[tuple[int, str], float] = ENTRIES
) -> None:
    """Write a table and placements measured end to end, as other runs would have left them."""
    for (stage, attention), ratio in entries.items():
        store.add_entry(key, HOST, stage, attention, record(ratio))
    for placement, ratio in checks.items():
        store.add_architecture(HOST, placement, 1, 2)
        store.add_latency(key, HOST, placement, record(ratio, exclusive))


def test_a_placement_is_measured_once(store: Store) -> None:
    first = of(store)
    number, latency = first.latency(Placement.parse("se,none,none,none"))
    assert latency.method == "pair" and latency.pairs >= 6 and latency.calibration is not None
    assert latency.exclusive == (latency.contention is None)
    assert latency.environment is not None and latency.environment["cores"] == os.cpu_count()
    assert set(store.entries(first.key, HOST)) == {(1, "none"), (1, "se")}  # only what its prediction needs
    assert rows(store) == (1, 2)
    assert first.latency(Placement.parse("se,none,none,none")) == (number, latency)
    second = of(store)
    assert second.latency(Placement.parse("se,none,none,none")) == (number, latency)
    assert not has_measured(second)
    assert rows(store) == (1, 2)


def test_entries_are_shared_among_placements(store: Store) -> None:
    of(store).fill(Placement.parse("se,none,none,none"))
    second = of(store)
    second.fill(Placement.parse("se,se,none,none"))
    assert rows(store) == (0, 4)
    third = of(store)
    third.fill(Placement.parse("none,se,none,none"))
    assert not has_measured(third) and rows(store) == (0, 4)


def test_the_plain_host_is_one_by_definition(store: Store) -> None:
    _, latency = of(store).latency(Placement.parse(PLAIN))
    assert (latency.ratio, latency.ratio_low, latency.ratio_high, latency.method) == (1.0, 1.0, 1.0, "pair")
    assert rows(store) == (1, 0)


def test_parameters_are_counted_once_at_the_hosts_resolution(store: Store) -> None:
    placement = Placement.parse(PLAIN)
    assert of(store).count(placement) == (11_689_512, 1_814_073_344)
    store.add_architecture(HOST, "se,none,none,none", 3, 4)
    assert of(store).count(Placement.parse("se,none,none,none")) == (3, 4)


def test_a_table_that_proved_right_is_trusted(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key)
    number, latency = latencies.latency(Placement.parse(NEW))
    assert (latency.method, latency.pairs, latency.exclusive) == ("table", 0, True)
    assert (latency.ratio, latency.baseline_ms, latency.ms) == pytest.approx((1.25, 20.0, 25.0))
    assert latency.ratio_low < 1.25 < latency.ratio_high
    assert not has_measured(latencies)
    assert store.find_latency(latencies.key, HOST, NEW, method="table") == (number, latency)
    assert store.find_latency(latencies.key, HOST, NEW) is None


def test_what_was_measured_goes_before_what_is_predicted(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key)
    _, latency = latencies.latency(Placement.parse("none,se,none,none"))
    assert latency == record(1.2) and not has_measured(latencies)


@pytest.mark.parametrize("wrong", [1.2, 0.8])
def test_a_table_that_proved_wrong_is_not(store: Store, wrong: float) -> None:
    latencies = of(store)
    prepare(store, latencies.key, {placement: wrong * ratio for placement, ratio in CHECKS.items()})
    _, latency = latencies.latency(Placement.parse(NEW))
    assert latency.method == "pair" and has_measured(latencies)


def test_one_placement_that_is_far_off_does_not_condemn_the_table(store: Store) -> None:
    """The median counts."""
    latencies = of(store)
    prepare(store, latencies.key, {**CHECKS, "none,sge_g8,none,none": 3.0})
    assert latencies.latency(Placement.parse(NEW))[1].method == "table"


@pytest.mark.parametrize("off", [0.9, 1.1])
def test_the_error_that_is_allowed(store: Store, off: float) -> None:
    latencies = of(store)
    prepare(store, latencies.key, {placement: ratio / (1 + off * TABLE_ERROR) for placement, ratio in CHECKS.items()})
    assert latencies.latency(Placement.parse(NEW))[1].method == ("table" if off < 1 else "pair")


def test_a_table_is_checked_often_enough(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key, dict(list(CHECKS.items())[: TABLE_CHECKS - 1]))
    assert latencies.latency(Placement.parse(NEW))[1].method == "pair"


def test_what_was_measured_on_a_shared_device_checks_nothing(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key, exclusive=False)
    _, error = read_table(store, latencies.key, HOST)
    assert error is None
    assert latencies.latency(Placement.parse(NEW))[1].method == "pair"


def test_the_plain_host_and_predictions_check_nothing(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key, {**dict(list(CHECKS.items())[:2]), PLAIN: 1.0})
    store.add_architecture(HOST, NEW, 1, 2)
    store.add_latency(latencies.key, HOST, NEW, record(1.25, method="table"))
    table, error = read_table(store, latencies.key, HOST)
    assert error is not None and error.placements == 2
    assert table.error == pytest.approx(0, abs=1e-6)


def test_the_tables_error_widens_what_it_predicts(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key, {placement: 1.04 * ratio for placement, ratio in CHECKS.items()})
    table, _ = read_table(store, latencies.key, HOST)
    assert table.error == pytest.approx(math.log(1.04))
    _, latency = latencies.latency(Placement.parse(NEW))
    sure = LatencyTable(table.entries).predict(Placement.parse(NEW))
    assert latency.ratio_high > sure.ratio_high * 1.02 and latency.ratio_low < sure.ratio_low / 1.02


def test_another_deployment_is_another_key(store: Store) -> None:
    keys = {of(store, **d).key for d in ({}, {"batch": 2}, {"resolution": 64}, {"threads": 2}, {"channels_last": True})}
    assert len(keys) == 5
    prepare(store, of(store).key)
    assert of(store, batch=2).predicted(Placement.parse(NEW)) is None
    assert read_table(store, of(store, batch=2).key, HOST)[1] is None


def test_predicted_measures_and_asks_nothing(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key)
    assert latencies.predicted(Placement.parse(NEW)) is None  # nothing was looked up yet
    latencies.fill(Placement.parse(NEW))
    predicted = latencies.predicted(Placement.parse(NEW))
    assert predicted is not None and predicted.ratio == pytest.approx(1.25)
    assert not has_measured(latencies)


def test_a_table_that_proved_wrong_predicts_nothing(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key, {placement: 0.8 * ratio for placement, ratio in CHECKS.items()})
    latencies.fill(Placement.parse(NEW))
    assert latencies.predicted(Placement.parse(NEW)) is None
    assert latencies.stages_ratio(Placement.parse(NEW)) == pytest.approx(1.25)  # which says what is cheaper, not how cheap
    limits = {"latency": Limit.parse("latency", "1.2x")}
    assert not Appraiser(store, HOST, Deployment(resolution=32), limits, BRIEF).is_ruled_out(Placement.parse(NEW))


def test_a_prediction_is_kept_once(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key)
    first = latencies.latency(Placement.parse(NEW))
    assert [latencies.latency(Placement.parse(NEW)), of(store).latency(Placement.parse(NEW))] == [first, first]
    store.add_entry(latencies.key, HOST, 2, "sge_g8", record(2.0))
    changed, latency = of(store).latency(Placement.parse(NEW))
    assert changed != first[0] and latency.ratio == pytest.approx(1.35)


def test_what_cannot_run_is_told_and_not_stored(store: Store, broken_attention: str) -> None:
    latencies = of(store)
    for _ in range(2):  # the second time from memory
        with pytest.raises(RuntimeFailure, match=r"cannot run Stage\(1: broken\): RuntimeError: no kernel for this"):
            latencies.latency(Placement.parse("broken,se,none,none"))
    assert not store.latencies(latencies.key, HOST)
    assert (1, "broken") not in store.entries(latencies.key, HOST)


class Tangled(Host):
    """ResNet-18 that names the blocks of its stages in another order than they run in."""

    def stage_blocks(self, model: nn.Module) -> Any:
        return [list(reversed(blocks)) for blocks in super().stage_blocks(model)]


def test_a_host_that_has_no_table_is_measured_end_to_end(store: Store) -> None:
    plain = get_host(HOST)
    host = Tangled(plain.name, plain.family, plain.plain_model, plain.resolution)
    latencies = of(store, host)
    with pytest.raises(NasattnError, match="stage 1 of nasattn_resnet18 cannot be run by itself"):
        latencies.fill(Placement.parse(NEW))
    for placement in (NEW, "se,none,none,none"):
        assert latencies.latency(Placement.parse(placement))[1].method == "pair"
    assert rows(store) == (2, 0)
    with pytest.raises(NasattnError, match="cannot be run by itself"):
        measure_space(latencies, SPACE, 0, 0, lambda *_: None)


KEYS = [f"{cpu} | eager-torch2.15.0 | batch {batch} | 32 px" for cpu in ("Intel Xeon", "AMD EPYC") for batch in (1, 8)]


def trials(*placements: str) -> list[EvaluationRecord]:
    latency = record(9.0)
    return [EvaluationRecord(n, p, "COMPLETE", 0, 1, 2, {}, p, latency, accuracy=0.5, val_samples=100) for n, p in enumerate(placements)]


def test_trials_with_their_latencies_on_another_device(store: Store) -> None:
    prepare(store, KEYS[0])
    prepare(store, KEYS[2], {"se,none,none,none": 1.9})
    asked = trials("se,none,none,none", NEW, PLAIN, "none,none,se,none")
    measured, predicted, plain, unknown = find_latencies(store, HOST, KEYS[0], asked)
    assert measured == replace(asked[0], latency=record(1.1))
    assert predicted.latency is not None and predicted.latency.method == "table"
    assert predicted.latency.ratio == pytest.approx(1.25)
    assert plain.latency is not None and plain.latency.ratio == 1.0
    assert unknown == replace(asked[3], latency=None)
    there = find_latencies(store, HOST, KEYS[2], asked)
    assert there[0].latency == record(1.9)
    assert find_latencies(store, HOST, KEYS[0], []) == []


def test_a_prediction_from_what_was_shared_is_shared(store: Store) -> None:
    prepare(store, KEYS[0])
    store.add_entry(KEYS[0], HOST, 2, "sge_g8", record(1.6, exclusive=False))
    shared, exclusive = find_latencies(store, HOST, KEYS[0], trials(NEW, "eca,se,none,none"))
    assert shared.latency is not None and not shared.latency.exclusive
    assert exclusive.latency is not None and exclusive.latency.exclusive


@pytest.mark.parametrize("device", [KEYS[0], "Intel", "intel xeon", "XEON | eager-torch2.15.0 | batch 1"])
def test_a_device_by_its_key_or_by_a_part_of_it(store: Store, device: str) -> None:
    for key in (KEYS[0], KEYS[2]):
        prepare(store, key)
    (found,) = find_latencies(store, HOST, device, trials("se,none,none,none"))
    assert found.latency == record(1.1)


def test_a_whole_key_that_is_a_part_of_another(store: Store) -> None:
    longer = f"{KEYS[0]} | channels_last"
    prepare(store, KEYS[0])
    prepare(store, longer, {"se,none,none,none": 1.9})
    assert find_latencies(store, HOST, KEYS[0], trials("se,none,none,none"))[0].latency == record(1.1)
    assert find_latencies(store, HOST, "channels_last", trials("se,none,none,none"))[0].latency == record(1.9)


def test_devices_that_cannot_be_told(store: Store) -> None:
    def refused(device: str) -> str:
        with pytest.raises(StudyError) as caught:
            find_latencies(store, HOST, device, trials(PLAIN))
        return str(caught.value)

    assert refused("Intel") == (
        "no latency of nasattn_resnet18 is measured in this database: fill it with `nasattn latency --space SPACE --storage URL`"
    )
    for key in KEYS:
        store.add_entry(key, HOST, 1, "se", record(1.1))
    way_out = ": give one of them, or a part that fits it alone"
    assert refused("Intel") == f"'Intel' fits 2 device keys: there are {KEYS[0]}; {KEYS[1]}{way_out}"
    assert refused("batch") == f"'batch' fits 4 device keys: there are {'; '.join(sorted(KEYS))}{way_out}"
    assert refused("tpu") == f"no device key 'tpu': there are {'; '.join(sorted(KEYS))}{way_out}"


def make_exclusive(store: Store, key: str) -> None:
    """What was measured here, on a machine that may be busy, as if nothing else had run."""
    for (stage, attention), entry in store.entries(key, HOST).items():
        if not entry.exclusive:
            store.add_entry(key, HOST, stage, attention, replace(entry, exclusive=True, contention=None))
    for placement, latency in store.latencies(key, HOST).items():
        if not latency.exclusive:
            store.add_latency(key, HOST, placement, replace(latency, exclusive=True, contention=None))


def test_a_space_is_measured_whole_and_once(store: Store) -> None:
    notes: list[tuple[int, int, str]] = []
    latencies = of(store)
    found = measure_space(latencies, SPACE, 2, 0, lambda *note: notes.append(note))
    assert (found.space, found.key, found.failures) == (SPACE, latencies.key, {})
    assert set(found.table.entries) == set(store.entries(latencies.key, HOST)) == set(ALL)
    assert [what for _, _, what in notes[:8]] == [f"stage {stage}: {attention}" for stage, attention in ALL]
    assert [what.partition(":")[0] for _, _, what in notes[8:]] == ["end to end", "end to end", ""]
    assert [(done, total) for done, total, _ in notes] == [(done, 10) for done in range(11)]
    measured = store.latencies(latencies.key, HOST)
    assert all(Placement.parse(text) in SPACE for text in measured)

    make_exclusive(store, latencies.key)
    before, notes, again = rows(store), [], of(store)
    second = measure_space(again, SPACE, 2, 0, lambda *note: notes.append(note))
    assert not has_measured(again) and rows(store) == before
    assert [total for _, total, _ in notes] == [2, 2, 2]
    assert set(second.table.entries) == set(ALL)

    measure_space(of(store), SPACE, 6, 1, lambda *_: None)  # other placements: measured, the entries are not
    assert rows(store)[0] > before[0] and rows(store)[1] == before[1]


def test_what_is_new_in_a_space_is_measured(store: Store) -> None:
    latencies = of(store)
    for entry in ALL:
        store.add_entry(latencies.key, HOST, *entry, record(1.1))
    wider = SearchSpace.from_dict("wider", {"host": HOST, "stages": {**STAGES, 4: {"none": None, "gc": None}}})
    measure_space(latencies, wider, 0, 0, lambda *_: None)
    assert rows(store)[1] == len(ALL) + 1
    assert set(store.entries(latencies.key, HOST)) == {*ALL, (4, "gc")}


def test_what_was_shared_is_measured_again(store: Store) -> None:
    latencies = of(store)
    for entry in ALL:
        store.add_entry(latencies.key, HOST, *entry, record(17.0, exclusive=entry != (2, "se")))
    found = measure_space(latencies, SPACE, 0, 0, lambda *_: None)
    assert rows(store)[1] == len(ALL) + 1
    assert found.table.entries[2, "se"].ratio != 17.0 and found.table.entries[1, "se"].ratio == 17.0


def test_a_disturbed_check_is_measured_again(store: Store) -> None:
    latencies = of(store)
    measure_space(latencies, SPACE, 2, 0, lambda *_: None)
    checks = store.latencies(latencies.key, HOST)
    assert len(checks) == 2 and PLAIN not in checks
    for placement in checks:
        store.add_latency(latencies.key, HOST, placement, record(17.0, exclusive=False))
    measure_space(latencies, SPACE, 2, 0, lambda *_: None)
    assert {p: r.ratio != 17.0 for p, r in store.latencies(latencies.key, HOST).items()} == dict.fromkeys(checks, True)


def test_the_shares_are_measured_where_the_space_does_not_offer_none(store: Store) -> None:
    space = SearchSpace.from_dict("full", {"host": HOST, "stages": {"all": {"eca": None}}})
    found = measure_space(of(store), space, 1, 0, lambda *_: None)
    assert set(found.table.entries) == {(n, a) for n in (1, 2, 3, 4) for a in ("none", "eca")}
    assert list(store.latencies(found.key, HOST)) == ["eca,eca,eca,eca"]


def test_the_error_of_a_space_is_that_of_all_that_was_measured(store: Store) -> None:
    latencies = of(store)
    prepare(store, latencies.key)
    for stage in (3, 4):
        store.add_entry(latencies.key, HOST, stage, "none", record(0.25))
    found = measure_space(latencies, SPACE, 0, 0, lambda *_: None)
    assert found.error is not None
    assert (found.error.placements, found.error.kendall) == (4, pytest.approx(1.0))
    assert found.error.worst == pytest.approx(0, abs=1e-6)
    assert not has_measured(latencies)


def test_failures_are_reported_not_stored(store: Store, broken_attention: str) -> None:
    space = SearchSpace.from_dict(
        "broken", {"host": HOST, "stages": {1: {"none": None, "broken": None}, "all": {"none": None, "broken": None, "se": None}}}
    )
    latencies = of(store)
    found = measure_space(latencies, space, 3, 0, lambda *_: None)
    assert {key: why.rpartition(": ")[2] for key, why in found.failures.items()} == {
        (n, "broken"): "no kernel for this" for n in (1, 2, 3, 4)
    }
    assert set(found.table.entries) == {*((n, "none") for n in (1, 2, 3, 4)), *((n, "se") for n in (2, 3, 4))}
    assert not any("broken" in placement for placement in store.latencies(latencies.key, HOST))


@pytest.fixture
def space_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(f"host: {HOST}\nstages: {{1: {{none: , se: }}, 2: {{none: }}, 3: {{none: }}, 4: {{none: }}}}")
    return str(path)


REQUIRED = ("host", "device_key", "stage", "attention", "ms", "baseline_ms", "ratio", "ratio_low", "ratio_high", "pairs", "settled", "exclusive", "measured_at")  # fmt: skip


def read_entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM nasattn_latency_entry ORDER BY id")]
    except sqlite3.OperationalError:  # its tables are not there yet
        return []
    finally:
        connection.close()


@pytest.mark.slow
def test_a_killed_process_leaves_only_whole_entries(tmp_path: Path, space_file: str) -> None:
    path = tmp_path / "killed.db"
    command = ["latency", "--space", space_file, "--storage", f"sqlite:///{path}", "--resolution", "32", "--held-out", "0"]
    process = subprocess.Popen([sys.executable, "-m", "nasattn", *command], stdout=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(read_entries(path)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was at work
    left = read_entries(path)
    assert 2 <= len(left) < 5
    for entry in left:
        assert all(entry[name] is not None for name in REQUIRED)
        assert 0 < entry["ratio_low"] <= entry["ratio"] <= entry["ratio_high"] < math.inf
        assert entry["pairs"] >= 6 and entry["exclusive"] == (entry["contention"] is None)
    assert _run(command) == 0
    after = read_entries(path)
    assert after[: len(left)] == left
    assert {(e["stage"], e["attention"]) for e in after} == {(1, "none"), (1, "se"), (2, "none"), (3, "none"), (4, "none")}
    for entry in left:
        again = [e for e in after if (e["stage"], e["attention"]) == (entry["stage"], entry["attention"])]
        assert len(again) == (1 if entry["exclusive"] else 2)  # what was shared is measured again


@pytest.mark.slow
def test_two_processes_never_time_at_the_same_moment(tmp_path: Path, space_file: str) -> None:
    """Both come to the door while it is shut, so that they want the device at the same time from then on."""
    url, logs = f"sqlite:///{tmp_path / 'both.db'}", [tmp_path / "one.json", tmp_path / "two.json"]
    lease = DeviceLease("cpu", tmp_path / f"nasattn-{os.getuid()}")
    context = multiprocessing.get_context("forkserver")  # imports torch once for both
    context.set_forkserver_preload(["tests.search.timers"])
    at_the_door = context.Semaphore(0)
    processes = [context.Process(target=measure, args=(space_file, url, str(log), str(tmp_path), at_the_door), daemon=True) for log in logs]
    with lease.alone():
        for process in processes:
            process.start()
        assert all(at_the_door.acquire(timeout=120) for _ in processes)
        opened = time.monotonic()
    lease.close()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    both = [json.loads(log.read_text()) for log in logs]
    assert all(len(held) >= 6 for held in both)  # the calibration, four shares, one attention
    assert all(asked < opened <= got for (asked, got, _), *_ in both)
    hours = sorted((got, left) for held in both for _, got, left in held)
    assert all(left <= got for (_, left), (got, _) in pairwise(hours))
    entries = read_entries(tmp_path / "both.db")
    assert {(e["stage"], e["attention"]) for e in entries} == {(1, "none"), (1, "se"), (2, "none"), (3, "none"), (4, "none")}
