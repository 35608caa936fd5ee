"""A database of an earlier release is brought forward, and nothing that it holds is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import nasattn.store
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord
from nasattn.store.database import SCHEMA_HEAD, VERSION_TABLE

HOST, PLACEMENT, DEVICE = "nasattn_resnet18", "none,sge_g32,none,none", "A CPU | eager | batch 1"
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = {"space": {"host": HOST, "stages": {}}, "task": "digits", "batch": 4}
# what the first release wrote, column by column
ROWS = {
    "nasattn_study": {"name": "old", "config": CONFIG, "versions": {"torch": "2.14.0"}, "seed": 7, "created_at": THEN},
    "nasattn_architecture": {"host": HOST, "placement": PLACEMENT, "params": 11_689_608, "macs": 1_814_073_344},
    "nasattn_latency": {
        "architecture_id": 1, "device_key": DEVICE, "ms": 33.0, "baseline_ms": 30.0, "ratio": 1.1, "ratio_low": 1.09, "ratio_high": 1.12,
        "pairs": 9, "settled": True, "exclusive": True, "measured_at": THEN,
    },
    "nasattn_evaluation": {
        "study_id": 1, "trial": 0, "architecture_id": 1, "latency_id": 1, "identity": "a" * 64, "state": "COMPLETE", "seed": 7,
        "fidelity": {"epochs": 2}, "accuracy": 0.75, "val_samples": 2000, "curve": [{"epoch": 1}], "seconds": 8.5, "worker": "here:1",
        "error": None, "reused_from": None, "started_at": THEN, "finished_at": THEN,
    },
    "nasattn_front": {"study_id": 1, "trial": 0, "tier": "provisional", "p_member": 0.875, "updated_at": THEN},
}  # fmt: skip


def make_old(url: str, revision: str, rows: dict[str, dict[str, Any]]) -> None:
    """A database at *revision* with *rows*, made as the release of that time made it."""
    config = Config()
    config.set_main_option("script_location", str(Path(nasattn.store.__file__).parent / "migrations"))
    config.set_main_option("version_table", VERSION_TABLE)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.begin() as connection:
        for name, row in rows.items():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            assert set(row) == {column.name for column in table.columns} - {"id"}
            connection.execute(table.insert(), row)
    engine.dispose()


@pytest.fixture
def old(url: str, open_store: Callable[..., Store]) -> Store:
    """A database of schema 0001 with a study of one trial, opened by this release."""
    make_old(url, "0001", ROWS)
    return open_store(url, create=False)


def test_an_old_database_is_brought_to_the_head(old: Store) -> None:
    with old.engine.connect() as connection:
        assert connection.scalars(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).all() == [SCHEMA_HEAD]
        assert {"nasattn_latency_entry", "nasattn_report"} <= set(sa.inspect(connection).get_table_names())


def test_what_it_held_is_read_back(old: Store) -> None:
    assert [s.name for s in old.studies()] == ["old"]
    study = old.study("old")
    assert (study.config, study.versions, study.seed) == (CONFIG, {"torch": "2.14.0"}, 7)
    assert old.find_architecture(HOST, PLACEMENT) == (11_689_608, 1_814_073_344)
    latency = LatencyRecord(33.0, 30.0, 1.1, 1.09, 1.12, 9, True, True)
    assert old.find_latency(DEVICE, HOST, PLACEMENT) == (1, latency)
    (evaluation,) = old.evaluations("old")
    assert evaluation == EvaluationRecord(
        0, PLACEMENT, "COMPLETE", 7, 11_689_608, 1_814_073_344, {"epochs": 2}, "a" * 64, latency, 0.75, 2000, [{"epoch": 1}], 8.5, "here:1",
        id=1, started_at=evaluation.started_at, finished_at=evaluation.finished_at,
    )  # fmt: skip
    assert old.find_evaluation("a" * 64) == evaluation
    assert old.front("old") == [(0, "provisional", 0.875)]


def test_times_of_an_old_database_are_kept(old: Store) -> None:
    study, (evaluation,) = old.study("old"), old.evaluations("old")
    for moment in (study.created_at, evaluation.started_at, evaluation.finished_at):
        assert moment is not None and moment.utcoffset() is not None
        assert moment == THEN


def test_what_the_first_release_did_not_know_takes_its_default(old: Store) -> None:
    found = old.find_latency(DEVICE, HOST, PLACEMENT)
    assert found is not None
    latency = found[1]
    assert latency.method == "pair"
    for name in ("ms_p90", "baseline_ms_p90", "device_ms", "baseline_device_ms", "calibration", "contention", "environment"):
        assert getattr(latency, name) is None
    assert old.evaluations("old")[0].constraints is None
    assert old.latencies(DEVICE, HOST) == {PLACEMENT: latency}
    assert old.find_latency(DEVICE, HOST, PLACEMENT, method="table") is None
    assert old.entries(DEVICE, HOST) == {}
    assert old.device_keys(HOST) == [DEVICE]


def test_an_old_database_goes_on(old: Store) -> None:
    """New rows of every kind stand beside the old ones."""
    record = LatencyRecord(3.0, 2.0, 1.5, 1.4, 1.6, 0, True, True, "table", 3.1, 2.1, None, None, 0.01, "a browser", {"cores": 2})
    first = old.add_latency(DEVICE, HOST, PLACEMENT, record)
    assert first > 1
    assert old.find_latency(DEVICE, HOST, PLACEMENT, method="table") == (first, record)
    old.add_entry(DEVICE, HOST, 2, "sge_g32", record)
    assert list(old.entries(DEVICE, HOST)) == [(2, "sge_g32")]
    old.set_constraints(1, {"max_latency": {"excess": -0.1}})
    assert old.evaluations("old")[0].constraints == {"max_latency": {"excess": -0.1}}
    assert old.report("old", "proxy") is None
    old.save_report("old", "proxy", {"tau": 0.5})
    report = old.report("old", "proxy")
    assert report is not None and report.content == {"tau": 0.5}
    old.add_study(StudyRecord("new", CONFIG, {}, 0))
    assert [s.name for s in old.studies()] == ["old", "new"]


def test_an_old_database_is_brought_forward_once(old: Store, url: str, open_store: Callable[..., Store]) -> None:
    before = old.evaluations("old")
    again = open_store(url, create=False)
    assert again.evaluations("old") == before


# what the second release added to the rows of the first
MEASURED = {"ms_p90": 34.0, "baseline_ms_p90": 31.0, "device_ms": None, "baseline_device_ms": None, "calibration": 0.01, "contention": None,
            "environment": {"cores": 2}}  # fmt: skip
SECOND_ROWS = {
    **ROWS,
    "nasattn_latency": {**ROWS["nasattn_latency"], **MEASURED, "method": "pair"},
    "nasattn_evaluation": {**ROWS["nasattn_evaluation"], "constraints": {"max_latency": {"excess": 0.1}}},
    "nasattn_latency_entry": {
        "host": HOST, "device_key": DEVICE, "stage": 2, "attention": "se", "ms": 12.0, "baseline_ms": 10.0, "ratio": 1.2, "ratio_low": 1.1,
        "ratio_high": 1.3, "pairs": 5, "settled": True, "exclusive": False, "measured_at": THEN, **MEASURED,
    },
}  # fmt: skip


def test_a_database_of_the_second_schema_is_brought_to_the_head(url: str, open_store: Callable[..., Store]) -> None:
    make_old(url, "0002", SECOND_ROWS)
    old = open_store(url, create=False)
    with old.engine.connect() as connection:
        assert connection.scalars(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).all() == [SCHEMA_HEAD]
    latency = LatencyRecord(33.0, 30.0, 1.1, 1.09, 1.12, 9, True, True, "pair", 34.0, 31.0, None, None, 0.01, None, {"cores": 2})
    assert old.find_latency(DEVICE, HOST, PLACEMENT) == (1, latency)
    (evaluation,) = old.evaluations("old")
    assert (evaluation.accuracy, evaluation.latency, evaluation.constraints) == (0.75, latency, {"max_latency": {"excess": 0.1}})
    assert {k: (e.ratio, e.exclusive, e.environment) for k, e in old.entries(DEVICE, HOST).items()} == {
        (2, "se"): (1.2, False, {"cores": 2})
    }
    assert old.front("old") == [(0, "provisional", 0.875)]
    old.save_report("old", "proxy", {"tau": 0.5})
    report = old.report("old", "proxy")
    assert report is not None and (report.study, report.content) == ("old", {"tau": 0.5})
