"""The latencies of one host as it is deployed: measured once, kept in the store, predicted where the table has proved right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nasattn.attention import Attention, Placement
from nasattn.errors import NasattnError, StudyError
from nasattn.hosts import Host
from nasattn.hosts.count import count_macs, count_params
from nasattn.latency import (
    Deployment,
    DeviceKey,
    DeviceLease,
    HostMeter,
    LatencyTable,
    PairedLatency,
    Prediction,
    Ratio,
    RuntimeFailure,
    TableError,
    environment,
    physical_device,
)
from nasattn.space import SearchSpace
from nasattn.store import EvaluationRecord, LatencyRecord, Store

TABLE_CHECKS = 4  # placements measured end to end before a search trusts the table
TABLE_ERROR = 0.05  # median error above which it does not


def read_table(store: Store, key: str, host: str) -> tuple[LatencyTable, TableError | None]:
    """The stored table of a host on a device key, and its error against all placements measured end to end there."""
    table = LatencyTable(store.entries(key, host))
    measured = ((Placement.parse(text), record) for text, record in store.latencies(key, host).items() if record.exclusive)
    error, deviation = table.compare(measured)
    return replace(table, error=deviation), error


def find_latencies(store: Store, host: str, device: str, trials: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """*trials* with their latencies on another device key: measured there, else predicted from its table, else None.

    Args:
        store: The database.
        host: The trials' host.
        device: A device key, or a part of one that fits no other.
        trials: Of one study.

    Raises:
        StudyError: No such device key, or more than one.
    """
    key = _find_key(device, store.device_keys(host), host)
    table, _ = read_table(store, key, host)
    measured = store.latencies(key, host)

    def latency(text: str) -> LatencyRecord | None:
        if text in measured:
            return measured[text]
        placement = Placement.parse(text)
        return None if table.missing(placement) else predict(table, placement)

    return [replace(trial, latency=latency(trial.placement)) for trial in trials]


def _find_key(device: str, keys: Sequence[str], host: str) -> str:
    found = [key for key in keys if key == device] or [key for key in keys if device.lower() in key.lower()]
    if len(found) == 1:
        return found[0]
    if not keys:
        raise StudyError(f"no latency of {host} is measured in this database: fill it with `nasattn latency --space SPACE --storage URL`")
    which = f"{device!r} fits {len(found)} device keys" if found else f"no device key {device!r}"
    raise StudyError(f"{which}: there are {'; '.join(found or keys)}: give one of them, or a part that fits it alone")


def predict(table: LatencyTable, placement: Placement) -> LatencyRecord:
    """The latency that *table*, which holds all that it needs, predicts for *placement*."""
    entries = [table.entries[n, t] for n, a in enumerate(placement, start=1) if a.form != "none" for t in ("none", str(a))]
    exclusive = all(getattr(entry, "exclusive", False) for entry in entries)
    return LatencyRecord(**asdict(table.predict(placement)), pairs=0, settled=True, exclusive=exclusive, method="table")


class HostLatencies:
    """Latencies of one host in one deployment on this machine.

    Args:
        store: Where they are kept; what it has is not measured again.
        host: The host.
        deployment: How its models are run.
        max_seconds: How long the measurement of a whole placement may go on for a narrower interval.
        entry_seconds: The same of an entry of the table.
    """

    def __init__(self, store: Store, host: Host, deployment: Deployment, max_seconds: float = 10.0, entry_seconds: float = 1.5) -> None:
        self.store, self.host = store, host
        self.deployment = deployment.at(host.resolution)
        self.max_seconds, self.entry_seconds = max_seconds, entry_seconds
        self.key = str(DeviceKey.here(self.deployment))
        self.meter = HostMeter(
            host, self.deployment, DeviceLease(physical_device(deployment.device)).alone, calibration_seconds=max_seconds / 2
        )
        self._counted: dict[Placement, tuple[int, int]] = {}
        self._entries: dict[tuple[int, str], Ratio] = {}  # of the table, as far as they were looked up
        self._table: LatencyTable | None = None  # as last read; None once something was measured since
        self._failures: dict[tuple[int, str], RuntimeFailure] = {}
        self._separable = True  # whether the host's stages can be run by themselves
        self._trusted = False  # whether the table's predictions came close enough to measurements, when last asked

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self.deployment.device)

    def count(self, placement: Placement) -> tuple[int, int]:
        """``(params, macs)`` of the host with *placement*, recorded.

        Both are sums over the stages, so only the plain host and each attention in each stage are ever built, on the meta device.
        """
        counted = self._counted.get(placement) or self.store.find_architecture(self.host.name, str(placement))
        if counted is None:
            counted = self._count(placement)
            self.store.add_architecture(self.host.name, str(placement), *counted)
        self._counted[placement] = counted
        return counted

    def _count(self, placement: Placement) -> tuple[int, int]:
        plain = self.host.plain()
        singles = [alone(plain, i, a) for i, a in enumerate(placement) if a.form != "none"]
        if len(singles) < 2:
            model = self.host.build(placement, device="meta")
            return count_params(model), count_macs(model, self.host.resolution)
        params, macs = zip(*map(self.count, (plain, *singles)), strict=True)
        return sum(params[1:]) - (len(singles) - 1) * params[0], sum(macs[1:]) - (len(singles) - 1) * macs[0]

    def latency(self, placement: Placement) -> tuple[int, LatencyRecord]:
        """The latency of *placement* and its id in the store: as measured end to end, else predicted if the table can be trusted.

        The first few placements are measured both ways; where the table's median error is above 5 %, all others are
        measured end to end as well.

        Raises:
            RuntimeFailure: The runtime cannot execute it.
        """
        found = self.store.find_latency(self.key, self.host.name, str(placement))
        if found is not None:
            return found
        if placement.is_plain or not self._separable:
            return self.measure(placement)
        try:
            self.fill(placement)
        except RuntimeFailure:
            raise
        except NasattnError:
            self._separable = False
            return self.measure(placement)
        table = self._table or self._read_table()
        if not self._trusted:
            return self.measure(placement)
        record = predict(table, placement)
        known = self.store.find_latency(self.key, self.host.name, str(placement), method="table")
        if known is not None and known[1] == record:
            return known
        self.count(placement)
        return self.store.add_latency(self.key, self.host.name, str(placement), record), record

    def measure(self, placement: Placement) -> tuple[int, LatencyRecord]:
        """Measure *placement* end to end, and record it."""
        self.count(placement)
        pair = self.meter.measure(placement, max_seconds=self.max_seconds)
        record, self._table = self._record(pair), None
        return self.store.add_latency(self.key, self.host.name, str(placement), record), record

    def fill(self, placement: Placement) -> None:
        """Measure what the table lacks to predict *placement*.

        Raises:
            RuntimeFailure: The runtime cannot execute one of its stages.
            NasattnError: The host's stages cannot be run by themselves.
        """
        if LatencyTable(self._entries).missing(placement):
            self._read_table()
        for stage, token in LatencyTable(self._entries).missing(placement):
            self.measure_entry(stage, token)

    def _read_table(self) -> LatencyTable:
        """The table as the store has it now; notes its entries and whether it can be trusted."""
        table, error = read_table(self.store, self.key, self.host.name)
        self._table, self._entries = table, dict(table.entries)
        self._trusted = error is not None and error.placements >= TABLE_CHECKS and error.median <= TABLE_ERROR
        return table

    def measure_entry(self, stage: int, token: str) -> LatencyRecord:
        """Measure one entry of the table, and record it. Raises RuntimeFailure, also when it failed before in this process."""
        if (stage, token) in self._failures:
            raise self._failures[stage, token]
        try:
            pair = self.meter.measure_stage(stage, Attention.parse(token), max_seconds=self.entry_seconds)
        except RuntimeFailure as failure:
            self._failures[stage, token] = failure
            raise
        record, self._table = self._record(pair), None
        self.store.add_entry(self.key, self.host.name, stage, token, record)
        self._entries[stage, token] = record
        return record

    def stages_ratio(self, placement: Placement) -> float:
        """The ratio of *placement* by its stages alone, whether or not the table has proved right; measures what is missing.

        Raises as :meth:`fill`.
        """
        self.fill(placement)
        return LatencyTable(self._entries).predict(placement).ratio

    def predicted(self, placement: Placement) -> Prediction | None:
        """What the entries that were looked up or measured so far say of *placement*, without measuring anything.

        None where an entry is missing, or the table has not proved right.
        """
        table = LatencyTable(self._entries)
        return None if table.missing(placement) or not (self._trusted or placement.is_plain) else table.predict(placement)

    def _record(self, pair: PairedLatency) -> LatencyRecord:
        values = asdict(pair)
        return LatencyRecord(pairs=values.pop("rounds"), exclusive=pair.contention is None, environment=self._environment, **values)


def alone(plain: Placement, stage: int, attention: Attention) -> Placement:
    """*attention* in one stage, from 0, of the *plain* host."""
    return Placement(tuple(attention if i == stage else none for i, none in enumerate(plain)))


@dataclass(frozen=True)
class SpaceLatencies:
    """What every attention of a space costs in every stage, on one device key.

    Attributes:
        space: What was measured.
        key: The device key.
        table: The measured entries.
        error: Of the table, against placements measured end to end; None where none was.
        failures: For each entry that the runtime cannot execute, why.
    """

    space: SearchSpace
    key: str
    table: LatencyTable
    error: TableError | None
    failures: dict[tuple[int, str], str]


def measure_space(
    latencies: HostLatencies, space: SearchSpace, held_out: int, seed: int, notify: Callable[[int, int, str], None]
) -> SpaceLatencies:
    """Measure the whole table of *space*, as far as it is missing, and placements end to end that tell its error.

    Args:
        latencies: Of the space's host.
        space: The attentions of each stage.
        held_out: How many random placements to measure end to end.
        seed: Of those placements.
        notify: Called before every measurement with the number of those done, of all, and what is measured.

    Raises:
        RuntimeFailure: The runtime cannot execute the plain host.
        NasattnError: The host's stages cannot be run by themselves.
    """
    store, key, host = latencies.store, latencies.key, latencies.host.name
    known = {k for k, record in store.entries(key, host).items() if record.exclusive}
    tokens = [(n, token) for n, offered in enumerate(space.tokens, start=1) for token in dict.fromkeys(("none", *map(str, offered)))]
    missing = [entry for entry in tokens if entry not in known]
    total, failures = len(missing) + held_out, {}
    for done, (stage, token) in enumerate(missing):
        notify(done, total, f"stage {stage}: {token}")
        try:
            latencies.measure_entry(stage, token)
        except RuntimeFailure as failure:
            if token == "none":
                raise
            failures[stage, token] = str(failure)
    able = [[a for a in offered if (n, str(a)) not in failures] for n, offered in enumerate(space.tokens, start=1)]
    for number, placement in enumerate(_draw(able, held_out, seed)):
        notify(len(missing) + number, total, f"end to end: {placement}")
        found = store.find_latency(key, host, str(placement))
        if found is None or not found[1].exclusive:
            latencies.measure(placement)
    notify(total, total, "")
    table, error = read_table(store, key, host)
    return SpaceLatencies(space, key, table, error, failures)


def _draw(tokens: Sequence[Sequence[Attention]], number: int, seed: int) -> list[Placement]:
    """*number* different random placements, or as many as are found soon, none of them plain."""
    rng = np.random.default_rng(seed)
    if not all(tokens):
        return []
    drawn = (Placement(tuple(offered[int(rng.integers(len(offered)))] for offered in tokens)) for _ in range(20 * number))
    return list(dict.fromkeys(p for p in drawn if not p.is_plain))[:number]
