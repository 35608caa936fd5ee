"""Decoded images on disk: a folder is decoded once, and every worker of every later study maps the same file.

The files lie in the folder NASATTN_CACHE, by default ``nasattn`` in the user's cache folder. A file's name says what is
in it: it follows from the images' paths, sizes and times of change, from their order and from the resolution. So a
changed folder has another file, and deleting files costs nothing but decoding anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from nasattn.tasks.images import Images, Pixels

AT_ONCE = 1024  # images decoded between two writes
VERSION = 1  # raise it when the same file shall give other pixels


def cache_folder() -> Path:
    """Where decoded images are kept: NASATTN_CACHE, else ``nasattn`` in the platform's cache folder of the user."""
    chosen = os.environ.get("NASATTN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "nasattn"


def cpus() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoded(images: Images, resolution: int) -> Pixels:
    """The pixels of *images*, ``(N, 3, R, R)`` uint8, from the cache where they have been decoded before.

    Where the cache folder cannot be written, a warning says so and the images are decoded into memory.

    Raises:
        TaskError: An image cannot be decoded.
    """
    shape = (len(images), 3, resolution, resolution)
    key = _fingerprint(images, resolution)
    if key is None:
        return np.concatenate(list(_decode(images, resolution)))
    file = cache_folder() / f"{key}.npy"
    known = _open(file, shape)
    if known is not None:
        return known
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(file):
            known = _open(file, shape)  # another worker may have written it while this one waited
            if known is not None:
                return known
            _write(file, shape, _decode(images, resolution))
    except OSError as error:
        warnings.warn(
            f"decoded images cannot be kept in {file.parent} ({error}); set NASATTN_CACHE to a folder that can be written", stacklevel=2
        )
        return np.concatenate(list(_decode(images, resolution)))
    written = _open(file, shape)
    return written if written is not None else np.concatenate(list(_decode(images, resolution)))


def _fingerprint(images: Images, resolution: int) -> str | None:
    files = images.files()
    if files is None:
        return None
    digest = hashlib.sha256(f"{VERSION} {resolution}\n".encode())
    digest.update(images.indices.tobytes())
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # decoding will name it
            return None
        digest.update(f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def _open(file: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The array in *file*, mapped into memory; None where there is no such file or it is broken."""
    try:
        array: Pixels = np.load(file, mmap_mode="c")  # writes would stay in this process: torch asks for a writable array
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(file: Path, shape: tuple[int, ...], blocks: Iterator[Pixels]) -> None:
    """Write *blocks* beside *file* and move them there in one step. A full disk is an OSError here, and not a signal as with mapped memory."""
    handle, name = tempfile.mkstemp(prefix=file.stem, suffix=".part", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as part:
            npy.write_array_header_1_0(part, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for block in blocks:
                part.write(block.data)
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _decode(images: Images, resolution: int) -> Iterator[Pixels]:
    """The pixels in blocks of at most `AT_ONCE`. Pillow lets go of the interpreter while it decodes, so threads are enough."""
    if not len(images):
        yield np.zeros((0, 3, resolution, resolution), np.uint8)
    with ThreadPoolExecutor(cpus()) as threads:
        for start in range(0, len(images), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(images)))
            yield np.stack(list(threads.map(lambda row: images.pixels(row, resolution), rows)))


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Let one process at a time decode *file*; the system ends the wait when that process dies."""
    try:
        import fcntl
    except ImportError:  # Windows: several may decode, the last one's file stays
        yield
        return
    with open(file.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
