"""The errors a user can cause. Each message says what was got, what is allowed and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 4_000  # characters of a message


class NasattnError(Exception):
    """The work failed for a reason that the user should read (exit code 1).

    The message is one line whatever names and values it quotes: line breaks become spaces, what cannot be printed (a
    terminal would obey it) its escape, and what is far too long loses its middle.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(a) if isinstance(a, str) else a for a in args))


class UsageError(NasattnError, ValueError):
    """The input is not allowed (exit code 2)."""


class TokenError(UsageError):
    """A token or placement cannot be read, or does not fit the channels it is given."""


class SpaceError(UsageError):
    """A space file is wrong; the message names the file, the key and the remedy."""


class TaskError(UsageError):
    """A task cannot be loaded: unknown name, empty folder, unreadable image."""


class StudyError(UsageError):
    """A study does not exist, or continues with another configuration than it began with."""


class StorageError(UsageError):
    """The database cannot be opened or written."""


def one_line(text: str) -> str:
    """*text* in one printable line of at most some 4,000 characters."""
    text = " ".join(text.splitlines())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'a', 'b'? "`` for the closest names in *known*, or ``""`` when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {', '.join(repr(c) for c in close)}? " if close else ""
