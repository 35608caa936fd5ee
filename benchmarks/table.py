"""Tables of trained placements in `benchmarks/tables/`: what they hold, how they are read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasattn.attention import Placement
from nasattn.space import SearchSpace

TABLES = Path(__file__).resolve().parent / "tables"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """One placement.

    Attributes:
        latency: Of the whole host, as a ratio to the plain one.
        accuracy: By seed the accuracies at the rungs, 0..1; the last is the end of the training.
    """

    latency: float
    accuracy: Mapping[int, tuple[float, ...]]

    @property
    def true_accuracy(self) -> float:
        """Mean over the seeds at the end."""
        return float(np.mean([a[-1] for a in self.accuracy.values()]))


@dataclass(frozen=True)
class Table:
    """A space of which every placement was trained.

    Attributes:
        name: The file's stem.
        space: All its placements are in `entries`.
        entries: By placement.
        rungs: Shares of the whole training at which accuracies were taken, in order; the last is 1.
        made: What made it: task, device, fidelity, recipe, device key of the latencies, their error, command, versions;
            where searches use fewer rungs than it has, how many (`rungs_of_searches`).
    """

    name: str
    space: SearchSpace
    entries: Mapping[str, Entry]
    rungs: tuple[float, ...]
    made: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that every placement was trained with."""
        return tuple(sorted(set.intersection(*(set(e.accuracy) for e in self.entries.values()))))

    @cached_property
    def missing(self) -> list[str]:
        """Placements of the space that are not in the table."""
        return [str(p) for p in self.space.placements() if str(p) not in self.entries]

    def at_rungs(self, number: int) -> Table:
        """The same trainings, looked at on their last *number* rungs only."""
        entries = {p: Entry(e.latency, {seed: a[-number:] for seed, a in e.accuracy.items()}) for p, e in self.entries.items()}
        made = {**self.made, "fidelity": {**self.made["fidelity"], "rungs": number}}
        return replace(self, entries=entries, rungs=self.rungs[-number:], made=made)

    def noise(self) -> float:
        """Standard deviation between seeds at the end, pooled over the placements."""
        variances = [np.var([a[-1] for a in e.accuracy.values()], ddof=1) for e in self.entries.values() if len(e.accuracy) > 1]
        return float(np.sqrt(np.mean(variances))) if variances else 0.0

    def write(self, path: Path) -> None:
        """Write the table, one placement a line."""
        head = {"space": {"name": self.space.name, **self.space.to_dict()}, "rungs": self.rungs, "made": self.made}
        lines = [
            f"{json.dumps(placement)}: " + json.dumps([e.latency, e.accuracy], separators=(",", ":"))
            for placement, e in self.entries.items()
        ]
        text = json.dumps(head, indent=1)[:-2] + ',\n "entries": {\n  ' + ",\n  ".join(lines) + "\n }\n}\n"
        path.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read what :meth:`write` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        space = dict(data["space"])
        return cls(
            name=path.stem,
            space=SearchSpace.from_dict(space.pop("name"), space),
            entries={
                str(Placement.parse(placement)): Entry(latency, {int(s): tuple(a) for s, a in accuracy.items()})
                for placement, (latency, accuracy) in data["entries"].items()
            },
            rungs=tuple(data["rungs"]),
            made=data["made"],
        )


def shipped_tables(folder: Path = TABLES) -> list[Table]:
    """All tables there are, by name."""
    return [Table.read(path) for path in sorted(folder.glob("*.json"))]
