"""The store: our tables in the study database. Sessions stay inside; only records go in and out."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from nasattn.errors import StorageError, StudyError, did_you_mean
from nasattn.store.models import ArchitectureRow, Base, EvaluationRow, FrontRow, LatencyRow, StudyRow, now
from nasattn.store.records import EvaluationRecord, LatencyRecord, State, StudyRecord

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

VERSION_TABLE = "nasattn_alembic_version"  # Optuna keeps its own in `alembic_version`
SQLITE_TIMEOUT = 60  # seconds to wait for another writer


class Store:
    """Our tables in one database, opened and brought to the current schema.

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
        path = parsed.database if parsed.get_backend_name() == "sqlite" else None
        if path and path != ":memory:" and not create and not Path(path).exists():
            raise StorageError(f"no database {self.shown}: run `nasattn search` first, or name another by --storage or NASATTN_STORAGE")
        with self._reported():
            self.engine = sa.create_engine(parsed, **engine_options(url))
            if parsed.get_backend_name() == "sqlite":
                sa.event.listen(self.engine, "connect", _configure_sqlite)
            self._upgrade()

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
    def _reported(self) -> Iterator[None]:
        """Database errors as one line without the URL's password."""
        try:
            yield
        except (OperationalError, NoSuchModuleError, ModuleNotFoundError) as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StorageError(
                f"database {self.shown} cannot be used: {cause}; check the path and its permissions, or name another by --storage"
            ) from None
        except DBAPIError as error:
            raise StorageError(f"database {self.shown} failed: {str(error.orig).strip().splitlines()[0]}") from None

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._reported(), Session(self.engine) as session, session.begin():
            yield session

    @cached_property
    def optuna(self) -> RDBStorage:
        """Optuna's storage on the same database."""
        from optuna.storages import RDBStorage

        with self._reported():
            try:
                return RDBStorage(self.url, engine_kwargs=engine_options(self.url))
            except DBAPIError:  # another process may be creating Optuna's tables at this moment
                time.sleep(2.0)
                return RDBStorage(self.url, engine_kwargs=engine_options(self.url))

    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        with self._session() as session:
            return [_study_record(row) for row in session.scalars(sa.select(StudyRow).order_by(StudyRow.id))]

    def find_study(self, name: str) -> StudyRecord | None:
        """The study called *name*, or None."""
        with self._session() as session:
            row = session.scalar(sa.select(StudyRow).where(StudyRow.name == name))
            return _study_record(row) if row else None

    def study(self, name: str) -> StudyRecord:
        """The study called *name*. Raises StudyError with the names there are."""
        study = self.find_study(name)
        if study is None:
            names = [s.name for s in self.studies()]
            raise StudyError(
                f"no study {name!r} in {self.shown}: {did_you_mean(name, names)}there {'are ' + ', '.join(names) if names else 'is none yet'}"
            )
        return study

    def add_study(self, record: StudyRecord) -> None:
        """Record a new study."""
        with self._session() as session:
            session.add(StudyRow(name=record.name, config=record.config, versions=record.versions, seed=record.seed))

    def start_evaluation(self, study: str, host: str, record: EvaluationRecord, latency_id: int | None) -> int:
        """Record a trial as it begins; returns the id to finish it by."""
        with self._session() as session:
            row = EvaluationRow(
                study_id=_study_id(session, study),
                architecture_id=_architecture_id(session, host, record.placement, record.params, record.macs),
                latency_id=latency_id,
                **{k: getattr(record, k) for k in ("trial", "identity", "state", "seed", "fidelity", "reused_from")},
            )
            session.add(row)
            session.flush()
            return row.id

    def finish_evaluation(self, evaluation: int, state: State, **values: Any) -> None:
        """Record how a trial ended: any of accuracy, val_samples, curve, seconds, worker, error."""
        with self._session() as session:
            session.execute(sa.update(EvaluationRow).where(EvaluationRow.id == evaluation).values(state=state, finished_at=now(), **values))

    def evaluations(self, study: str, state: State | None = None) -> list[EvaluationRecord]:
        """The trials of a study, in order of their numbers."""
        query = (
            sa.select(EvaluationRow, ArchitectureRow, LatencyRow)
            .join(StudyRow, StudyRow.id == EvaluationRow.study_id)
            .join(ArchitectureRow, ArchitectureRow.id == EvaluationRow.architecture_id)
            .outerjoin(LatencyRow, LatencyRow.id == EvaluationRow.latency_id)
            .where(StudyRow.name == study)
            .order_by(EvaluationRow.trial)
        )
        if state is not None:
            query = query.where(EvaluationRow.state == state)
        with self._session() as session:
            return [_evaluation_record(*rows) for rows in session.execute(query)]

    def find_evaluation(self, identity: str) -> EvaluationRecord | None:
        """A completed training of this identity in any study, or None."""
        query = (
            sa.select(EvaluationRow, ArchitectureRow, LatencyRow)
            .join(ArchitectureRow, ArchitectureRow.id == EvaluationRow.architecture_id)
            .outerjoin(LatencyRow, LatencyRow.id == EvaluationRow.latency_id)
            .where(EvaluationRow.identity == identity, EvaluationRow.state == "COMPLETE", EvaluationRow.reused_from.is_(None))
            .limit(1)
        )
        with self._session() as session:
            rows = session.execute(query).first()
            return _evaluation_record(*rows) if rows else None

    def find_architecture(self, host: str, placement: str) -> tuple[int, int] | None:
        """``(params, macs)`` of a placement counted before, or None."""
        with self._session() as session:
            row = session.scalar(sa.select(ArchitectureRow).where(ArchitectureRow.host == host, ArchitectureRow.placement == placement))
            return (row.params, row.macs) if row else None

    def add_architecture(self, host: str, placement: str, params: int, macs: int) -> None:
        """Record what was counted of a placement."""
        with self._session() as session:
            _architecture_id(session, host, placement, params, macs)

    def find_latency(self, device_key: str, host: str, placement: str) -> tuple[int, LatencyRecord] | None:
        """The latest measurement and its id, or None."""
        query = (
            sa.select(LatencyRow)
            .join(ArchitectureRow)
            .where(ArchitectureRow.host == host, ArchitectureRow.placement == placement, LatencyRow.device_key == device_key)
            .order_by(LatencyRow.id.desc())
            .limit(1)
        )
        with self._session() as session:
            row = session.scalar(query)
            return (row.id, _latency_record(row)) if row else None

    def add_latency(self, device_key: str, host: str, placement: str, record: LatencyRecord) -> int:
        """Record a measurement of a placement whose architecture is recorded; returns its id."""
        with self._session() as session:
            architecture = session.scalars(
                sa.select(ArchitectureRow.id).where(ArchitectureRow.host == host, ArchitectureRow.placement == placement)
            ).one()
            row = LatencyRow(architecture_id=architecture, device_key=device_key, **asdict(record))
            session.add(row)
            session.flush()
            return row.id

    def save_front(self, study: str, members: Iterable[tuple[int, str, float]]) -> None:
        """Replace the study's front by ``(trial, tier, p_member)`` rows."""
        with self._session() as session:
            study_id = _study_id(session, study)
            session.execute(sa.delete(FrontRow).where(FrontRow.study_id == study_id))
            session.add_all(FrontRow(study_id=study_id, trial=t, tier=tier, p_member=p) for t, tier, p in members)

    def front(self, study: str) -> list[tuple[int, str, float]]:
        """The recorded front: ``(trial, tier, p_member)``."""
        query = sa.select(FrontRow).join(StudyRow, StudyRow.id == FrontRow.study_id).where(StudyRow.name == study).order_by(FrontRow.trial)
        with self._session() as session:
            return [(row.trial, row.tier, row.p_member) for row in session.scalars(query)]


