"""Which images validate and which are held out, where nobody has said it: their names decide."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from nasattn.tasks.images import Ints

SHARE = 0.15  # of each class's images, to validate on, and the same to hold out
SPLIT_SEED = 0  # the same for all studies: else a trial with another seed would be scored on what the search has seen


def cut(names: Sequence[str], labels: Ints, *shares: float) -> list[Ints]:
    """Cut images in parts by their *names*: what stays, and of each class one part a share.

    A name's hash says to which part it belongs. So the parts of a class have about their shares; one is made larger or smaller where it
    has less than half or more than twice its share, or no image at all. The first part is served first; a class keeps an image at least.

    Args:
        names: Of the images, as they lie in the folder.
        labels: ``(N,)``.
        *shares: Of all images, each 0 to 1.

    Returns:
        The rows of what stays, then those of each part, in order.
    """
    places = np.array([_place(name) for name in names])
    order = np.lexsort((places, labels))
    part = np.zeros(len(names), np.int64)
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        first, below = 0, 0.0
        for number, share in enumerate(shares, start=1):
            below += share
            least, most = max(1, math.ceil(len(rows) * share / 2)), max(1, int(len(rows) * share * 2))
            wanted = int(np.searchsorted(places[rows], below)) - first
            taken = max(0, min(max(wanted, least), most, len(rows) - 1 - first))
            part[rows[first : first + taken]] = number
            first += taken
    return [np.flatnonzero(part == number) for number in range(len(shares) + 1)]


def _place(name: str) -> float:
    """Where *name* lies between 0 and 1, at random but always there."""
    digest = hashlib.sha256(f"{SPLIT_SEED}\0{name}".encode(errors="surrogateescape")).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)
