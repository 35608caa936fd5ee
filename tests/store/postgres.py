"""A PostgreSQL server of the tests' own: where its programs are, who runs them, how to reach it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

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


class Server:
    """A server of its own on a socket in *folder*, which asks for the password; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tools, self.user = folder, binaries(), unprivileged()
        password = folder / "password"
        password.write_text(PASSWORD)
        if self.user is not None:
            for path in (folder, password):
                shutil.chown(path, self.user)
        self._call("initdb", "-U", USER, f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        settings = f"-F -k {self.folder} -c listen_addresses='' -c timezone=Asia/Tokyo"
        self._call("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", settings)

    def stop(self, mode: str = "immediate") -> None:
        self._call("pg_ctl", "stop", "-w", "-m", mode)

    def create(self, database: str) -> str:
        """The URL of a new database."""
        admin = sa.create_engine(postgresql_url(self.folder, "postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {database}"))
        admin.dispose()
        return postgresql_url(self.folder, database)

    def _call(self, tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.tools / tool, "-D", self.folder / "data", *arguments],
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"


@contextmanager
def running_server() -> Iterator[Server]:
    """A server that lives as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="nasattn-pg-"))
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def postgresql_url(server: Path, database: str, password: str = PASSWORD) -> str:
    return f"postgresql+psycopg://{USER}:{password}@/{database}?host={server}"
