"""scikit-learn's handwritten digits, read from its package without importing it, which takes longer than a tenth of a proxy's training."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DARKEST = 16  # of the scans' values


class Scans(NamedTuple):
    """Scans, ``(N, 8, 8)`` with values in 0..1, and their digits, ``(N,)``."""

    images: npt.NDArray[np.float32]
    digits: npt.NDArray[np.int64]


@cache
def handwritten_digits() -> Scans:
    """The 1,797 scans of ``sklearn.datasets.load_digits``, in its order."""
    spec = find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else Path()
    if file.is_file():
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
        images, digits = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    else:  # it keeps them elsewhere by now
        from sklearn.datasets import load_digits

        images, digits = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8)
    return Scans((images / DARKEST).astype(np.float32), digits.astype(np.int64))
