"""The tables that stand beside Optuna's in one database. Every name begins with ``nasattn_``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {dict[str, Any]: JSON, list[Any]: JSON, datetime: DateTime(timezone=True)}


class StudyRow(Base):
    """A study: its resolved configuration, the versions it began with, its seed, and the driver that has it to itself for now.

    ``driver_until`` is in seconds since 1970 by the database's clock, which is the same for all drivers.
    """

    __tablename__ = "nasattn_study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    config: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    seed: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    driver: Mapped[str | None] = mapped_column(String(255))
    driver_until: Mapped[int | None] = mapped_column(BigInteger)


class ArchitectureRow(Base):
    """A placement on a host, with what can be counted without training it."""

    __tablename__ = "nasattn_architecture"
    __table_args__ = (UniqueConstraint("host", "placement"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    placement: Mapped[str] = mapped_column(String(1000))
    params: Mapped[int] = mapped_column(BigInteger)
    macs: Mapped[int] = mapped_column(BigInteger)


class _Measured:
    """The columns of a paired measurement (see :class:`nasattn.store.records.LatencyRecord`)."""

    ms: Mapped[float]
    baseline_ms: Mapped[float]
    ratio: Mapped[float]
    ratio_low: Mapped[float]
    ratio_high: Mapped[float]
    pairs: Mapped[int]
    settled: Mapped[bool]
    exclusive: Mapped[bool]
    measured_at: Mapped[datetime] = mapped_column(default=now)
    ms_p90: Mapped[float | None]
    baseline_ms_p90: Mapped[float | None]
    device_ms: Mapped[float | None]
    baseline_device_ms: Mapped[float | None]
    calibration: Mapped[float | None]
    contention: Mapped[str | None] = mapped_column(Text)
    environment: Mapped[dict[str, Any] | None]


class LatencyRow(_Measured, Base):
    """The latency of a placement against its plain host on one device key: measured end to end, or predicted from the table."""

    __tablename__ = "nasattn_latency"
    id: Mapped[int] = mapped_column(primary_key=True)
    architecture_id: Mapped[int] = mapped_column(ForeignKey("nasattn_architecture.id"), index=True)
    device_key: Mapped[str] = mapped_column(String(500), index=True)
    method: Mapped[str] = mapped_column(String(16), server_default="pair")


class EntryRow(_Measured, Base):
    """An entry of the additive latency table: one stage of a host with an attention against the plain stage.

    The attention ``none`` stands for the plain stage against the plain host.
    """

    __tablename__ = "nasattn_latency_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(String(255), index=True)
    device_key: Mapped[str] = mapped_column(String(500), index=True)
    stage: Mapped[int]
    attention: Mapped[str] = mapped_column(String(255))


class EvaluationRow(Base):
    """One training of one placement in a study, or the reuse of one."""

    __tablename__ = "nasattn_evaluation"
    __table_args__ = (UniqueConstraint("study_id", "trial"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nasattn_study.id"), index=True)
    trial: Mapped[int]
    architecture_id: Mapped[int] = mapped_column(ForeignKey("nasattn_architecture.id"), index=True)
    latency_id: Mapped[int | None] = mapped_column(ForeignKey("nasattn_latency.id"))
    identity: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    seed: Mapped[int]
    fidelity: Mapped[dict[str, Any]]
    accuracy: Mapped[float | None]
    held_out: Mapped[float | None]
    val_samples: Mapped[int | None]
    curve: Mapped[list[Any]] = mapped_column(default=list)
    seconds: Mapped[float | None]
    worker: Mapped[str | None] = mapped_column(String(255))
    error: Mapped[str | None] = mapped_column(Text)
    reused_from: Mapped[int | None] = mapped_column(ForeignKey("nasattn_evaluation.id"))
    constraints: Mapped[dict[str, Any] | None]
    notes: Mapped[list[Any] | None]
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class FrontRow(Base):
    """A member of a study's front, as last computed."""

    __tablename__ = "nasattn_front"
    __table_args__ = (UniqueConstraint("study_id", "trial"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nasattn_study.id"), index=True)
    trial: Mapped[int]
    tier: Mapped[str] = mapped_column(String(16))
    p_member: Mapped[float]
    updated_at: Mapped[datetime] = mapped_column(default=now)


class ReportRow(Base):
    """What was found out about a study as a whole, such as how far its proxy can be trusted. Earlier reports are kept."""

    __tablename__ = "nasattn_report"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nasattn_study.id"), index=True)
    kind: Mapped[str] = mapped_column(String(64))
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
