"""Waiting for a database that is away for a while: a server that restarts, a file that another writer has locked, a full disk.

One call is one transaction, so a call that failed for such a reason is simply made again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from nasattn.errors import StorageError

OUTAGE = 600.0  # seconds that a search waits for its database
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries
WORTH_TELLING = 2.0  # seconds
# "I/O": a full disk as well, where SQLite cannot make its journal larger; all else that it calls operational stays as it is,
# such as a table that is not there
PASSING_IN_SQLITE = ("locked", "busy", "full", "disk I/O error")

F = TypeVar("F", bound=Callable[..., Any])


class Patience:
    """How long calls to one database are made again, and who is told.

    Args:
        database: Its URL without the password.

    Attributes:
        seconds: Of one outage; 0: a call that fails has failed.
        notify: Called with a line when an outage begins and when it ends.
    """

    def __init__(self, database: str) -> None:
        self.database = database
        self.seconds = 0.0
        self.notify: Callable[[str], None] = lambda line: None
        self._inside = threading.local()  # a call within a call belongs to the transaction of the outer one
        self._lock = threading.Lock()
        self._told = False  # of the present outage; other threads need not say it again

    def call(self, work: Callable[[], Any]) -> Any:
        """What *work* gives, as soon as the database is there.

        Raises:
            StorageError: It was away for too long. Any error that will not pass is raised as it is.
        """
        if getattr(self._inside, "call", False) or self.seconds <= 0:
            return work()
        began, pause = 0.0, FIRST_PAUSE
        while True:
            self._inside.call = True
            try:
                result = work()
                break
            except Exception as error:
                cause = passing_cause(error)
                if cause is None:
                    raise
            finally:
                self._inside.call = False
            began = began or time.monotonic()
            away = time.monotonic() - began
            if away > self.seconds:
                self.seconds = 0.0  # nobody waits as long again
                raise StorageError(
                    f"database {self.database} has been away for {away:.0f} s: {cause}; when it is back, the same command goes on"
                ) from None
            if away > WORTH_TELLING and self._tells(True):
                self.notify(f"the database is away ({cause}): waiting for it, up to {self.seconds / 60:g} min")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if began and self._tells(False):
            self.notify(f"the database is back after {time.monotonic() - began:.0f} s")
        return result

    def _tells(self, away: bool) -> bool:
        """Whether the caller is the first to know that the database is *away*, or is back."""
        with self._lock:
            first, self._told = self._told != away, away
        return first


def patient(method: F) -> F:
    """*method*, of an object with an attribute ``patience``, called again while its database is away."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.patience.call(lambda: method(self, *args, **kwargs))

    return call  # type: ignore[return-value]


def passing_cause(error: BaseException) -> str | None:
    """What the database said, in a line, where it may be there again soon; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or cause.orig is None:
        return None
    line = (str(cause.orig).strip().splitlines() or [type(cause.orig).__name__])[0]
    if isinstance(cause.orig, sqlite3.Error):
        passes = isinstance(cause.orig, sqlite3.OperationalError) and any(word in line for word in PASSING_IN_SQLITE)
    else:
        passes = isinstance(cause, (OperationalError, InterfaceError)) or cause.connection_invalidated
    return line if passes else None
