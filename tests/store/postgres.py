"""A PostgreSQL server of the tests' own: where its programs are, who runs them, how to reach it."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest

USER, PASSWORD = "nasattn", "not-to-be-shown"


def binaries() -> Path:
    """The folder of initdb and pg_ctl, of the newest PostgreSQL there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.fail(
            "PostgreSQL's initdb is not in /usr/lib/postgresql nor on PATH: install it with `apt-get install postgresql`", pytrace=False
        )
    return found[-1].parent if found else Path(str(on_path)).parent


def unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, None where we are not root."""
    if os.geteuid() != 0:
        return None
    return next((name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None)


def postgresql_url(server: Path, database: str, password: str = PASSWORD) -> str:
    return f"postgresql+psycopg://{USER}:{password}@/{database}?host={server}"
