"""A study asked and told as workers would, without any: on a real database, with latencies that are all known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasattn.attention import Placement
from nasattn.search.appraisal import Appraiser
from nasattn.search.bridge import PlacementSearch
from nasattn.search.continuing import baselines, enqueue, enter_study, reconcile
from nasattn.search.latencies import HostLatencies
from nasattn.search.study import StudyConfig, make_config
from nasattn.store import LatencyRecord, Store

WIDE = """
host: nasattn_resnet18
stages:
  all: {none: , se: , eca: , ela_t: , sge: {groups: [8, 16, 32]}}
"""


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("space") / "wide.yaml"
    path.write_text(WIDE)
    return str(path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A database and a machine on which every latency is known: it is the number of attentions that decides."""
    store = Store(f"sqlite:///{tmp_path / 'studies.db'}")

    def latency(self: HostLatencies, placement: Placement) -> tuple[int, LatencyRecord]:
        found = self.store.find_latency(self.key, self.host.name, str(placement))
        if found is not None:
            return found
        ratio = 1 + sum(0.01 * (i + 1) * len(str(a)) for i, a in enumerate(placement) if a.form != "none")
        record = LatencyRecord(10 * ratio, 10.0, ratio, ratio, ratio, 9, settled=True, exclusive=True)
        return self.store.add_latency(self.key, self.host.name, str(placement), record), record

    monkeypatch.setattr(HostLatencies, "latency", latency)
    monkeypatch.setattr(HostLatencies, "_count", lambda self, placement: (1, 2))
    return store


def configure(space_file: str, **settings: Any) -> StudyConfig:
    fidelity = {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": 4, "width": 0.5, "rungs": 3}
    return make_config(
        {
            "space": space_file,
            "study": "s",
            "sampler": "random",
            "trials": 20,
            "certify": 0,
            "halving": True,
            "fidelity": fidelity,
            **settings,
        }
    )


def begin(store: Store, config: StudyConfig, name: str = "s") -> PlacementSearch:
    config = enter_study(replace(config, name=name), store, fresh=False)
    reconcile(store, name)
    appraiser = Appraiser(store, config.space.host, config.deployment, config.limits)
    search = PlacementSearch(config, store, appraiser, store.evaluations(name), lambda event: None)
    if not search.study.get_trials(deepcopy=False):
        enqueue(search, baselines(config.space))
    return search


def quality(placement: str) -> float:
    return 0.3 + sum(map(ord, placement)) * 2654435761 % 1000 / 2000


class Fleet:
    """Workers that train at once: every placement is as good at a rung as at the end."""

    def __init__(self, search: PlacementSearch, size: int = 4, seconds: float = 1.0) -> None:
        self.search, self.size, self.seconds = search, size, seconds
        self.work: dict[str, tuple[str, str]] = {}
        self.steps: dict[str, list[int]] = {}  # by identity: which rungs were trained
        self.progress: dict[str, int] = {}

    def run(self, most: int = 10_000) -> None:
        """Until nothing more begins, or so many reports were given."""
        for _ in range(most):
            while len(self.work) < self.size and (given := self.search.next_trial()) is not None:
                self.work[given[0]] = (given[1]["job"].placement, given[1]["identity"])
            if not self.work:
                self.search.finish()
                return
            name = next(iter(self.work))
            placement, identity = self.work.pop(name)
            rung = self.progress[identity] = self.progress.get(identity, 0) + 1
            self.steps.setdefault(identity, []).append(rung)
            last = rung == 3
            result = {"epoch": 2.0 ** (rung - 1), "loss": 1.0, "accuracy": quality(placement), "seconds": self.seconds * 2 ** (rung - 1)}
            result |= {"rung": rung, "worker": "here:1", "finished": last}
            if last:
                self.search.on_trial_complete(name, result)
            elif self.search.on_trial_result(name, result):
                self.work[name] = (placement, identity)
