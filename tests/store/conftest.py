"""The databases of the store's tests: SQLite files, and a real PostgreSQL server that lives as long as the tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nasattn.store import Store
from tests.store.postgres import Server, running_server

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def server(postgres: Server) -> Path:
    """The folder of the server's socket."""
    return postgres.folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    server: Server = request.getfixturevalue("postgres")
    return server.create(f"test{next(NUMBERS)}")


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
