"""Markdown of what others named: study names, folders, errors."""

from __future__ import annotations

from nasattn.errors import one_line


def code(text: str) -> str:
    """A name as code inside a table: it can end neither its cell nor its line, nor be a link or HTML."""
    return f"`{one_line(text).replace('`', chr(39)).replace('|', '/')}`"
