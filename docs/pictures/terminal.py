"""Draws what a command printed as a picture of a terminal: `python docs/pictures/terminal.py front.txt front.svg`.

The first line is the command. The picture asks for no font of another server.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
TITLE, HEAD, RULE, COMMAND = "italic", "bold", "dim", "bold green"


def draw(printed: str) -> str:
    """The picture, an SVG, of the lines *printed*."""
    lines = printed.splitlines()
    console = Console(record=True, width=max(map(len, lines)) + 1, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text(line, style=_style(line)), soft_wrap=True, highlight=False)
    svg = FONT.sub("", console.export_svg(title="nasattn"))
    return svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


def _style(line: str) -> str:
    if line.startswith("$ "):
        return COMMAND
    if line.startswith("Front of "):
        return TITLE
    if line.strip().startswith("trial "):
        return HEAD
    return RULE if set(line.strip()) == {"─"} else "none"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(Path(sys.argv[1]).read_text()))
