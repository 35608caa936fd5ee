"""The database's URL as a user gives it: refused where its password stands in a place that messages would show."""

from __future__ import annotations

import os
import shlex
from urllib.parse import parse_qsl

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from nasattn.errors import StorageError

DEFAULT_STORAGE = "sqlite:///nasattn.db"
SECRETS = ("password", "passwd", "passphrase", "pwd", "secret", "token")  # parts of a parameter's name


def check_storage(url: str) -> str:
    """*url*, if its password, where it has one, stands before the host: there it is never shown.

    Raises:
        StorageError: A parameter behind the ``?`` is a password, or a character of the password is not escaped, so that what
            follows it is taken for the host; or an SQLite file is written as if it were a host. The message holds nothing of the URL.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):  # whoever opens the database says so
        return url
    hidden = [name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True) if any(s in name.lower() for s in SECRETS)]
    if hidden:
        raise StorageError(
            "the storage URL has a password behind its `?`, where messages would show it: write it as USER:PASSWORD@HOST, or set PGPASSWORD"
        )
    if parsed.get_backend_name() == "sqlite" and (parsed.host or parsed.username or parsed.password or parsed.port):
        raise StorageError(
            "the storage URL of an SQLite file has three slashes before the path, as in sqlite:///nasattn.db, and names no user"
        )
    if parsed.get_backend_name() != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        raise StorageError(
            "the storage URL has an @ too many: in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F and % as %25"
        )
    return url


def default_storage(storage: str | None = None) -> str:
    """*storage*, else the environment's NASATTN_STORAGE, else ``sqlite:///nasattn.db``.

    Raises:
        StorageError: Its password stands where messages would show it (see :func:`check_storage`).
    """
    return check_storage(storage or os.environ.get("NASATTN_STORAGE") or DEFAULT_STORAGE)


def storage_flag(url: str, shown: str) -> str:
    """`` --storage URL`` as a command needs it to find the database *url*, *shown* without its password; empty where it finds it unasked."""
    unasked = os.environ.get("NASATTN_STORAGE") or DEFAULT_STORAGE
    return "" if url == unasked else f" --storage {shlex.quote(shown)}"
