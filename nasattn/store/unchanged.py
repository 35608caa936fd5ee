"""A database opened so that nothing in it changes, not even its schema."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nasattn.store.database import SCHEMA_HEAD, VERSION_TABLE
from nasattn.store.store import Store


def open_unchanged(url: str) -> Store | None:
    """The store of a database, to read; None where there is no database, it is not ours, or it would have to be migrated first.

    Raises:
        StorageError: The URL is wrong.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        return Store(url, create=False)  # says what is wrong with it
    if parsed.get_backend_name() == "sqlite" and (not parsed.database or not Path(parsed.database).is_file()):
        return None
    try:
        with sa.create_engine(parsed).connect() as connection:
            known = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    except (SQLAlchemyError, ModuleNotFoundError):
        return None
    return Store(url, create=False) if known == SCHEMA_HEAD else None
