"""Recipe files: a fidelity and a recipe that studies share, written by hand or by `nasattn tune-proxy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from nasattn.config import read_yaml
from nasattn.errors import UsageError, did_you_mean
from nasattn.proxy.fidelity import Fidelity, Recipe

KEYS = ("description", "fidelity", "recipe", "tuned")


def read_recipe_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of ``fidelity`` and ``recipe`` that the file gives.

    Raises:
        UsageError: No such file, an unknown key or a value that is not allowed; names the file and the key.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise UsageError(f"no recipe file {path}: give a YAML file with the keys fidelity and recipe, as `nasattn tune-proxy` writes it")
    data = read_yaml(path, UsageError)
    for key in data:
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key {key!r}; {did_you_mean(str(key), KEYS)}allowed: {', '.join(KEYS)}")
    for key, settings in (("fidelity", Fidelity), ("recipe", Recipe)):
        if not isinstance(data.get(key, {}), dict):
            raise UsageError(f"{path}: {key} must be a mapping, got {data[key]!r}")
        settings.from_dict(data.get(key, {}), where=f"{path}: {key}: ")
    return data.get("fidelity", {}), data.get("recipe", {})


def write_recipe_file(path: Path, fidelity: Fidelity, recipe: Recipe, tuned: dict[str, Any], description: str) -> None:
    """Write a file that :func:`read_recipe_file` reads; *tuned* says how its values were found."""
    data = {"description": description, "fidelity": fidelity.to_dict(), "recipe": recipe.to_dict(), "tuned": tuned}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    partial.replace(path)
