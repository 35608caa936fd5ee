"""What lies below a folder of images: the images, and what is none."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from nasattn.errors import TaskError

KINDS = (  # of image files, by the ends of their names
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".jp2", ".j2k", ".avif", ".tga", ".ico", ".sgi", ".pcx", ".dds", ".qoi"),
)
SHOWN = 5  # names that a note tells


@dataclass(frozen=True)
class Walked:
    """What lies below a folder.

    Attributes:
        root: The folder.
        images: Their paths in it, with slashes, in natural order.
        others: How many other files there are, by the ends of their names.
        empty: Folders without anything to read.
    """

    root: Path
    images: list[str]
    others: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What of it is left out."""
        found = []
        if self.others:
            kinds = ", ".join(f"{kind} ({count:,})" for kind, count in self.others.most_common(SHOWN))
            more = f" and {len(self.others) - SHOWN} other kinds" if len(self.others) > SHOWN else ""
            found.append(f"left out of {self.root.name}/ is what is no image by its name: {kinds}{more}")
        if self.empty:
            found.append(f"no class, for want of images: {some([f'{self.root.name}/{name}' for name in self.empty])}")
        return found


def natural_key(text: str) -> tuple[list[Any], str]:
    """Sorts ``2`` before ``10``, as timm does."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"([0-9]+)", text.lower()))], text


def walk(root: Path) -> Walked:
    """All images below *root*; hidden files and folders do not count. A folder is entered once, whatever links lead to it."""

    def refuse(error: OSError) -> None:
        raise TaskError(f"task folder {error.filename} cannot be read: {error.strerror}; mend that and run the same again") from None

    images: list[str] = []
    others: Counter[str] = Counter()
    filled: set[str] = set()
    folders: list[str] = []
    entered: set[str] = set()
    for place, below, files in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(place)) in entered:
            below.clear()
            continue
        entered.add(real)
        below[:] = [name for name in below if not _is_hidden(name)]
        relative = Path(os.path.relpath(place, root)).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        folders += [relative] if prefix else []
        for name in files:
            if _is_hidden(name):
                continue
            kind = os.path.splitext(name)[1].lower()
            if kind in KINDS:
                images.append(prefix + name)
                filled.update(map(str, PurePosixPath(prefix + name).parents) if relative not in filled else ())
            else:
                others[kind or "without an ending"] += 1
    empty = [name for name in folders if name not in filled and not any(other.startswith(f"{name}/") for other in folders)]
    return Walked(root, sorted(images, key=natural_key), others, sorted(empty, key=natural_key))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if not _is_hidden(entry.name))
    except OSError as error:
        raise TaskError(f"task folder {place} cannot be read: {error.strerror}; mend that and run the same again") from None


def folders_in(place: Path) -> list[Path]:
    return [entry for entry in _entries(place) if entry.is_dir()]


def has_images(place: Path) -> bool:
    """Whether images lie in *place* itself."""
    return any(entry.suffix.lower() in KINDS and not entry.is_dir() for entry in _entries(place))


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
