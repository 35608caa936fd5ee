"""Whole searches replayed on a table: the driver's own decisions (sampler, rungs, halving, certification), with look-ups for workers.

Nothing here decides anything: :class:`nasattn.search.bridge.PlacementSearch` does, as in a real search, against a database in
memory. A training's accuracies at its rungs are those of the table; the study's own seed is one of the table's trainings of that
placement, the next seed another one. Certification may ask for more seeds than the table has: these are its mean accuracy
and a deviation of another placement's trainings from theirs, drawn at random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from table import Table

from nasattn.attention import Placement
from nasattn.front import FrontMember, front, hypervolume, non_dominated
from nasattn.search.appraisal import Appraiser
from nasattn.search.bridge import PlacementSearch
from nasattn.search.continuing import baselines, enqueue, enter_study
from nasattn.search.latencies import HostLatencies
from nasattn.search.study import make_config
from nasattn.store import LatencyRecord, Store

Floats = npt.NDArray[np.float64]
BASELINE_MS = 100.0


class TableLatencies(HostLatencies):
    """Latencies of a table: known before training, exact, nothing is measured."""

    table: Table

    def latency(self, placement: Placement) -> tuple[int, LatencyRecord]:
        found = self.store.find_latency(self.key, self.host.name, str(placement))
        if found is not None:
            return found
        self.count(placement)
        return self.store.add_latency(self.key, self.host.name, str(placement), record := self.predicted(placement)), record

    def predicted(self, placement: Placement) -> Any:
        ratio = self.table.entries[str(placement)].latency
        return LatencyRecord(BASELINE_MS * ratio, BASELINE_MS, ratio, ratio, ratio, 9, settled=True, exclusive=True)

    def count(self, placement: Placement) -> tuple[int, int]:
        self.store.add_architecture(self.host.name, str(placement), 1, 1)
        return 1, 1


@dataclass
class Truth:
    """What the table says of fronts.

    Attributes:
        reference: Where hypervolume is counted from: the lower quartile of the accuracies and the greatest latency.
        best: The hypervolume of the whole table.
        front: The placements that no other beats.
    """

    table: Table
    reference: tuple[float, float] = field(init=False)
    best: float = field(init=False)
    front: set[str] = field(init=False)

    def __post_init__(self) -> None:
        names = list(self.table.entries)
        accuracy = np.array([self.table.entries[n].true_accuracy for n in names])
        latency = np.array([self.table.entries[n].latency for n in names])
        self.reference = (float(np.quantile(accuracy, 0.25)), float(latency.max()))
        self.best = hypervolume(accuracy, latency, self.reference)
        self.front = {names[i] for i in np.flatnonzero(non_dominated(accuracy, latency))}

    def share(self, names: list[str], accuracy: Floats | None = None) -> float:
        """The hypervolume of placements, by their true accuracies unless others are given, as a share of the best."""
        entries = [self.table.entries[n] for n in names]
        values = np.array([e.true_accuracy for e in entries]) if accuracy is None else accuracy
        return hypervolume(values, np.array([e.latency for e in entries]), self.reference) / self.best

    def claimed(self, observed: dict[str, float]) -> float:
        """The share of the front that observed accuracies claim, by its true values."""
        names = list(observed)
        latency = np.array([self.table.entries[n].latency for n in names])
        kept = non_dominated(np.array([observed[n] for n in names]), latency)
        return self.share([n for n, on in zip(names, kept, strict=True) if on])


class Trainings:
    """The accuracies that trainings come to, drawn once for a run.

    Args:
        table: Of trainings.
        seed: Which of a placement's trainings is the study's own.
    """

    def __init__(self, table: Table, seed: int) -> None:
        self.table, self.rng = table, np.random.default_rng([seed, 2])
        scale = np.sqrt(len(table.seeds) / max(1, len(table.seeds) - 1))  # deviations from the mean of few are too small
        self.deviations = [scale * (a[-1] - e.true_accuracy) for e in table.entries.values() for a in e.accuracy.values()]
        self.order = {name: self.rng.permutation(table.seeds) for name in table.entries}

    def curve(self, placement: str, number: int) -> tuple[float, ...]:
        """At all rungs, of the training with the study's seed plus *number*."""
        entry = self.table.entries[placement]
        if number < len(self.table.seeds):
            return entry.accuracy[int(self.order[placement][number])]
        last = float(np.clip(entry.true_accuracy + self.rng.choice(self.deviations), 0.0, 1.0))
        return (*entry.accuracy[int(self.order[placement][0])][:-1], last)


