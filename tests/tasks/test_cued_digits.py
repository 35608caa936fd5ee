"""cued_digits: the images are read back, corner by corner, and must say what the labels say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nasattn.errors import TaskError
from nasattn.tasks import Split, Task, TaskRequest, load_task
from nasattn.tasks.cued_digits import _scans

CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def load(resolution: int = 48, samples: int = 200, val_samples: int = 100, seed: int = 0, held_out: bool = False) -> Task:
    return load_task("cued_digits", TaskRequest(resolution, samples, val_samples, seed, held_out))


def patches(split: Split, side: int) -> tuple[np.ndarray, np.ndarray]:
    """For each image and channel the one corner that is not dark, and what it holds: ``(N, 3)``, ``(N, 3, side, side)``."""
    images = split.images.numpy()
    far = images.shape[-1] - side
    corners = np.stack([images[:, :, r * far : r * far + side, c * far : c * far + side] for r, c in CORNERS], 2)  # N, channel, corner
    lit = corners.any((3, 4))
    assert (lit.sum(2) == 1).all(), "a channel shows one thing in one corner"
    assert (corners.sum((2, 3, 4), dtype=np.int64) == images.sum((2, 3), dtype=np.int64)).all(), "outside the corners it is dark"
    where = lit.argmax(2)
    return where, np.take_along_axis(corners, where[:, :, None, None, None], 2)[:, :, 0]


def scan_numbers(which: int) -> dict[bytes, int]:
    """The digit of each training (0), validation (1) or held-out (2) scan by its bytes."""
    images, digits = _scans()[which]
    return dict(zip((np.round(i * 255).astype(np.uint8).tobytes() for i in images), digits.tolist(), strict=True))


def cue_name(cue: np.ndarray) -> str:
    """What the blue channel shows, read from its pixels."""
    side = len(cue)
    middle, border = cue[side // 2, side // 2], cue[0, 0]
    if border:
        assert not middle
        return "frame"
    rows, columns = bool((cue == 255).all(1).any()), bool((cue == 255).all(0).any())
    assert middle and not (rows and columns)
    return "horizontal" if rows else "vertical" if columns else "block"


def asked(cue: str, red: int, green: int, blue: int) -> int:
    """Which digit a cue in corner *blue* asks for, of that in corner *red* (0) and that in corner *green* (1)."""
    if cue in ("horizontal", "vertical"):
        return int(cue == "vertical")
    mates = [c for c in (red, green) if (c // 2 == blue // 2 if cue == "frame" else c % 2 == blue % 2)]
    assert len(mates) == 1, "the digits stand in the row and in the column of the cue"
    return int(mates[0] == green)


@pytest.mark.parametrize("resolution", [24, 48])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["train", "val", "held out"])
def test_the_label_is_the_digit_that_the_cue_names(resolution: int, which: int) -> None:
    """Every scan that is shown is one of its own split, as only those of that split are known here."""
    task = load(resolution, held_out=which == 2)
    split = task.train if which == 0 else task.val
    known = scan_numbers(which)
    where, shown = patches(split, side=8)  # at these resolutions a scan is shown as it is, 8 x 8
    for corners, (red, green, cue), label in zip(where, shown, split.labels.tolist(), strict=True):
        assert len(set(corners)) == 3
        digits = known[red.tobytes()], known[green.tobytes()]
        assert digits[0] != digits[1]
        assert label == digits[asked(cue_name(cue), *corners)]


@pytest.mark.parametrize(("resolution", "side"), [(24, 8), (48, 8), (64, 10), (97, 16)])
def test_resolutions(resolution: int, side: int) -> None:
    task = load(resolution)
    for split, count in ((task.train, 200), (task.val, 100)):
        assert split.images.shape == (count, 3, resolution, resolution)
        where, shown = patches(split, side)
        assert all(len(set(corners)) == 3 for corners in where)
        assert {cue_name(cue) for cue in shown[:, 2]} == {"horizontal", "vertical", "frame", "block"}
    assert (task.name, task.classes, task.in_chans) == ("cued_digits", tuple("0123456789"), 3)


def test_training_validation_and_held_out_images_share_no_scan() -> None:
    numbers = [scan_numbers(which) for which in range(3)]
    assert not set(numbers[0]) & set(numbers[1]) and not set(numbers[0]) & set(numbers[2]) and not set(numbers[1]) & set(numbers[2])
    assert [len(scans.digits) for scans in _scans()] == [1347, 225, 225]
    assert all(set(known.values()) == set(range(10)) for known in numbers)


def test_held_out_images_are_others_but_the_training_images_are_the_same() -> None:
    plain, held_out = load(24), load(24, held_out=True)
    assert torch.equal(plain.train.images, held_out.train.images) and torch.equal(plain.train.labels, held_out.train.labels)
    assert not {i.numpy().tobytes() for i in plain.val.images} & {i.numpy().tobytes() for i in held_out.val.images}


def test_image_i_is_the_same_whatever_the_number_of_images() -> None:
    few, many = load(24, samples=7, val_samples=3), load(24, samples=2100, val_samples=1200)
    more = load(24, samples=1001, val_samples=1000)
    for a, b in ((few.train, many.train), (few.val, many.val), (more.train, many.train), (more.val, many.val)):
        assert torch.equal(a.images, b.images[: len(a)])
        assert torch.equal(a.labels, b.labels[: len(a)])


def test_the_seed_decides_everything() -> None:
    one, again, other = load(24), load(24), load(24, seed=1)
    assert torch.equal(one.train.images, again.train.images) and torch.equal(one.val.labels, again.val.labels)
    for a, b in ((one.train, other.train), (one.val, other.val)):
        same = (a.images == b.images).flatten(1).all(1)
        assert not same.any()


def test_without_the_cue_one_is_right_in_half_of_the_cases() -> None:
    split = load(24, samples=4000).train
    known = scan_numbers(0)
    where, shown = patches(split, side=8)
    red_meant = np.array([known[r.tobytes()] for r in shown[:, 0]]) == split.labels.numpy()
    cues = np.array([cue_name(cue) for cue in shown[:, 2]])
    assert 0.47 < red_meant.mean() < 0.53
    for cue in ("frame", "block"):  # nor does the cue alone say it, nor where one digit is
        of = cues == cue
        assert 0.07 < of.mean() < 0.13
        assert 0.42 < red_meant[of].mean() < 0.58
        assert all(0.35 < red_meant[of & (where[:, 0] == corner)].mean() < 0.65 for corner in range(4))
    assert np.bincount(split.labels, minlength=10).min() > 300  # the digits are evenly spread, and so are the corners
    assert min(np.bincount(where[:, channel], minlength=4).min() for channel in range(3)) > 850


def test_all_there_is() -> None:
    task = load_task("cued_digits", TaskRequest(resolution=24))
    assert (len(task.train), len(task.val)) == (10_000, 2_000)


def test_too_small() -> None:
    with pytest.raises(TaskError, match="cued_digits needs a resolution of at least 24 pixels, got 23"):
        load(23)
