"""Where the shipped YAML files lie, and how a YAML file is read: safely, with errors that name the file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from nasattn.errors import UsageError, did_you_mean

_PACKAGE = Path(__file__).parent
# of a YAML file
MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
MOST_DIGITS = 40


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
        if os.path.isfile(path):  # False, and no error, for what can be no path
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


class _Excessive(Exception):
    """A file that is larger inside than it should be."""


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _Excessive(f"it is larger than {MOST_BYTES // 1024} KiB")
    return content.decode("utf-8")


def _parse(text: str) -> Any:
    """The document in *text*, as `yaml.safe_load` reads it, but for what is excessive."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_NODES:
            raise _Excessive(f"with its aliases written out it holds more than {MOST_NODES:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The values in a document with every alias written out; *known* holds those of nodes counted before."""
    if id(node) in known:
        if not known[id(node)]:
            raise _Excessive("an alias stands for something that it lies in")
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            raise _Excessive(f"line {node.start_mark.line + 1}: a number of more than {MOST_DIGITS} digits")
        return 1
    known[id(node)] = 0
    children = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = count = 1 + sum(_count(child, known) for child in children)
    return count


def read_yaml(path: Path, error: type[UsageError]) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader, which runs nothing and reads no other file.

    Raises:
        UsageError: As *error*, naming the file, and the line where YAML is broken. So are files of a size, a depth or with
            numbers that nobody writes by hand, and aliases that stand for thousands of values.
    """
    try:
        data = _parse(_read_text(path))
    except _Excessive as problem:
        raise error(f"{path}: {problem}; write it shorter") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read: {problem}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        what = getattr(problem, "problem", None) or str(problem).partition("\n")[0]
        raise error(f"{path}:{line} not valid YAML: {what}") from None
    except RecursionError:
        raise error(f"{path}: nested too deeply; write it flatter") from None
    except ValueError as problem:  # such as an impossible date, 2024-13-01
        raise error(f"{path}: not valid YAML: {problem}") from None
    except Exception as problem:  # PyYAML lets through what odd values lead it to, such as a KeyError for `!!bool perhaps`
        raise error(f"{path}: not valid YAML: {type(problem).__name__}: {problem}") from None
    if not isinstance(data, dict):
        raise error(f"{path}: must hold a mapping of keys to values, got {type(data).__name__}")
    return data