def replay_search(table: Table, seed: int, trials: int, workers: int = 2, **settings: Any) -> dict[str, Any]:
    """One search of *table*.

    Args:
        table: Every placement of its space.
        seed: Of the sampler and of the draw of trainings.
        trials: Of the study.
        workers: Trainings under way at once.
        **settings: Keys of a study file: sampler, halving, certify.

    Returns:
        ``trace``: after every training that ended the compute so far, in whole trainings, and the share of the best
        hypervolume (see :meth:`Truth.claimed`; what was trained with several seeds counts by their mean, as on a study's front); ``compute``; ``members``: of the front at the end; ``certified``: of them;
        ``true`` and ``true_certified``: how many of either are on the table's front; ``claimed`` and ``honest``: the front's
        hypervolume by its own accuracies and by the true ones, as shares of the best.
    """
    truth, trainings = Truth(table), Trainings(table, seed)
    with tempfile.TemporaryDirectory() as folder:
        search = _begin(table, Path(folder), {"seed": seed, "trials": trials, **settings})
        observed: dict[str, list[float]] = {}
        trace, compute = [], 0.0
        for compute, placement, accuracy in _train(search, trainings, workers):
            if accuracy is not None:
                observed.setdefault(placement, []).append(accuracy)
                trace.append((compute, truth.claimed({name: float(np.mean(seeds)) for name, seeds in observed.items()})))
        members = front(search.store.evaluations(search.config.name))
    return {"trace": trace, "compute": compute, **_appraise(members, truth)}


def _begin(table: Table, folder: Path, settings: dict[str, Any]) -> PlacementSearch:
    space = folder / f"{table.space.name}.yaml"
    space.write_text(yaml.safe_dump(table.space.to_dict()))
    keys = {"task": table.made["task"], "fidelity": table.made["fidelity"], "recipe": table.made["recipe"]}
    config = make_config({"space": str(space), "study": "replay", **keys, **settings})
    store = Store(f"sqlite:///{folder / 'replay.db'}")
    config = enter_study(config, store, fresh=False)
    appraiser = Appraiser(store, config.space.host, config.deployment, config.limits)
    latencies = TableLatencies(store, appraiser.host, config.deployment)
    latencies.table, appraiser.latencies = table, latencies
    search = PlacementSearch(config, store, appraiser, [], lambda event: None)
    enqueue(search, [p for p in baselines(config.space) if str(p) in table.entries])
    return search


def _train(search: PlacementSearch, trainings: Trainings, workers: int) -> Iterator[tuple[float, str, float | None]]:
    """Give trials to workers that all train at the same speed; yields the compute so far and what a report says, its accuracy if it is the last."""
    shares = trainings.table.rungs
    epochs = search.config.fidelity.epochs
    busy: list[tuple[float, int, str, Any, int]] = []  # when the next report comes, a tie-breaker, trial, job, rung
    reached: dict[str, int] = {}
    clock, compute, order = 0.0, 0.0, 0

    def begin(at: float, name: str, job: Any, identity: str) -> None:
        nonlocal order
        rung = reached.get(identity, 0)
        order += 1
        busy.append((at + shares[rung] - (shares[rung - 1] if rung else 0.0), order, name, (job, identity), rung))

    while True:
        while len(busy) < workers and (given := search.next_trial()) is not None:
            begin(clock, given[0], given[1]["job"], given[1]["identity"])
        if not busy:
            search.finish()
            return
        busy.sort(key=lambda work: work[:2])
        clock, _, name, (job, identity), rung = busy.pop(0)
        compute += shares[rung] - (shares[rung - 1] if rung else 0.0)
        reached[identity] = rung + 1
        accuracy = trainings.curve(job.placement, job.seed - search.config.seed)[rung]
        report = {
            "epoch": shares[rung] * epochs,
            "loss": 1.0,
            "accuracy": accuracy,
            "seconds": shares[rung],
            "rung": rung + 1,
            "worker": "table",
        }
        if rung + 1 == len(shares):
            search.on_trial_complete(name, {**report, "finished": True})
            yield compute, job.placement, accuracy
        else:
            if search.on_trial_result(name, {**report, "finished": False}):
                begin(clock, name, job, identity)
            yield compute, job.placement, None


def _appraise(members: list[FrontMember], truth: Truth) -> dict[str, Any]:
    names = [m.placement for m in members]
    certified = [m.placement for m in members if m.tier == "certified"]
    return {
        "members": len(names),
        "certified": len(certified),
        "true": len(truth.front.intersection(names)),
        "true_certified": len(truth.front.intersection(certified)),
        "claimed": truth.share(names, np.array([m.accuracy for m in members])),
        "honest": truth.share(names),
    }


def share_at(trace: list[tuple[float, float]], compute: float) -> float:
    """The share reached for at most so much *compute*; 0 before the first training ended."""
    return max((i for i in trace if i[0] <= compute + 1e-9), default=(0.0, 0.0))[1]


