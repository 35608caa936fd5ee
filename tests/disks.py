"""A small disk, and how it becomes full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of 8 MB in memory, mounted below *folder*; None where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "nasattn", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left of a *disk*, to the last byte."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 10, 1):
            with suppress(OSError):
                while stream.write(bytes(size)):
                    pass
    return file
