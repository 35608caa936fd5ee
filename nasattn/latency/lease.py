"""One device, one stopwatch: a lease that a measurement takes, and that trainers on the same machine wait for.

Two lock files per device. A measurer locks the `gate`, so that no new training step begins, then waits for the steps
under way to end. A trainer passes the gate before each step and is counted in the `room` while it runs. The kernel drops
both locks of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import finalize


class DeviceLease:
    """The lease on one device of this machine.

    Args:
        device: ``cpu`` or ``cuda:0``.
        folder: Where the lock files lie; the same for all processes that share the device.
    """

    def __init__(self, device: str, folder: str | Path | None = None) -> None:
        base = Path(folder) if folder else Path(tempfile.gettempdir()) / f"nasattn-{os.getuid()}"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = device.replace(":", "")
        self._gate = os.open(base / f"{name}.gate", os.O_RDWR | os.O_CREAT, 0o600)
        self._room = os.open(base / f"{name}.room", os.O_RDWR | os.O_CREAT, 0o600)
        self._closing = finalize(self, _close, self._gate, self._room)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the device to oneself among nasattn's processes: for a measurement."""
        with _locked(self._gate, fcntl.LOCK_EX), _locked(self._room, fcntl.LOCK_EX):
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Run one training step: waits while someone measures."""
        with _locked(self._gate, fcntl.LOCK_SH):
            fcntl.flock(self._room, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock files; happens by itself when the lease is no longer used."""
        self._closing()


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


@contextmanager
def _locked(file: int, mode: int) -> Iterator[None]:
    fcntl.flock(file, mode)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
