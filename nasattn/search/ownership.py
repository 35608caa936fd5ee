"""One driver a study: the second is refused, and one that lost its study stops before it writes.

The database holds who drives a study and until when. The driver says again and again that it lives; when it stops saying so the
study is free after a minute, and at once where its process is known to have ended.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nasattn.errors import NasattnError, StorageError, StudyError
from nasattn.store import Store

LEASE = 60  # seconds for which a study stays with a driver that is not heard of
RENEWAL = 15.0  # seconds between two signs of life

_HERE: set[str] = set()  # the drivers of this process


class Ownership:
    """A study that this driver has to itself.

    Args:
        store: The study's database.
        study: Its name.
    """

    def __init__(self, store: Store, study: str) -> None:
        self.store, self.study = store, study
        self.driver = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.lost = ""
        self._renewed = 0.0

    def claim(self) -> None:
        """Take the study. Raises StudyError while another driver has it."""
        taken = self.store.claim_study(self.study, self.driver, LEASE, _is_gone)
        if taken is not None:
            other, left = taken
            raise StudyError(
                f"study {self.study} is driven by {_describe(other)}: wait until that ends, or choose another name with --study;"
                f" if it died, the study is free in {left} s"
            )
        self._renewed = time.time()

    def renew(self) -> None:
        """Say that this driver lives."""
        if taken := self.store.claim_study(self.study, self.driver, LEASE):
            self.lost = f"study {self.study} was taken over by {_describe(taken[0])}, as this driver was not heard of for {LEASE} s"
        else:
            self._renewed = time.time()

    def check(self) -> None:
        """Before anything is written. Raises NasattnError where another driver has taken the study."""
        if abs(time.time() - self._renewed) > LEASE / 2:  # this process was stopped for a while
            self.renew()
        if self.lost:
            raise NasattnError(f"{self.lost}; what it had in training is left to that one")


@contextmanager
def owned(store: Store, study: str) -> Iterator[Ownership]:
    """The study is this driver's inside. Raises StudyError while another one has it."""
    ownership = Ownership(store, study)
    ended = threading.Event()

    def stay_alive() -> None:
        while not ended.wait(RENEWAL):
            with suppress(StorageError):  # the database is away: whoever writes next will say so
                ownership.renew()

    thread = threading.Thread(target=stay_alive, name="nasattn-ownership", daemon=True)
    _HERE.add(ownership.driver)
    try:
        ownership.claim()
        thread.start()
        yield ownership
    finally:
        ended.set()
        if thread.is_alive():
            thread.join(1.0)  # else it could claim the study once more
        _HERE.discard(ownership.driver)
        with suppress(StorageError):
            store.release_study(study, ownership.driver)


def _is_gone(driver: str) -> bool:
    """Whether the process of a driver on this machine has ended."""
    host, pid, _ = driver.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():
        return driver not in _HERE
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _describe(driver: str) -> str:
    host, pid, _ = driver.rsplit(":", 2)
    return f"process {pid} on {host}"
