"""Augmentation: what is drawn belongs to the seed and the epoch, and each image is moved as drawn."""

from __future__ import annotations

import pytest
import torch

from nasattn.proxy import Recipe
from nasattn.proxy.augment import augment, draw_epoch, stream


def numbered(side: int = 5, images: int = 1) -> torch.Tensor:
    """Every pixel of the first channel is another; the second is its negative."""
    pixels = torch.arange(images * side * side, dtype=torch.uint8).reshape(images, 1, side, side)
    return torch.cat([pixels, 255 - pixels], 1)


def test_an_epoch_is_drawn_from_its_seed_and_number() -> None:
    recipe = Recipe(flip=True, crop=2)
    order, draws = draw_epoch(1000, recipe, seed=3, epoch=4)
    again = draw_epoch(1000, recipe, seed=3, epoch=4)
    assert torch.equal(order, again[0]) and torch.equal(draws, again[1])
    assert order.sort().values.equal(torch.arange(1000))
    for other in ((4, 4), (3, 5), (4, 3)):
        assert not torch.equal(order, draw_epoch(1000, recipe, *other)[0])
    assert 430 < draws[:, 0].sum() < 570
    assert [len(draws[:, i].unique()) for i in range(3)] == [2, 5, 5]
    assert int(draws[:, 1:].min()) == 0 and int(draws[:, 1:].max()) == 4


def test_without_augmentation_the_order_is_the_same_and_nothing_moves() -> None:
    order, draws = draw_epoch(50, Recipe(), 0, 0)
    assert torch.equal(order, draw_epoch(50, Recipe(flip=True, crop=3), 0, 0)[0])
    assert not draws.any()
    images = numbered()
    assert augment(images, draws[:1], Recipe()) is images


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_image_is_mirrored_and_shifted_as_drawn(layout: torch.memory_format) -> None:
    images = numbered(images=3).to(memory_format=layout)
    draws = torch.tensor([[0, 2, 2], [1, 2, 2], [0, 0, 3]])
    moved = augment(images, draws, Recipe(flip=True, crop=2))
    assert moved.dtype == torch.uint8 and moved.shape == images.shape
    assert torch.equal(moved[0], images[0])  # the middle of what was padded by 2
    assert torch.equal(moved[1], images[1].flip(2))
    assert torch.equal(moved[2, :, 2:, :4], images[2, :, :3, 1:])  # two rows up, one column to the right, of the padded image
    assert torch.equal(moved[2, :, :2, :4], images[2, :, [2, 1], 1:])  # reflected edge


def test_only_flips() -> None:
    images = numbered(images=2)
    moved = augment(images, torch.tensor([[1, 0, 0], [0, 0, 0]]), Recipe(flip=True))
    assert torch.equal(moved[0], images[0].flip(2)) and torch.equal(moved[1], images[1])


def test_an_image_is_taken_in_any_of_the_squares_eight_symmetries() -> None:
    image = numbered()[0]
    turned = [image.rot90(turns, (1, 2)) for turns in range(4)]
    expected = {t.numpy().tobytes() for i in turned for t in (i, i.flip(2))}
    moved = augment(image.expand(8, -1, -1, -1), torch.tensor([[i, 0, 0] for i in range(8)]), Recipe(dihedral=True))
    assert {m.numpy().tobytes() for m in moved} == expected and len(expected) == 8
    assert torch.equal(moved[0], image) and torch.equal(moved[1], image.flip(2))


def test_all_symmetries_are_drawn_equally_often() -> None:
    order, draws = draw_epoch(4000, Recipe(dihedral=True, flip=True, crop=1), 0, 0)
    assert torch.equal(order, draw_epoch(4000, Recipe(), 0, 0)[0])
    assert torch.equal(draws[:, 1:], draw_epoch(4000, Recipe(crop=1), 0, 0)[1][:, 1:])
    assert torch.bincount(draws[:, 0], minlength=8).min() > 400 and draws[:, 0].max() == 7


def test_streams_differ() -> None:
    seeds = {stream(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and stream(1, 2) != stream(1, 2, 0)
    assert all(0 <= s < 2**63 for s in seeds)
