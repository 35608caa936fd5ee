"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(file: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A file beside *file* to write to, moved there in one step at the end; what was there stays until then.

    Args:
        file: Where to.
        mode: Permissions, of which the process's mask takes some.

    Raises:
        OSError: The disk is full, for instance. Nothing is left behind.
    """
    part = file.with_name(f"{file.stem[:100]}{secrets.token_hex(6)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode), "wb") as stream:
            yield stream
        os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
