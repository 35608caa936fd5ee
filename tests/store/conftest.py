"""The databases of the store's tests: SQLite files, and a real PostgreSQL server that lives as long as the tests."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from nasattn.store import Store
from tests.store.postgres import PASSWORD, USER, binaries, postgresql_url, unprivileged

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """A server of its own on a socket in a folder of its own, which asks for the password."""
    tools, user = binaries(), unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="nasattn-pg-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    if user is not None:
        for path in (folder, password):
            shutil.chown(path, user)

    def call(tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [tools / tool, "-D", folder / "data", *arguments],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"

    call("initdb", "-U", USER, f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
    call("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", f"-F -k {folder} -c listen_addresses='' -c timezone=Asia/Tokyo")
    yield folder
    call("pg_ctl", "stop", "-m", "immediate")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    server, name = request.getfixturevalue("server"), f"test{next(NUMBERS)}"
    admin = sa.create_engine(postgresql_url(server, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return postgresql_url(server, name)


@pytest.fixture
def open_store() -> Iterator[Callable[..., Store]]:
    """Opens stores and closes their connections after the test."""
    opened: list[Store] = []

    def open_one(url: str, **options: bool) -> Store:
        opened.append(Store(url, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.engine.dispose()
        if "optuna" in vars(store):
            store.optuna.engine.dispose()


@pytest.fixture
def store(url: str, open_store: Callable[..., Store]) -> Store:
    return open_store(url)
