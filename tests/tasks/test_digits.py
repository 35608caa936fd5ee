"""digits: real scans at any resolution, one split for all seeds."""

from __future__ import annotations

import numpy as np
import torch

from nasattn.tasks import TaskRequest, load_task
from nasattn.tasks.scans import handwritten_digits


def rows(images: torch.Tensor) -> set[bytes]:
    return {i.numpy().tobytes() for i in images}


def test_all_the_scans() -> None:
    task = load_task("digits", TaskRequest(resolution=8))
    assert (len(task.train), len(task.val)) == (1347, 225)
    assert task.train.images.shape == (1347, 3, 8, 8) and task.train.images.dtype == torch.uint8
    assert not rows(task.train.images) & rows(task.val.images)
    assert set(task.train.labels.tolist()) == set(task.val.labels.tolist()) == set(range(10))
    assert torch.equal(task.train.images[:, 0], task.train.images[:, 2])  # grey
    assert (task.train.images.amax(), task.train.images.amin()) == (255, 0)


def test_resolution() -> None:
    assert load_task("digits", TaskRequest(resolution=19, samples=5, val_samples=2)).train.images.shape == (5, 3, 19, 19)


def test_the_seed_chooses_the_subset_but_not_the_split() -> None:
    whole = load_task("digits", TaskRequest(8))
    few = [load_task("digits", TaskRequest(8, samples=50, val_samples=20, seed=s)) for s in (0, 0, 1)]
    assert torch.equal(few[0].train.images, few[1].train.images) and torch.equal(few[0].train.labels, few[1].train.labels)
    assert rows(few[0].train.images) != rows(few[2].train.images)
    for task in few:
        assert (len(task.train), len(task.val)) == (50, 20)
        assert rows(task.train.images) <= rows(whole.train.images)
        assert rows(task.val.images) <= rows(whole.val.images)


def test_held_out_scans() -> None:
    """They are neither trained nor validated on, whatever the seed."""
    plain, held_out, other_seed = (load_task("digits", TaskRequest(8, seed=s, held_out=h)) for s, h in ((0, False), (0, True), (1, True)))
    assert torch.equal(plain.train.images, held_out.train.images) and torch.equal(plain.train.labels, held_out.train.labels)
    assert len(held_out.val) == 225
    assert rows(held_out.val.images) == rows(other_seed.val.images)
    assert not rows(held_out.val.images) & (rows(plain.train.images) | rows(plain.val.images))


def test_more_than_there_are() -> None:
    assert len(load_task("digits", TaskRequest(8, samples=5000)).train) == 1347


def test_the_scans_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), handwritten_digits()
    assert (ours.images == theirs.images.astype(np.float32) / 16).all()
    assert (ours.digits == theirs.target).all()
