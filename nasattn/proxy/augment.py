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
        The order of the images, ``(N,)`` int64, and for each place in it whether the image is mirrored and where it is cut out,
        ``(N, 3)`` int64: 0 or 1, then the row and the column, 0 to 2 * crop.
    """
    generator = torch.Generator().manual_seed(stream(seed, epoch))
    order = torch.randperm(images, generator=generator)
    mirrored = torch.randint(2, (images, 1), generator=generator) * recipe.flip
    corner = torch.randint(2 * recipe.crop + 1, (images, 2), generator=generator)
    return order, torch.cat([mirrored, corner], 1)


def augment(images: Tensor, draws: Tensor, recipe: Recipe) -> Tensor:
    """Mirror and shift each image as drawn: ``(B, C, H, W)`` and ``(B, 3)`` -> ``(B, C, H, W)``, of the same kind of numbers."""
    if not (recipe.flip or recipe.crop):
        return images
    height, width = images.shape[2:]
    if recipe.crop:
        images = F.pad(images.float(), (recipe.crop,) * 4, mode="reflect").to(images.dtype)
    rows = torch.arange(height, device=images.device) + draws[:, 1, None]
    columns = torch.arange(width, device=images.device).expand(len(images), -1)
    columns = torch.where(draws[:, :1] == 1, columns.flip(1), columns) + draws[:, 2, None]
    number = torch.arange(len(images), device=images.device)
    return images.permute(0, 2, 3, 1)[number[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
