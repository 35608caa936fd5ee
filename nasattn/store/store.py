"""The store: our tables in the study database. Sessions stay inside; only records go in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from nasattn.errors import StudyError, did_you_mean
from nasattn.store.latencies import Latencies, latency_record
from nasattn.store.models import ArchitectureRow, EvaluationRow, FrontRow, LatencyRow, ReportRow, StudyRow, now
from nasattn.store.records import EvaluationRecord, ReportRecord, State, StudyRecord


class Store(Latencies):
    """Our tables in one database, opened and brought to the current schema (see :class:`Database`)."""

    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        with self.session() as session:
            return [_study_record(row) for row in session.scalars(sa.select(StudyRow).order_by(StudyRow.id))]

    def find_study(self, name: str) -> StudyRecord | None:
        """The study called *name*, or None."""
        with self.session() as session:
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
        with self.session() as session:
            session.add(StudyRow(name=record.name, config=record.config, versions=record.versions, seed=record.seed))

    def claim_study(
        self, name: str, driver: str, seconds: int, is_gone: Callable[[str], bool] = lambda other: False
    ) -> tuple[str, int] | None:
        """Give a study to *driver* alone for so many seconds from now; it may ask again before they are over.

        Returns:
            None, or the other driver that has it and for how many seconds yet. One that *is_gone* has it no more.
        """
        with self.session() as session:
            values = {"driver": driver, "driver_until": _epoch(session) + seconds}

            def claim(free: sa.ColumnElement[bool]) -> bool:
                done = session.execute(sa.update(StudyRow).where(StudyRow.name == name, free).values(values))
                return bool(done.rowcount)  # type: ignore[attr-defined]

            if claim(sa.or_(StudyRow.driver.is_(None), StudyRow.driver == driver, StudyRow.driver_until <= _epoch(session))):
                return None
            left = StudyRow.driver_until - _epoch(session)
            other, seconds_left = session.execute(sa.select(StudyRow.driver, left).where(StudyRow.name == name)).one()
            assert other is not None and seconds_left is not None
            return None if is_gone(other) and claim(StudyRow.driver == other) else (other, seconds_left)

    def release_study(self, name: str, driver: str) -> None:
        """The study is free again, if *driver* had it."""
        with self.session() as session:
            session.execute(
                sa.update(StudyRow).where(StudyRow.name == name, StudyRow.driver == driver).values(driver=None, driver_until=None)
            )

    def start_evaluation(self, study: str, host: str, record: EvaluationRecord, latency_id: int | None) -> int:
        """Record a trial as it begins; returns the id to finish it by, also where it is recorded already, as when an answer was lost."""
        with self.session() as session:
            study_id = _study_id(session, study)
            same = (EvaluationRow.study_id == study_id, EvaluationRow.trial == record.trial, EvaluationRow.identity == record.identity)
            known = session.scalar(sa.select(EvaluationRow.id).where(*same, EvaluationRow.state == record.state))
            if known is not None:
                return known
            row = EvaluationRow(
                study_id=study_id,
                architecture_id=_architecture_id(session, host, record.placement, record.params, record.macs),
                latency_id=latency_id,
                **{k: getattr(record, k) for k in ("trial", "identity", "state", "seed", "fidelity", "reused_from", "constraints")},
            )
            session.add(row)
            session.flush()
            return row.id

    def finish_evaluation(self, evaluation: int, state: State, **values: Any) -> None:
        """Record how a trial ended: any of accuracy, held_out, val_samples, curve, seconds, worker, notes, error."""
        with self.session() as session:
            session.execute(sa.update(EvaluationRow).where(EvaluationRow.id == evaluation).values(state=state, finished_at=now(), **values))

    def set_constraints(self, evaluation: int, constraints: dict[str, Any]) -> None:
        """Record what each constraint of the study said of a trial."""
        with self.session() as session:
            session.execute(sa.update(EvaluationRow).where(EvaluationRow.id == evaluation).values(constraints=constraints))

    def set_latency(self, study: str, placement: str, latency: int) -> None:
        """Give all trials of a placement in a study another latency, by its id."""
        with self.session() as session:
            of_placement = sa.select(ArchitectureRow.id).where(ArchitectureRow.placement == placement)
            session.execute(
                sa.update(EvaluationRow)
                .where(EvaluationRow.study_id == _study_id(session, study), EvaluationRow.architecture_id.in_(of_placement))
                .values(latency_id=latency)
            )

    def device_keys_of(self, study: str) -> list[str]:
        """The device keys that the latencies of a study's trials hold for, the one of most trials first."""
        query = (
            sa.select(LatencyRow.device_key)
            .join(EvaluationRow, EvaluationRow.latency_id == LatencyRow.id)
            .join(StudyRow, StudyRow.id == EvaluationRow.study_id)
            .where(StudyRow.name == study)
            .group_by(LatencyRow.device_key)
            .order_by(sa.func.count().desc(), LatencyRow.device_key)
        )
        with self.session() as session:
            return list(session.scalars(query))

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
        with self.session() as session:
            return [_evaluation_record(*rows) for rows in session.execute(query)]

    def find_evaluation(self, identity: str) -> EvaluationRecord | None:
        """The training of this identity in any study that went furthest: a completed one, else the latest that has a curve, or None.

        The latter was stopped at a rung (PRUNED), or its driver ended (INTERRUPTED).
        """
        completed = EvaluationRow.state == "COMPLETE"
        query = (
            sa.select(EvaluationRow, ArchitectureRow, LatencyRow)
            .join(ArchitectureRow, ArchitectureRow.id == EvaluationRow.architecture_id)
            .outerjoin(LatencyRow, LatencyRow.id == EvaluationRow.latency_id)
            .where(EvaluationRow.identity == identity, EvaluationRow.state.in_(("COMPLETE", "PRUNED", "INTERRUPTED")))
            .where(EvaluationRow.reused_from.is_(None))
            .order_by(sa.case((completed, 0), else_=1), EvaluationRow.id.desc())
        )
        with self.session() as session:
            found = (_evaluation_record(*rows) for rows in session.execute(query))
            return next((record for record in found if record.state == "COMPLETE" or record.curve), None)

    def note_curve(self, evaluation: int, curve: list[dict[str, float]], seconds: float) -> None:
        """Record how far a trial has come that has not ended."""
        with self.session() as session:
            session.execute(sa.update(EvaluationRow).where(EvaluationRow.id == evaluation).values(curve=curve, seconds=seconds))

    def set_reused_from(self, evaluation: int, known: int | None) -> None:
        """Say of which other training a trial has its accuracy; None: it is trained itself."""
        with self.session() as session:
            session.execute(sa.update(EvaluationRow).where(EvaluationRow.id == evaluation).values(reused_from=known))

    def find_architecture(self, host: str, placement: str) -> tuple[int, int] | None:
        """``(params, macs)`` of a placement counted before, or None."""
        with self.session() as session:
            row = session.scalar(sa.select(ArchitectureRow).where(ArchitectureRow.host == host, ArchitectureRow.placement == placement))
            return (row.params, row.macs) if row else None

    def add_architecture(self, host: str, placement: str, params: int, macs: int) -> None:
        """Record what was counted of a placement."""
        with self.session() as session:
            _architecture_id(session, host, placement, params, macs)

    def save_front(self, study: str, members: Iterable[tuple[int, str, float]]) -> None:
        """Replace the study's front by ``(trial, tier, p_member)`` rows."""
        with self.session() as session:
            study_id = _study_id(session, study)
            session.execute(sa.delete(FrontRow).where(FrontRow.study_id == study_id))
            session.add_all(FrontRow(study_id=study_id, trial=t, tier=tier, p_member=p) for t, tier, p in members)

    def front(self, study: str) -> list[tuple[int, str, float]]:
        """The recorded front: ``(trial, tier, p_member)``."""
        query = sa.select(FrontRow).join(StudyRow, StudyRow.id == FrontRow.study_id).where(StudyRow.name == study).order_by(FrontRow.trial)
        with self.session() as session:
            return [(row.trial, row.tier, row.p_member) for row in session.scalars(query)]

    def save_report(self, study: str, kind: str, content: dict[str, Any]) -> None:
        """Record a report about a study; earlier ones of its kind stay in the database."""
        with self.session() as session:
            session.add(ReportRow(study_id=_study_id(session, study), kind=kind, content=content))

    def report(self, study: str, kind: str) -> ReportRecord | None:
        """The newest report of its kind about a study, or None."""
        query = (
            sa.select(ReportRow)
            .join(StudyRow, StudyRow.id == ReportRow.study_id)
            .where(StudyRow.name == study, ReportRow.kind == kind)
            .order_by(ReportRow.id.desc())
            .limit(1)
        )
        with self.session() as session:
            row = session.scalar(query)
            return ReportRecord(study, row.kind, row.content, _utc(row.created_at)) if row else None


def _epoch(session: Session) -> sa.ColumnElement[int]:
    """Seconds since 1970 by the database's own clock."""
    sqlite = session.get_bind().dialect.name == "sqlite"
    now = "CAST(strftime('%s', 'now') AS INTEGER)" if sqlite else "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT)"
    return sa.literal_column(now, sa.BigInteger)


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
        "constraints",
        "notes",
        "held_out",
    )
    return EvaluationRecord(
        placement=architecture.placement,
        params=architecture.params,
        macs=architecture.macs,
        latency=latency_record(latency) if latency else None,
        started_at=_utc(row.started_at),
        finished_at=_utc(row.finished_at),
        **{name: getattr(row, name) for name in own},
    )


def _utc(moment: datetime | None) -> datetime | None:
    """SQLite forgets the zone of what is always UTC; PostgreSQL answers in the zone of its session."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
