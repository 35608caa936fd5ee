"""Checkpoints of trainings: whoever trains the same job again goes on from its last report, to the same result.

A checkpoint belongs to a training's identity, not to a process or a study: a worker that was killed, a driver that was
killed, and a trial that is queued again all find it. It is written whole or not at all. Of a training that has ended its
reports stay until whoever told the result removes them: a driver killed just before that need not train anything twice.
"""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nasattn.errors import UsageError
from nasattn.proxy import steps
from nasattn.proxy.trainer import ProxyTraining, TrainingReport

ENVIRONMENT = "NASATTN_CHECKPOINTS"
KEPT_DAYS = 7  # of a checkpoint that nobody asked for again


class Checkpoints:
    """The folder of checkpoints: one file per identity.

    Args:
        folder: Where they lie, a path or any URL that fsspec knows, such as ``s3://bucket/checkpoints``; by default the
            environment's NASATTN_CHECKPOINTS, else ``nasattn/checkpoints`` in the user's cache. On a cluster a trial can go on
            elsewhere only if all nodes see this folder.

    Raises:
        UsageError: A URL of a kind that fsspec does not know, or whose package is not installed.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        import fsspec

        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        place = str(folder or os.environ.get(ENVIRONMENT) or Path(cache) / "nasattn" / "checkpoints")
        try:
            self._files, self.folder = fsspec.core.url_to_fs(place)
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"checkpoints cannot be kept in {place}: {error}; set {ENVIRONMENT} to a folder, or a URL that fsspec knows"
            ) from None

    def save(self, identity: str, state: dict[str, Any]) -> None:
        """Replace the checkpoint of *identity* by *state*: tensors and plain values. It is there whole or not at all."""
        self._files.makedirs(self.folder, exist_ok=True)
        content = io.BytesIO()
        torch.save(state, content)
        partial = f"{self.folder}/{identity}.{os.getpid()}.partial"
        try:
            self._files.pipe_file(partial, content.getvalue())
            self._files.mv(partial, self._file(identity))
        except BaseException:
            with suppress(Exception):
                self._files.rm(partial)
            raise

    def load(self, identity: str) -> dict[str, Any] | None:
        """The state of *identity*, or None; a file that cannot be read counts as none. Nothing in it is executed."""
        try:
            content = io.BytesIO(self._files.cat_file(self._file(identity)))
            state = torch.load(content, map_location="cpu", weights_only=True)
        except Exception:  # torch raises whatever the broken bytes lead it to
            return None
        return state if isinstance(state, dict) else None

    def remove(self, identity: str) -> None:
        """Forget the checkpoint of *identity*, if there is one that can be reached; what stays is pruned some day."""
        with suppress(OSError):
            self._files.rm(self._file(identity))

    def prune(self, days: float = KEPT_DAYS) -> None:
        """Remove what is older than *days*."""
        with suppress(OSError):
            for file in self._files.glob(f"{self.folder}/*.p*t*"):
                with suppress(OSError, NotImplementedError):  # a store that keeps no times
                    if time.time() - self._files.modified(file).timestamp() > days * 86400:
                        self._files.rm(file)

    def _file(self, identity: str) -> str:
        return f"{self.folder}/{identity}.pt"


class CheckpointedTraining:
    """A training that goes on from its checkpoint and leaves one after every report.

    One that had ended gives its reports once more, without any training. One whose checkpoint cannot be kept says so in its notes.

    Args:
        training: Just begun.
        identity: What makes two trainings the same.
        checkpoints: Where they lie.
    """

    def __init__(self, training: ProxyTraining, identity: str, checkpoints: Checkpoints) -> None:
        self.training, self.identity, self.checkpoints = training, identity, checkpoints
        self.circumstances = {
            "job": repr(training.job),
            "data": _fingerprint(training),
            "torch": str(torch.__version__),
            "steps": steps.VERSION,
        }
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
        try:
            self.checkpoints.save(self.identity, {"training": state, "reports": self.reports, **self.circumstances})
        except Exception as error:  # a full disk, a store that cannot be reached: the training needs no checkpoint to go on
            return replace(report, notes=(*report.notes, f"no checkpoint could be kept: {type(error).__name__}: {error}"))
        return report


def _fingerprint(training: ProxyTraining) -> list[float]:
    """Tells whether the data are those that the checkpoint was trained on: their number and statistics."""
    return [float(len(training.train)), float(len(training.val)), *(float(v) for t in training.scale for v in t.flatten())]
