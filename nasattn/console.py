"""Where the command line prints: stdout for results, stderr for what accompanies them. Brackets in names are brackets, not markup."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def out() -> Console:
    """Results; 140 columns where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140, markup=False)


def err() -> Console:
    """Notes and progress."""
    from rich.console import Console

    return Console(stderr=True, markup=False)


def progress(as_json: bool) -> Console:
    """What a search does: with its results in a terminal; beside them where they are piped on, or are JSON."""
    return out() if sys.stdout.isatty() and not as_json else err()


def print_pairs(pairs: dict[str, Any]) -> None:
    """Names and values as a table."""
    from nasattn.report.tables import pairs_table

    out().print(pairs_table(pairs))


def plain_text(renderable: Any, width: int) -> str:
    """What would be printed, without colours, as text of at most *width* columns."""
    import io

    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width, color_system=None, force_jupyter=False, force_terminal=False, markup=False).print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
