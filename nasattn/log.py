"""The log file of a command that trains: what Ray, Optuna, Python's warnings and the workers said, kept off the terminal.

A command begins one by :func:`start`; whoever has something for it writes to the loggers of :mod:`logging`, or calls
:func:`keep_file`. Without one, libraries stay as quiet and nothing is kept: a program that calls nasattn has its own logging.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path

ENVIRONMENT = "NASATTN_LOGS"
KEPT = 20  # logs; older ones are removed
FILE_BYTES = 100_000  # of what a worker printed, from the end
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFile(logging.FileHandler):
    """A log that ends, with a note, where no more can be written: no search fails for want of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._ended:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._end(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        if not self._ended:
            self._ended = True
            print(f"note: the log {self.baseFilename} could not be written to its end: {error.strerror or error}", file=sys.stderr)


_path: Path | None = None
_handler: logging.FileHandler | None = None


def log_folder() -> Path:
    """Where logs lie: NASATTN_LOGS, else ``logs`` in nasattn's folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(ENVIRONMENT) or Path(cache) / "nasattn" / "logs").expanduser()


def current() -> Path | None:
    """The file of this process's log, if one was started."""
    return _path


def start(*words: str) -> None:
    """Begin this process's log, named after the command and the study in *words*; where it cannot be written, a line on stderr says so."""
    global _path, _handler
    if _handler is not None:
        return
    folder = log_folder()
    name = re.sub(r"[^\w.-]+", "_", "-".join(words))[:80]
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _handler = _LogFile(path)
        for old in sorted(folder.glob("*.log"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        print(f"note: no log is kept: {error}; set {ENVIRONMENT} to a folder that can be written", file=sys.stderr)
        return
    _path = path
    _handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(_handler)
    logging.captureWarnings(True)
    own = logging.getLogger("nasattn")
    own.setLevel(logging.INFO)
    own.info("nasattn %s", " ".join(words))


def stop() -> None:
    """End this process's log."""
    global _path, _handler
    if _handler is not None:
        for name in ("", "optuna", "ray"):
            logging.getLogger(name).removeHandler(_handler)
        logging.captureWarnings(False)
        _handler.close()
    _path = _handler = None


def take_over(name: str, shown: int) -> None:
    """Have a library's logger, which does not propagate, write to the log too, while its own handlers show only *shown* and above."""
    if _handler is None:
        return
    logger = logging.getLogger(name)
    for handler in logger.handlers:
        handler.setLevel(shown)
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)


def keep_file(file: Path, title: str, without: tuple[str, ...] = ()) -> None:
    """Copy the end of *file* into the log, if there is anything in it but lines that begin as one of *without* does."""
    if _handler is None:
        return
    try:
        text = file.read_bytes()[-FILE_BYTES:].decode(errors="backslashreplace")
    except OSError:
        return
    content = "\n".join(line for line in text.splitlines() if not line.startswith(without)).strip()
    if content:
        logging.getLogger("nasattn").info("%s\n%s", title, content)


def keep_traceback(error: BaseException) -> Path | None:
    """Write the traceback of an error that nobody foresaw into the log, begun if there is none; returns the log's path."""
    start("error")
    logging.getLogger("nasattn").error("%s", "".join(traceback.format_exception(error)))
    return _path
