"""Augmentation of whole batches, on the device that holds them.

Its draws belong to the seed, the epoch and the place in the epoch's order, never to a placement, so that every candidate
of a study sees the same images in the same order.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nasattn.proxy.fidelity import Recipe


def stream(*key: int) -> int:
    """A seed for torch that belongs to *key*: independent streams for neighbouring keys."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_epoch(images: int, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """What an epoch needs of chance.

    Returns:
        The order of the images, ``(N,)`` int64, and for each place in it how the image is turned and where it is cut out, ``(N, 3)`` int64:
        the sum of 1 if its columns are mirrored, 2 if its rows are and 4 if they change places; then the row and the column, 0 to 2 * crop.
    """
    generator = torch.Generator().manual_seed(stream(seed, epoch))
    order = torch.randperm(images, generator=generator)
    mirrored = torch.randint(2, (images, 1), generator=generator) * recipe.flip
    corner = torch.randint(2 * recipe.crop + 1, (images, 2), generator=generator)
    symmetry = torch.randint(8, (images, 1), generator=generator) if recipe.dihedral else mirrored
    return order, torch.cat([symmetry, corner], 1)


def augment(images: Tensor, draws: Tensor, recipe: Recipe) -> Tensor:
    """Turn and shift each image as drawn: ``(B, C, H, W)`` and ``(B, 3)`` -> ``(B, C, H, W)``, of the same kind of numbers."""
    if not (recipe.flip or recipe.crop or recipe.dihedral):
        return images
    height, width = images.shape[2:]
    if recipe.crop:
        images = F.pad(images.float(), (recipe.crop,) * 4, mode="reflect").to(images.dtype)
    mirror_columns, mirror_rows, swap = (draws[:, :1] & bit != 0 for bit in (1, 2, 4))
    rows, columns = (torch.arange(size, device=images.device).expand(len(images), -1) for size in (height, width))
    rows = torch.where(mirror_rows, rows.flip(1), rows) + draws[:, 1, None]
    columns = torch.where(mirror_columns, columns.flip(1), columns) + draws[:, 2, None]
    number = torch.arange(len(images), device=images.device)
    images = images.permute(0, 2, 3, 1)[number[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(swap[:, :, None, None], images.transpose(2, 3), images) if recipe.dihedral else images
