"""All that a report shows of a study, gathered once: for the page, the figures and the data files alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nasattn.front import FrontMember, appraise
from nasattn.report.added import Added, added_latencies
from nasattn.report.choices import Choices
from nasattn.report.compute import Growth, Rectangle, growth, mean_growth, predicted_random, random_studies
from nasattn.report.effects import AccuracyModel, Effect, effects
from nasattn.report.faults import faults
from nasattn.report.importance import importances
from nasattn.store import EvaluationRecord, Store, StudyRecord
from nasattn.store.records import PROXY_REPORT

if TYPE_CHECKING:
    from nasattn.latency import LatencyTable, TableError
    from nasattn.proxy.agreement import Agreement


@dataclass(frozen=True)
class StudyData:
    """A study as a report sees it.

    Attributes:
        record: The study.
        trials: All of them.
        appraised: Placements that completed with a latency, fastest first.
        keys: Device keys of the trials' latencies, that of most of them first.
        table: The latency table on the first of them; empty where there is none.
        error: Of the table.
        rivals: Comparable studies of the database that chose at random, with their trials.
        agreement: How far the proxy can be trusted, and how much longer the long runs were; None where that was not asked.
        storage: What a command needs to find the database: `` --storage URL``, or nothing.
    """

    record: StudyRecord
    trials: Sequence[EvaluationRecord]
    appraised: Sequence[FrontMember]
    keys: Sequence[str]
    table: LatencyTable
    error: TableError | None
    rivals: Mapping[str, Sequence[EvaluationRecord]]
    agreement: tuple[Agreement, int] | None
    storage: str = ""

    @property
    def host(self) -> str:
        return str(self.record.config["space"]["host"])

    @cached_property
    def complete(self) -> list[EvaluationRecord]:
        """Trials that were trained to the end, or told from the database, with an accuracy."""
        return [t for t in self.trials if t.state == "COMPLETE" and t.accuracy is not None and np.isfinite(t.accuracy)]

    @cached_property
    def front(self) -> list[FrontMember]:
        return [m for m in self.appraised if m.on_front]

    @cached_property
    def plain(self) -> FrontMember | None:
        """The plain host, where it completed."""
        return next((m for m in self.appraised if m.is_plain), None)

    @cached_property
    def choices(self) -> Choices:
        return Choices.of(self.record, [t.placement for t in self.trials])

    @cached_property
    def model(self) -> AccuracyModel | None:
        """Of accuracy; None for too few completed placements."""
        return AccuracyModel.fit(self.choices, self.complete)

    @cached_property
    def added(self) -> dict[tuple[int, str], Added]:
        """What each attention adds to the latency in each stage."""
        return added_latencies(self.choices, self.table, self.trials)

    @cached_property
    def effects(self) -> list[Effect]:
        return effects(self.choices, self.complete, self.model, self.added)

    @cached_property
    def importances(self) -> dict[str, list[float]]:
        return importances(self.choices, self.complete)

    @cached_property
    def faults(self) -> dict[str, list[EvaluationRecord]]:
        return faults(self.trials)

    @cached_property
    def growths(self) -> list[Growth]:
        """The study's, and that of random choice where something can be said of it; none for fewer than two completed trials."""
        rectangle = Rectangle.around([*self.trials, *(t for trials in self.rivals.values() for t in trials)])
        if rectangle is None or len(self.complete) < 2:
            return []
        own = growth(self.record.name, self.trials, rectangle)
        runs = [growth(name, trials, rectangle) for name, trials in self.rivals.items()]
        runs = [run for run in runs if run.seconds[-1] > 0]
        if runs:
            return [own, mean_growth(runs)]
        chosen_at_random = self.record.config.get("sampler") == "random"
        random = None
        if self.model is not None and not chosen_at_random and own.seconds[-1] > 0:
            random = predicted_random(self.choices, self.complete, self.table, self.model, rectangle, own.seconds[-1])
        return [own, *([random] if random else [])]

    @cached_property
    def training_seconds(self) -> float:
        """Of all trials of this study, those that failed or were stopped among them."""
        return sum(t.seconds or 0.0 for t in self.trials if t.reused_from is None)


def gather(store: Store, name: str, storage: str = "") -> StudyData:
    """Read a study. Raises StudyError when there is none.

    Args:
        store: The database.
        name: The study.
        storage: What commands on the page say behind ``nasattn ... STUDY`` to find the database.
    """
    from nasattn.latency import LatencyTable
    from nasattn.search.latencies import read_table

    record = store.study(name)
    trials = store.evaluations(name)
    keys = store.device_keys_of(name)
    table, error = read_table(store, keys[0], record.config["space"]["host"]) if keys else (LatencyTable({}), None)
    rivals = {s.name: store.evaluations(s.name) for s in random_studies(store, record)}
    return StudyData(record, trials, appraise(trials), keys, table, error, rivals, _agreement(store, name), storage)


def _agreement(store: Store, name: str) -> tuple[Agreement, int] | None:
    from nasattn.proxy.agreement import Agreement

    found = store.report(name, PROXY_REPORT)
    return (Agreement.from_dict(found.content["agreement"]), int(found.content["longer"])) if found else None


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration to be read: of the images' fingerprint all but the list of their folders, which may be long."""
    data = config.get("data")
    return {**config, "data": {k: v for k, v in data.items() if k != "parts"}} if isinstance(data, Mapping) else dict(config)