SCHEMA_HEAD = "0001"
# one process migrates, whole or not at all; those that come at the same moment wait and find it done
MIGRATION_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(4207130)"}


def engine_options(url: str) -> dict[str, Any]:
    """How both we and Optuna open the database: patient with SQLite's lock, checking PostgreSQL's connections before use."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": SQLITE_TIMEOUT}}
    return {"pool_pre_ping": True}


def _configure_sqlite(connection: Any, _record: Any) -> None:
    _write_ahead(connection)
    connection.execute("PRAGMA foreign_keys=ON")


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


def _study_id(session: Session, name: str) -> int:
    return session.scalars(sa.select(StudyRow.id).where(StudyRow.name == name)).one()


def _architecture_id(session: Session, host: str, placement: str, params: int, macs: int) -> int:
    row = session.scalar(sa.select(ArchitectureRow).where(ArchitectureRow.host == host, ArchitectureRow.placement == placement))
    if row is None:
        row = ArchitectureRow(host=host, placement=placement, params=params, macs=macs)
        session.add(row)
        session.flush()
    return row.id


def _study_record(row: StudyRow) -> StudyRecord:
    return StudyRecord(row.name, row.config, row.versions, row.seed, _utc(row.created_at))


def _latency_record(row: LatencyRow) -> LatencyRecord:
    return LatencyRecord(**{name: getattr(row, name) for name in LatencyRecord.__dataclass_fields__})


def _evaluation_record(row: EvaluationRow, architecture: ArchitectureRow, latency: LatencyRow | None) -> EvaluationRecord:
    own = (
        "id",
        "trial",
        "state",
        "seed",
        "fidelity",
        "identity",
        "accuracy",
        "val_samples",
        "curve",
        "seconds",
        "worker",
        "error",
        "reused_from",
    )
    return EvaluationRecord(
        placement=architecture.placement,
        params=architecture.params,
        macs=architecture.macs,
        latency=_latency_record(latency) if latency else None,
        started_at=_utc(row.started_at),
        finished_at=_utc(row.finished_at),
        **{name: getattr(row, name) for name in own},
    )


def _utc(moment: datetime | None) -> datetime | None:
    """SQLite forgets the zone of what is always UTC; PostgreSQL answers in the zone of its session."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


__all__ = ["Base", "Store", "engine_options"]
