"""Opening a database: what a wrong one is told, in one line and without the password."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nasattn.errors import NasattnError, StorageError
from nasattn.store import Store, StudyRecord
from tests.store.postgres import PASSWORD, USER, postgresql_url


def refused(url: str, create: bool = True) -> str:
    with pytest.raises(StorageError) as caught:
        Store(url, create=create)
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    assert isinstance(caught.value, NasattnError)
    return message


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere: where we are root, be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that everybody may enter and nobody may change."""
    with tempfile.TemporaryDirectory(prefix="nasattn-test-") as name:
        folder = Path(name)
        Store(f"sqlite:///{folder}/study.db").engine.dispose()
        (folder / "study.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize("url", ["", "garbage", "nasattn.db", "/tmp/nasattn.db", f"postgresql://{USER}:{PASSWORD}@host:port/db"])
def test_what_is_no_url(url: str) -> None:
    message = "the storage is not a database URL; use for instance sqlite:///nasattn.db (--storage or NASATTN_STORAGE)"
    assert refused(url) == message


@pytest.mark.parametrize("url", [f"nodatabase://{USER}:{PASSWORD}@host/db", f"mysql+nodriver://{USER}:{PASSWORD}@host/db"])
def test_a_database_that_is_not_known(url: str) -> None:
    assert ":***@host/db cannot be used: Can't load plugin" in refused(url)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = refused(f"sqlite:///{tmp_path}/no/study.db")
    assert f"database sqlite:///{tmp_path}/no/study.db cannot be used: unable to open database file" in message
    assert message.endswith("check the path and its permissions, or name another by --storage")
    assert "unable to open database file" in refused(f"sqlite:///{tmp_path}")  # a folder is no file


def test_a_file_that_is_not_there_is_made_only_when_asked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    message = f"no database {url}: run `nasattn search` first, or name another by --storage or NASATTN_STORAGE"
    assert refused(url, create=False) == message
    assert not list(tmp_path.iterdir())
    Store(url).engine.dispose()
    Store(url, create=False).engine.dispose()


def test_a_folder_that_may_not_be_written(locked_folder: Path) -> None:
    with without_privileges():
        assert "cannot be used: unable to open database file" in refused(f"sqlite:///{locked_folder}/other.db")
        assert "cannot be used: " in refused(f"sqlite:///{locked_folder}/study.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"not a database" * 100)
    assert refused(f"sqlite:///{path}") == f"database sqlite:///{path} failed: file is not a database"
    assert path.read_bytes() == b"not a database" * 100


def test_sqlite_writes_ahead_and_keeps_references(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    store = open_store(f"sqlite:///{tmp_path}/study.db")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_reader_does_not_wait_and_a_writer_is_patient(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    """While somebody else writes, a dashboard for instance, reading goes on and writing waits."""
    store = open_store(f"sqlite:///{tmp_path}/study.db")
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.studies() == []
    writer = threading.Thread(target=store.add_study, args=(StudyRecord("one", {}, {}, 0),))
    writer.start()
    time.sleep(0.3)
    assert store.studies() == []
    other.execute("COMMIT")
    writer.join()
    assert [s.name for s in store.studies()] == ["one"]
    other.close()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    message = refused(postgresql_url(tmp_path, "study"))
    assert f"database postgresql+psycopg://{USER}:***@/study?host=" in message
    assert "cannot be used: connection failed: " in message or "cannot be used: connection is bad: " in message


def test_a_wrong_password_and_a_database_that_is_not_there(server: Path) -> None:
    message = refused(postgresql_url(server, "postgres", password="wrong-and-secret"))
    assert "password authentication failed" in message and "wrong-and-secret" not in message
    assert 'database "nothing" does not exist' in refused(postgresql_url(server, "nothing"))
