"""Decoded images on disk: a folder is decoded once, and every worker of every later study maps the same file.

The files lie in the folder NASATTN_CACHE, by default ``nasattn`` in the user's cache folder. A file's name says what is
in it: it follows from the images' paths, sizes and times of change, from their order and from the resolution. So a
changed folder has another file, and deleting files costs nothing but decoding anew.

Images that cannot be decoded are left out, up to one in a hundred; beside the pixels lies a list of them. Which these are
follows from the files alone, so that every worker leaves out the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from PIL.Image import DecompressionBombWarning

from nasattn.errors import TaskError
from nasattn.files import replacing
from nasattn.tasks.images import BrokenImage, Images, Pixels

AT_ONCE = 1024  # images decoded between two writes
VERSION = 3  # raise it when the same file shall give other pixels
LEFT_OUT = 100  # one image in so many may be broken, and one in any case
PRIVATE = 0o600  # permissions: decoded images are the user's own
T = TypeVar("T")


@dataclass(frozen=True)
class Readable:
    """Images that can be decoded.

    Attributes:
        images: Those, in the order they were asked for.
        broken: Those among them that were left out.
        pixels: ``(N, 3, R, R)`` uint8; None where they were only checked.
    """

    images: Images
    broken: Images
    pixels: Pixels | None = None


def most_left_out(count: int) -> int:
    """How many of *count* images may be broken: one in a hundred, at least one, but not all."""
    return min(max(1, count // LEFT_OUT), max(0, count - 1))


def reserve(wanted: int) -> int:
    """How many more images than *wanted* must be at hand, so that broken ones can be replaced as long as not too many are."""
    return wanted // (LEFT_OUT // 2) + 1


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


def decoded(images: Images, resolution: int, wanted: int | None = None) -> Readable:
    """The first *wanted* of *images* that can be decoded, or all, with their pixels: from the cache where they have been decoded before.

    Where the cache folder cannot be written, a warning says so and the images are decoded into memory.

    Raises:
        TaskError: Too many images cannot be decoded, or one cannot be read.
    """
    wanted = len(images) if wanted is None else wanted

    def in_memory() -> Readable:
        blocks: list[Pixels] = [np.zeros((0, 3, resolution, resolution), np.uint8)]
        looked_at, broken = _read(images, wanted, lambda row: images.pixels(row, resolution), lambda block: blocks.append(np.stack(block)))
        return _readable(images, looked_at, broken, np.concatenate(blocks))

    def from_file(file: Path) -> Readable | None:
        known = _open_list(images, file)
        pixels = _open(file, (len(known.images), 3, resolution, resolution)) if known is not None else None
        return Readable(known.images, known.broken, pixels) if known is not None and pixels is not None else None

    def to_file(file: Path) -> None:
        with replacing(file, PRIVATE) as part:

            def header(count: int) -> None:  # as long for any count: numpy leaves room for it to grow
                npy.write_array_header_1_0(part, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, resolution, resolution)})

            header(wanted)
            looked_at, broken = _read(
                images, wanted, lambda row: images.pixels(row, resolution), lambda block: part.write(np.stack(block).data)
            )
            part.seek(0)
            header(looked_at - len(broken))
            _write_list(file, looked_at, broken)  # before the pixels, which are of no use without it

    return _kept(images, f"{resolution} {wanted}", ".npy", in_memory, from_file, to_file)


def checked(images: Images, wanted: int | None = None) -> Readable:
    """As `decoded`, but without pixels: every image is decoded once to see whether it can be, and the cache keeps the answer.

    Images of which no files are known, torchvision's own datasets, are taken as they are.

    Raises:
        TaskError: Too many images cannot be decoded, or one cannot be read.
    """
    wanted = len(images) if wanted is None else wanted
    if images.files() is None:
        return Readable(images.take(slice(wanted)), images.take(slice(0)))

    def check() -> tuple[int, list[int]]:
        return _read(images, wanted, images.check, lambda block: None)

    return _kept(
        images,
        f"check {wanted}",
        ".json",
        lambda: _readable(images, *check()),
        lambda file: _open_list(images, file),
        lambda file: _write_list(file, *check()),
    )


def _kept(
    images: Images,
    what: str,
    suffix: str,
    in_memory: Callable[[], Readable],
    from_file: Callable[[Path], Readable | None],
    to_file: Callable[[Path], None],
) -> Readable:
    """What *from_file* reads, after *to_file* has written it where need be; where the cache cannot be used what *in_memory* gives."""
    key = _fingerprint(images, what)
    if key is None:
        return in_memory()
    file = cache_folder() / f"{key}{suffix}"
    known = from_file(file)
    if known is not None:
        return known
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(file):
            known = from_file(file)  # another worker may have written it while this one waited
            if known is not None:
                return known
            to_file(file)
    except OSError as error:
        warnings.warn(
            f"decoded images cannot be kept in {file.parent} ({error}); set NASATTN_CACHE to a folder that can be written", stacklevel=3
        )
        return in_memory()
    written = from_file(file)
    return written if written is not None else in_memory()


def _read(images: Images, wanted: int, read: Callable[[int], T], keep: Callable[[list[T]], object]) -> tuple[int, list[int]]:
    """Read images in order until *wanted* could be read or none is left; *keep* gets what was read in blocks of at most `AT_ONCE`.

    Pillow lets go of the interpreter while it decodes, so threads are enough.

    Returns:
        How many images were looked at, and the rows of those that are broken.

    Raises:
        TaskError: More are broken than may be left out, or one cannot be read.
    """

    def attempt(row: int) -> T | BrokenImage:
        try:
            return read(row)
        except BrokenImage as error:
            return error

    broken: list[int] = []
    looked_at = 0
    with ThreadPoolExecutor(cpus()) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore", DecompressionBombWarning)  # such an image is broken to us
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of EXIF that is broken, whose pixels are not
        while (missing := wanted - (looked_at - len(broken))) > 0 and looked_at < len(images):
            rows = range(looked_at, min(looked_at + min(AT_ONCE, missing), len(images)))
            results = list(threads.map(attempt, rows))
            broken += [row for row, result in zip(rows, results, strict=True) if isinstance(result, BrokenImage)]
            if sound := [result for result in results if not isinstance(result, BrokenImage)]:
                keep(sound)
            looked_at = rows.stop
    if len(broken) > (allowed := most_left_out(looked_at)):
        names = ", ".join(images.take(np.array(broken[:3])).names())
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise TaskError(
            f"image{'s' if len(broken) > 1 else ''} {names}{more} cannot be decoded: {len(broken)} of {looked_at}, at most {allowed} may be left out; repair or remove them"
        )
    return looked_at, broken


def _readable(images: Images, looked_at: int, broken: list[int], pixels: Pixels | None = None) -> Readable:
    sound = np.ones(len(images), np.bool_)
    sound[looked_at:] = False
    sound[broken] = False
    return Readable(images.take(sound), images.take(np.array(broken, np.int64)), pixels)


def _fingerprint(images: Images, what: str) -> str | None:
    files = images.files()
    if files is None:
        return None
    digest = hashlib.sha256(f"{VERSION} {what}\n".encode())
    digest.update(images.indices.tobytes())
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # decoding will name it
            return None
        digest.update(f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def _open_list(images: Images, file: Path) -> Readable | None:
    """Which of *images* the list beside *file* calls broken; None where there is no such list or it is not about them."""
    try:
        known: Any = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        looked_at, broken = known["looked_at"], known["broken"]
        right = 0 <= looked_at <= len(images) and all(type(row) is int and 0 <= row < looked_at for row in broken)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return _readable(images, looked_at, broken) if right and type(looked_at) is int and isinstance(broken, list) else None


def _write_list(file: Path, looked_at: int, broken: list[int]) -> None:
    with replacing(file.with_suffix(".json"), PRIVATE) as part:
        part.write(json.dumps({"looked_at": looked_at, "broken": broken}).encode())


def _open(file: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The array in *file*, mapped into memory; None where there is no such file or it is broken."""
    try:
        array: Any = np.load(file, mmap_mode="c")  # writes would stay in this process: torch asks for a writable array
    except (OSError, ValueError, EOFError):
        return None
    return array if isinstance(array, np.ndarray) and array.shape == shape and array.dtype == np.uint8 else None


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
