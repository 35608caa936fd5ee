"""The latencies in the store: of whole placements, and the entries of the additive table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import sqlalchemy as sa

from nasattn.store.database import Database
from nasattn.store.models import ArchitectureRow, EntryRow, LatencyRow
from nasattn.store.records import LatencyRecord


class Latencies(Database):
    """What was measured and predicted, by device key and host. A measurement is written whole or not at all."""

    def find_latency(
        self, device_key: str, host: str, placement: str, method: Literal["pair", "table"] = "pair"
    ) -> tuple[int, LatencyRecord] | None:
        """The latest latency of a placement, measured (``pair``) or predicted (``table``), and its id, or None."""
        query = (
            sa.select(LatencyRow)
            .join(ArchitectureRow)
            .where(ArchitectureRow.host == host, ArchitectureRow.placement == placement)
            .where(LatencyRow.device_key == device_key, LatencyRow.method == method)
            .order_by(LatencyRow.id.desc())
            .limit(1)
        )
        with self.session() as session:
            row = session.scalar(query)
            return (row.id, latency_record(row)) if row else None

    def add_latency(self, device_key: str, host: str, placement: str, record: LatencyRecord) -> int:
        """Record the latency of a placement whose architecture is recorded; returns its id."""
        with self.session() as session:
            architecture = session.scalars(
                sa.select(ArchitectureRow.id).where(ArchitectureRow.host == host, ArchitectureRow.placement == placement)
            ).one()
            row = LatencyRow(architecture_id=architecture, device_key=device_key, **asdict(record))
            session.add(row)
            session.flush()
            return row.id

    def latencies(self, device_key: str, host: str) -> dict[str, LatencyRecord]:
        """The latest measurement of every placement that was measured end to end."""
        query = (
            sa.select(ArchitectureRow.placement, LatencyRow)
            .join(ArchitectureRow)
            .where(ArchitectureRow.host == host, LatencyRow.device_key == device_key, LatencyRow.method == "pair")
            .order_by(LatencyRow.id)
        )
        with self.session() as session:
            return {placement: latency_record(row) for placement, row in session.execute(query)}

    def entries(self, device_key: str, host: str) -> dict[tuple[int, str], LatencyRecord]:
        """The latest entries of the additive table, by stage number and token."""
        query = sa.select(EntryRow).where(EntryRow.host == host, EntryRow.device_key == device_key).order_by(EntryRow.id)
        with self.session() as session:
            return {(row.stage, row.attention): latency_record(row, "table") for row in session.scalars(query)}

    def add_entry(self, device_key: str, host: str, stage: int, attention: str, record: LatencyRecord) -> None:
        """Record an entry of the additive table."""
        values = {name: value for name, value in asdict(record).items() if name != "method"}
        with self.session() as session:
            session.add(EntryRow(device_key=device_key, host=host, stage=stage, attention=attention, **values))

    def device_keys(self, host: str) -> list[str]:
        """The device keys for which something of *host* is measured, in alphabetical order."""
        placements = sa.select(LatencyRow.device_key).join(ArchitectureRow).where(ArchitectureRow.host == host)
        entries = sa.select(EntryRow.device_key).where(EntryRow.host == host)
        with self.session() as session:
            return sorted(set(session.scalars(placements)) | set(session.scalars(entries)))


def latency_record(row: LatencyRow | EntryRow, method: Literal["pair", "table"] | None = None) -> LatencyRecord:
    """The record of a row."""
    values = {name: getattr(row, name) for name in LatencyRecord.__dataclass_fields__ if name != "method"}
    return LatencyRecord(**values, method=method or row.method)  # type: ignore[arg-type, union-attr]
