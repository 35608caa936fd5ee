"""The commands that pages show, and what our command line makes of them."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer

from nasattn.cli import app


def commands(page: str) -> list[str]:
    """Every `nasattn COMMAND ...` of the page's shell blocks, without comments, and without what another command does with it."""
    lines = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).splitlines()
    found = [match[1] for line in lines if (match := re.search(r"(?:^|'|-- |-m |uv run )(nasattn [a-z-]+[^'#>]*)", line))]
    return [command.strip() for command in found]


def read(command: str) -> tuple[str, dict[str, Any]]:
    """The command's name and its arguments, as our command line reads them; raises what it raises on a wrong one."""
    program, *words = shlex.split(command)
    assert program == "nasattn"
    group: Any = typer.main.get_command(app)
    name, chosen, rest = group.resolve_command(group.make_context(program, list(words)), words)
    parameters: dict[str, Any] = chosen.make_context(name, rest).params
    return name, parameters


def parse(command: str) -> dict[str, Any]:
    """The arguments of a command; raises what our command line raises on a wrong one."""
    return read(command)[1]