HALVING: dict[str, Any] = {"sampler": "random", "halving": True, "certify": 0}  # beside random search that trains everything to the end
SEARCHES: dict[str, dict[str, Any]] = {
    "certified": {"sampler": "placement", "certify": 0.2},  # as it is by default
    "uncertified": {"sampler": "placement", "certify": 0},
}
MOST_UNCERTIFIED = 60  # whole trainings: the largest budget of searches that are there for comparison
TARGETS = {"compute": 0.12, "halving_compute": 0.35, "true": 0.75, "overclaim": 0.03}


def budgets_of(search: str, trials: int, points: list[int]) -> list[int]:
    """The compute budgets, in whole trainings, with which the search of that name is replayed beside samplers of so many *trials*."""
    most = trials if search == "certified" else min(MOST_UNCERTIFIED, trials)
    return [b for b in sorted({round(TARGETS["compute"] * trials), *points}) if b <= most]


Runs = dict[int, list[dict[str, Any]]]  # by compute budget the results of all seeds


def judge(
    searches: dict[str, Runs], halving: list[dict[str, Any]], trials: int, usual: Floats, random: Floats, local: Floats, points: list[int]
) -> dict[str, Any]:
    """What the replayed searches show beside samplers that train everything to the end.

    A budget is what a user gives, and a search that knows it divides it between new placements and certainty; so each budget has
    searches of its own. What trainings add that were under way when it was used up does not count.

    Args:
        searches: By name of :data:`SEARCHES` and compute budget, the results of :func:`replay_search` for all seeds.
        halving: Those of :data:`HALVING` with as many trials as the samplers.
        trials: Of each sampler.
        usual: ``(seeds, points)``, the shares of Optuna's default.
        random: Those of random search.
        local: Those of local search.
        points: The numbers of trainings at which the three were asked.
    """
    told = {name: {b: _summary(found) | _reached(found, b) for b, found in runs.items()} for name, runs in searches.items()}
    goal, target = float(np.median(usual[:, -1])), TARGETS["compute"] * trials
    others = {"random": np.median(random, 0), "local": np.median(local, 0)}

    def beside(name: str) -> dict[str, Any]:
        """With which budget the searches called *name* have what the usual sampler has in the end, and where they are behind others."""
        medians = {b: float(np.median([share_at(r["trace"], b) for r in found])) for b, found in searches[name].items()}
        at = {other: [p for p, m in zip(points, s, strict=True) if p in medians and medians[p] < m] for other, s in others.items()}
        return {"reached_at": next((b for b in sorted(medians) if medians[b] >= goal), None), "below": at}

    ours = beside("certified")
    final, whole = float(np.median([share_at(r["trace"], trials) for r in halving])), float(np.median(random[:, -1]))
    compute = float(np.median([r["compute"] for r in halving])) / trials
    claims = {b: {key: found[key] for key in ("true", "true_certified", "overclaim")} for b, found in told["certified"].items()}
    targets = {
        "what_tpe_has_in_the_end": {
            "share": round(goal, 4), **ours, "target": target, "without_certification": beside("uncertified"),
            "met": ours["reached_at"] is not None and ours["reached_at"] <= target and not any(ours["below"].values()),
        },
        "halving_alone": {
            "share": round(final, 4), "without": round(whole, 4), "compute": round(compute, 3),
            "met": final >= whole and compute <= TARGETS["halving_compute"],
        },
        "claims": {
            "by_budget": claims, "true_uncertified": {b: found["true"] for b, found in told["uncertified"].items()},
            "met_with": [b for b, c in claims.items() if c["true"] >= TARGETS["true"] and c["overclaim"] <= TARGETS["overclaim"]],
        },
    }  # fmt: skip
    return {"searches": told, "targets": targets}


def _reached(found: list[dict[str, Any]], budget: float) -> dict[str, float]:
    """The share of the best hypervolume for that budget, over all seeds."""
    low, median, high = np.quantile([share_at(r["trace"], budget) for r in found], (0.25, 0.5, 0.75))
    return {"low": round(float(low), 4), "median": round(float(median), 4), "high": round(float(high), 4)}


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all seeds: compute, the share of members that are true, also of the certified ones, and claimed less honest hypervolume."""
    total = {key: sum(r[key] for r in found) for key in ("members", "true", "certified", "true_certified")}
    return {
        "compute": round(float(np.median([r["compute"] for r in found])), 2),
        "true": round(total["true"] / max(1, total["members"]), 3),
        "true_certified": round(total["true_certified"] / total["certified"], 3) if total["certified"] else None,
        "overclaim": round(float(np.median([r["claimed"] - r["honest"] for r in found])), 4),
    }
