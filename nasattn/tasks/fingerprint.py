"""What a task's images are, in a few lines that fit into a database: two tasks with the same fingerprint have the same images.

Of a folder it holds the number of images of every class folder and a digest of their names and sizes, and of their contents
where these are small. Times of change do not count: copying a folder changes them. So it is found without decoding anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasattn.errors import TaskError
from nasattn.tasks.images import Images

MOST_HASHED = 64 * 2**20  # bytes of all images together whose contents count
MOST_PARTS = 2_000  # class folders told apart; where there are more, only the splits are


def fingerprint_of(sources: Mapping[str, Images], version: int) -> dict[str, Any]:
    """The fingerprint of a task, for JSON.

    Args:
        sources: All images that the task may draw from, by the name of their split; none for a task that generates its images.
        version: Of what generates them.

    Returns:
        ``{"generator": version}``, or ``{"digest": ..., "parts": {"train/cat": [number of images, digest], ...}}``.

    Raises:
        TaskError: An image file has vanished.
    """
    if not sources:
        return {"generator": version}
    try:
        contents = sum(map(_size_of_all, sources.values())) <= MOST_HASHED
        parts = {name: part for split, images in sources.items() for name, part in _parts(split, images, contents).items()}
    except OSError as error:
        raise TaskError(f"image {error.filename} cannot be read: {error.strerror}; mend that and run the same again") from None
    return {"digest": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(), "parts": parts}


def _size_of_all(images: Images) -> int:
    found = images.paths()
    return sum(os.stat(path).st_size for path in found[1]) if found is not None else 0


def _parts(split: str, images: Images, contents: bool) -> dict[str, list[Any]]:
    found = images.paths()
    if found is None:  # images of a table, told by their labels
        return {split: [len(images), hashlib.sha256(images.labels.astype("<i8").tobytes()).hexdigest()[:16]]}
    root, paths = found
    folders: dict[str, list[bytes]] = {}
    for path in paths:
        name = Path(os.path.relpath(path, root))
        folder = f"{split}/{name.parent.as_posix()}".encode(errors="backslashreplace").decode()
        line = f"{name.as_posix()}\0{os.stat(path).st_size}\0".encode(errors="surrogateescape")
        folders.setdefault(folder, []).append(line + hashlib.sha256(Path(path).read_bytes()).digest() if contents else line)
    if len(folders) > MOST_PARTS:
        folders = {split: [line for lines in folders.values() for line in lines]}
    return {folder: [len(lines), hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()[:16]] for folder, lines in folders.items()}
