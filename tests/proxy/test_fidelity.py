"""Fidelity and recipe: what is allowed, and what a wrong value is told."""

from __future__ import annotations

from typing import Any

import pytest

from nasattn.errors import UsageError
from nasattn.proxy import Fidelity, Recipe

SETTINGS = pytest.mark.parametrize("kind", [Fidelity, Recipe])


@SETTINGS
def test_there_and_back(kind: type[Fidelity] | type[Recipe]) -> None:
    assert kind.from_dict({}) == kind()
    assert kind.from_dict(kind().to_dict()) == kind()


def test_keys_left_out_keep_their_defaults() -> None:
    assert Fidelity.from_dict({"width": 1, "samples": None}) == Fidelity(width=1, samples=None)
    assert Recipe.from_dict({"lr": 1, "flip": True}) == Recipe(lr=1, flip=True)


def test_changed_skips_none() -> None:
    assert Fidelity().changed(epochs=7, width=None) == Fidelity(epochs=7)
    with pytest.raises(UsageError, match="epochs must be an integer >= 1, got 0"):
        Fidelity().changed(epochs=0)


@pytest.mark.parametrize("value", [0.01, 1, 0.5])
def test_width(value: float) -> None:
    assert Fidelity(width=value).width == value


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"width": 0}, "width must be 0 < width <= 1, got 0"),
        ({"width": 1.5}, "width must be 0 < width <= 1, got 1.5"),
        ({"width": float("nan")}, "width must be 0 < width <= 1, got nan"),
        ({"width": True}, "width must be 0 < width <= 1, got True"),
        ({"width": None}, "width must be 0 < width <= 1, got None"),
        ({"width": "half"}, "width must be 0 < width <= 1 and a number"),
        ({"stem_stride": 3}, "stem_stride must be 1, 2 or 4, got 3"),
        ({"stem_stride": 2.0}, "stem_stride must be 1, 2 or 4, got 2.0"),
        ({"stem_stride": True}, "stem_stride must be 1, 2 or 4, got True"),
        ({"blocks": 0}, "blocks must be an integer >= 1, got 0"),
        ({"blocks": [1, 1, 1, 1]}, "blocks must be an integer >= 1, got [1, 1, 1, 1]"),
        ({"epochs": 2.5}, "epochs must be an integer >= 1, got 2.5"),
        ({"epochs": True}, "epochs must be an integer >= 1, got True"),
        ({"resolution": 7}, "resolution must be an integer >= 8, got 7"),
        ({"resolution": "48"}, "resolution must be an integer >= 8, got '48'"),
        ({"samples": 0}, "samples must be an integer >= 1, got 0"),
        ({"val_samples": -1}, "val_samples must be an integer >= 1, got -1"),
        ({"epoch": 2}, "unknown key 'epoch'; Did you mean 'epochs'? allowed: width, blocks,"),
        ({3: 2}, "unknown key 3; allowed: width, blocks,"),
    ],
)
def test_a_wrong_fidelity(values: dict[Any, Any], allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        Fidelity.from_dict(values)
    assert str(caught.value).startswith(allowed)


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"lr": 0}, "lr must be > 0, got 0"),
        ({"lr": float("inf")}, "lr must be > 0, got inf"),
        ({"lr": "1e-3"}, "lr must be > 0 and a number (YAML reads 1e-3 as text: write 0.001 or 1.0e-3), got '1e-3'"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"warmup": 0}, "warmup must be 0 < warmup < 1, got 0"),
        ({"warmup": 1}, "warmup must be 0 < warmup < 1, got 1"),
        ({"label_smoothing": 1}, "label_smoothing must be 0 <= label_smoothing < 1, got 1"),
        ({"flip": "no"}, "flip must be true or false, got 'no'"),
        ({"dihedral": 1}, "dihedral must be true or false, got 1"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or muon, got 'sgd'"),
        ({"optimizer": ["muon"]}, "optimizer must be adamw or muon, got ['muon']"),
        ({"schedule": "cosine"}, "schedule must be one-cycle or warmup-stable-decay, got 'cosine'"),
        ({"learning_rate": 0.1}, "unknown key 'learning_rate'; "),
    ],
)
def test_a_wrong_recipe(values: dict[str, Any], allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_dict(values)
    assert str(caught.value).startswith(allowed)


@SETTINGS
def test_the_message_says_where(kind: type[Fidelity] | type[Recipe]) -> None:
    with pytest.raises(UsageError, match=r"^mine\.yaml: unknown key 'x'; allowed: "):
        kind.from_dict({"x": 1}, where="mine.yaml: ")
