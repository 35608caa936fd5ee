"""The schema: migrations make what the models say, and Optuna's own tables live beside it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import nasattn.store
from nasattn.errors import StorageError
from nasattn.store import Store
from nasattn.store.database import SCHEMA_HEAD, VERSION_TABLE
from nasattn.store.models import Base

optuna.logging.set_verbosity(optuna.logging.WARNING)


def version(store: Store, table: str = VERSION_TABLE) -> list[str]:
    with store.engine.connect() as connection:
        return list(connection.scalars(sa.text(f"SELECT version_num FROM {table}")))


def test_the_newest_migration_is_the_schema_that_the_store_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(nasattn.store.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_HEAD]


def test_migrations_make_exactly_the_models(store: Store) -> None:
    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or str(name).startswith("nasattn_")

    options = {"version_table": VERSION_TABLE, "include_name": ours, "compare_type": True, "compare_server_default": True}
    assert store.optuna is not None  # its tables are none of our business
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        assert set(Base.metadata.tables) <= set(sa.inspect(connection).get_table_names())
    assert version(store) == [SCHEMA_HEAD]


def test_opening_again_changes_nothing(url: str, open_store: Callable[..., Store]) -> None:
    first = open_store(url)
    with first.engine.connect() as connection:
        before = sorted(sa.inspect(connection).get_table_names())
    second = open_store(url)
    with second.engine.connect() as connection:
        assert sorted(sa.inspect(connection).get_table_names()) == before
    assert version(second) == [SCHEMA_HEAD]


@pytest.mark.parametrize("optuna_first", [False, True])
def test_optuna_in_the_same_database(url: str, open_store: Callable[..., Store], optuna_first: bool) -> None:
    """Optuna keeps its migration state in `alembic_version`; ours has a table of its own, whoever comes first."""
    if optuna_first:
        theirs = optuna.storages.RDBStorage(url)
        optuna.create_study(study_name="older", storage=theirs)
        theirs.engine.dispose()
    store = open_store(url)
    study = optuna.create_study(study_name="one", storage=store.optuna, directions=["maximize", "minimize"])
    trial = study.ask()
    trial.suggest_categorical("stage1", ["none", "sge"])
    study.tell(trial, [0.5, 1.1])
    assert version(store) == [SCHEMA_HEAD]
    assert version(store, "alembic_version") == [store.optuna.get_head_version()]
    assert store.optuna.get_current_version() == store.optuna.get_head_version()

    again = open_store(url, create=False)
    assert optuna.load_study(study_name="one", storage=again.optuna).best_trials[0].values == [0.5, 1.1]
    assert len(again.optuna.get_all_studies()) == 1 + optuna_first
    assert again.studies() == []


OPEN = """
import sys, time
import alembic.command
from nasattn.store import Store
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
Store(sys.argv[1])
"""


def test_several_processes_may_open_a_new_database_at_once(url: str, open_store: Callable[..., Store]) -> None:
    moment = str(time.time() + 2)
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, url, moment], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(p.communicate()[1], p.returncode) for p in processes] == [("", 0)] * 3
    assert version(open_store(url, create=False)) == [SCHEMA_HEAD]


def test_a_migration_happens_whole_or_not_at_all(url: str, open_store: Callable[..., Store]) -> None:
    """A driver that dies while it makes the tables leaves none, and the next one makes them all."""
    made = []

    def die(table: sa.Table, _connection: object, **_: object) -> None:
        made.append(table.name)
        if table.name == "nasattn_latency":
            raise KeyboardInterrupt

    sa.event.listen(sa.Table, "after_create", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            Store(url)
    finally:
        sa.event.remove(sa.Table, "after_create", die)
    assert "nasattn_study" in made
    assert version(open_store(url)) == [SCHEMA_HEAD]


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'newer.db'}"
    with Store(url).engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StorageError, match="has schema 9999, this nasattn knows up to 0005"):
        Store(url)
