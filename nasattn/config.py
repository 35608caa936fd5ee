"""Where the shipped YAML files lie, and how a YAML file is read: safely, with errors that name the file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nasattn.errors import UsageError, did_you_mean

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """The folder *folder* (``search_spaces`` or ``studies``): inside the installed package, beside it in a checkout."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def list_yaml(folder: str) -> list[str]:
    """Stems of the YAML files shipped in *folder*, sorted."""
    return sorted(p.stem for p in shipped(folder).glob("*.yaml"))


def find_yaml(folder: str, name_or_file: str, error: type[UsageError]) -> Path:
    """The path of a shipped file by its stem, or of any YAML file. Raises *error* when there is neither."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise error(f"no file {name_or_file}: give the path of a YAML file, or one of the shipped names: {', '.join(list_yaml(folder))}")
    if name_or_file in list_yaml(folder):
        return shipped(folder) / f"{name_or_file}.yaml"
    known = list_yaml(folder)
    if f"{name_or_file}_stages" in known:  # `resnet50` for the space `resnet50_stages`
        return shipped(folder) / f"{name_or_file}_stages.yaml"
    raise error(
        f"unknown name {name_or_file!r} in {folder}: {did_you_mean(name_or_file, known)}allowed: {', '.join(known)}, or the path of a .yaml file"
    )


def read_yaml(path: Path, error: type[UsageError]) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader. Raises *error* naming the file, and the line where YAML is broken."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read: {problem}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        what = getattr(problem, "problem", None) or str(problem).partition("\n")[0]
        raise error(f"{path}:{line} not valid YAML: {what}") from None
    except ValueError as problem:  # such as an impossible date, 2024-13-01
        raise error(f"{path}: not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        raise error(f"{path}: must hold a mapping of keys to values, got {type(data).__name__}")
    return data
