"""The database: opened, brought to the current schema, and spoken to in sessions that report errors in one line."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from nasattn.errors import StorageError
from nasattn.store.patience import OUTAGE, Patience, patient

if TYPE_CHECKING:
    from nasattn.store.optuna_storage import PatientStorage

VERSION_TABLE = "nasattn_alembic_version"  # Optuna keeps its own in `alembic_version`
SQLITE_TIMEOUT = 60  # seconds to wait for another writer
PAGE = 4096  # bytes that SQLite writes at once
CONNECT_TIMEOUT = 10  # seconds until a PostgreSQL server that does not answer is away
SCHEMA_HEAD = "0005"
# one process migrates, whole or not at all; those that come at the same moment wait and find it done
MIGRATION_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(4207130)"}


class Database:
    """A database that holds our tables and Optuna's, opened and brought to the current schema.

    Every public method of the classes that build on it is one transaction, made again while the database is away, if that was
    asked for (see :meth:`wait_for_outages`).

    Args:
        url: An SQLAlchemy URL such as ``sqlite:///nasattn.db``.
        create: Create an SQLite file that does not exist. False raises instead, for commands that only read.

    Raises:
        StorageError: The URL is wrong, or the database cannot be opened, read or written.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        self.url = url
        try:
            parsed = sa.make_url(url)
        except (ArgumentError, ValueError):  # ValueError: a port that is no number
            raise StorageError(
                "the storage is not a database URL; use for instance sqlite:///nasattn.db (--storage or NASATTN_STORAGE)"
            ) from None
        self.shown = parsed.render_as_string(hide_password=True)
        self.patience = Patience(self.shown)
        path = parsed.database if parsed.get_backend_name() == "sqlite" else None
        if path and path != ":memory:" and not create and not Path(path).exists():
            raise StorageError(f"no database {self.shown}: run `nasattn search` first, or name another by --storage or NASATTN_STORAGE")
        with self.reported():
            self.engine = sa.create_engine(parsed, **engine_options(url))
            if parsed.get_backend_name() == "sqlite":
                sa.event.listen(self.engine, "connect", _configure_sqlite)
            self._upgrade()

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if callable(method) and not name.startswith("_"):
                setattr(cls, name, patient(method))

    def wait_for_outages(self, notify: Callable[[str], None], seconds: float = OUTAGE) -> None:
        """From now on wait so long for a database that is away, and say so by *notify*; what opens a database does not wait."""
        self.patience.notify, self.patience.seconds = notify, seconds

    def _upgrade(self) -> None:
        """Bring the schema forward with alembic."""
        with self.engine.connect() as connection:
            inspector = sa.inspect(connection)
            known = (
                connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
                if inspector.has_table(VERSION_TABLE)
                else None
            )
        if known == SCHEMA_HEAD:
            return
        from alembic import command
        from alembic.config import Config

        if known is not None and known > SCHEMA_HEAD:
            raise StorageError(
                f"database {self.shown} has schema {known}, this nasattn knows up to {SCHEMA_HEAD}: use the newer nasattn that wrote it"
            )
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("version_table", VERSION_TABLE)
        with self.engine.begin() as connection:
            lock = MIGRATION_LOCK.get(connection.dialect.name)
            if lock is not None:
                connection.exec_driver_sql(lock)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Database errors as one line without the URL's password."""
        try:
            yield
        except (OperationalError, NoSuchModuleError, ModuleNotFoundError) as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            if _on_a_full_disk(self.url):
                raise StorageError(f"database {self.shown} cannot be used: {cause}; its disk is full: free some space on it") from None
            raise StorageError(
                f"database {self.shown} cannot be used: {cause}; check the path and its permissions, or name another by --storage"
            ) from None
        except DBAPIError as error:
            raise StorageError(f"database {self.shown} failed: {str(error.orig).strip().splitlines()[0]}") from None

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.reported(), Session(self.engine) as session, session.begin():
            yield session

    @cached_property
    def optuna(self) -> PatientStorage:
        """Optuna's storage on the same database."""
        from nasattn.store.optuna_storage import PatientStorage

        with self.reported():
            try:
                storage = PatientStorage(self.url, engine_options(self.url), self.patience)
            except DBAPIError:  # another process may be creating Optuna's tables at this moment
                time.sleep(2.0)
                storage = PatientStorage(self.url, engine_options(self.url), self.patience)
        if self.url.startswith("sqlite"):
            sa.event.listen(storage.engine, "connect", _write_lightly)
            storage.engine.dispose()  # of connections that were made before
        return storage


def engine_options(url: str) -> dict[str, Any]:
    """How both we and Optuna open the database: patient with SQLite's lock, checking PostgreSQL's connections before use."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": SQLITE_TIMEOUT}}
    options: dict[str, Any] = {"pool_pre_ping": True}
    if "psycopg" in url.partition("://")[0] and "connect_timeout" not in url:
        options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT}
    return options


def _on_a_full_disk(url: str) -> bool:
    """Whether the file of a SQLite database lies on a disk that has no room for another page."""
    file = sa.engine.make_url(url).database if url.startswith("sqlite") else None
    try:
        return bool(file) and shutil.disk_usage(Path(str(file)).absolute().parent).free < PAGE
    except OSError:
        return False


def _configure_sqlite(connection: Any, _record: Any) -> None:
    _write_ahead(connection)
    _write_lightly(connection, _record)
    connection.execute("PRAGMA foreign_keys=ON")


def _write_lightly(connection: Any, _record: Any) -> None:
    """Do not wait for the disk at every commit. With WAL a killed process loses nothing; a power cut loses the last moments, no more."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set WAL; unlike all else in SQLite, switching to it does not wait for another process that is switching."""
    deadline = time.monotonic() + SQLITE_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
