"""Checkpoints of trainings: whoever trains the same job again goes on from its last report, to the same result.

A checkpoint belongs to a training's identity, not to a process or a study: a worker that was killed, a driver that was
killed, and a trial that is queued again all find it. It is written whole or not at all. Of a training that has ended its
reports stay until whoever told the result removes them: a driver killed just before that need not train anything twice.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nasattn.proxy.trainer import ProxyTraining, TrainingReport

ENVIRONMENT = "NASATTN_CHECKPOINTS"
KEPT_DAYS = 7  # of a checkpoint that nobody asked for again


class Checkpoints:
    """The folder of checkpoints: one file per identity.

    Args:
        folder: Where they lie; by default the environment's NASATTN_CHECKPOINTS, else ``nasattn/checkpoints`` in the user's
            cache. On a cluster a trial can go on elsewhere only if all nodes see this folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = Path(folder or os.environ.get(ENVIRONMENT) or Path(cache) / "nasattn" / "checkpoints")

    def save(self, identity: str, state: dict[str, Any]) -> None:
        """Replace the checkpoint of *identity* by *state*: tensors and plain values. It is there whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{identity}.{os.getpid()}.partial"
        try:
            torch.save(state, partial)
            partial.replace(self._file(identity))
        finally:
            partial.unlink(missing_ok=True)

    def load(self, identity: str) -> dict[str, Any] | None:
        """The state of *identity*, or None; a file that cannot be read counts as none. Nothing in it is executed."""
        try:
            state = torch.load(self._file(identity), map_location="cpu", weights_only=True)
        except Exception:  # torch raises whatever the broken bytes lead it to
            return None
        return state if isinstance(state, dict) else None

    def remove(self, identity: str) -> None:
        """Forget the checkpoint of *identity*, if there is one."""
        self._file(identity).unlink(missing_ok=True)

    def prune(self, days: float = KEPT_DAYS) -> None:
        """Remove what is older than *days*."""
        for file in self.folder.glob("*.p*t*"):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > days * 86400:
                    file.unlink()

    def _file(self, identity: str) -> Path:
        return self.folder / f"{identity}.pt"


class CheckpointedTraining:
    """A training that goes on from its checkpoint and leaves one after every report.

    One that had ended gives its reports once more, without any training.

    Args:
        training: Just begun.
        identity: What makes two trainings the same.
        checkpoints: Where they lie.
    """

    def __init__(self, training: ProxyTraining, identity: str, checkpoints: Checkpoints) -> None:
        self.training, self.identity, self.checkpoints = training, identity, checkpoints
        self.circumstances = {"job": repr(training.job), "data": _fingerprint(training), "torch": str(torch.__version__)}
        self.reports: list[dict[str, Any]] = []  # since the beginning
        self._known: list[TrainingReport] = []  # of an ended training, that are to be given
        state = checkpoints.load(identity)
        if state is not None and all(state.get(k) == v for k, v in self.circumstances.items()):
            self.reports = state.get("reports", [])
            if state["training"] is None:
                self._known = [TrainingReport(**report) for report in self.reports]
            else:
                training.resume(state["training"])
        self._ended = bool(self._known)

    @property
    def done(self) -> bool:
        """Whether every epoch is trained."""
        return not self._known if self._ended else self.training.done

    def step(self) -> TrainingReport:
        """Train to the next report."""
        if self._known:
            return self._known.pop(0)
        report = self.training.step()
        self.reports.append(asdict(report))
        state = None if self.training.done else self.training.state()
        self.checkpoints.save(self.identity, {"training": state, "reports": self.reports, **self.circumstances})
        return report


def _fingerprint(training: ProxyTraining) -> list[float]:
    """Tells whether the data are those that the checkpoint was trained on: their number and statistics."""
    return [float(len(training.train)), float(len(training.val)), *(float(v) for t in training.scale for v in t.flatten())]
