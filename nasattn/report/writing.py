"""A report into files: the page, figures for a paper, or the data behind them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from nasattn.errors import NasattnError, UsageError
from nasattn.files import replacing

if TYPE_CHECKING:
    from nasattn.store import Store


class ReportFormat(StrEnum):
    """What `nasattn report` writes."""

    html = "html"
    png = "png"
    svg = "svg"
    csv = "csv"


DEFAULT_OUT = {ReportFormat.html: "report.html"}
FOLDER = "report"  # of the other formats


def write_report(
    store: Store,
    study: str,
    out: str | Path | None = None,
    format: str = "html",
    *,
    cam: bool = False,
    storage: str = "",
    notify: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write a report on a study.

    Args:
        store: The database.
        study: Its name.
        out: The page's file, by default ``report.html``; of the other formats a folder, by default ``report``, which is made.
        format: ``html``: one page. ``png`` or ``svg``: ``front`` and ``effects``. ``csv``: ``front``, ``trials``, ``effects``, ``growth``.
        cam: Train the plain host and up to three members of the front again and show on the page where each looks (Grad-CAM).
        storage: What the page's commands say to find the database, such as `` --storage URL``.
        notify: Called with a line whenever something begins that takes a while.

    Returns:
        The files written.

    Raises:
        StudyError: No such study, or nothing in it that could be drawn.
        NasattnError: *out* cannot be written.
        UsageError: It is no place for that format, an unknown format, or *cam* without what it needs.
    """
    if format not in list(ReportFormat):
        raise UsageError(f"unknown format {format!r} of a report; allowed: {', '.join(ReportFormat)}")
    kind = ReportFormat(format)
    if cam and kind is not ReportFormat.html:
        raise UsageError(f"--cam is for the page: leave out --format {kind}, or --cam")
    target = _target(Path(out) if out is not None else Path(DEFAULT_OUT.get(kind, FOLDER)), kind)
    if cam:
        from nasattn.report.cam import check_installed

        check_installed()
    from nasattn.report.study_data import gather

    data = gather(store, study, storage)
    if kind is ReportFormat.csv:
        from nasattn.report.data_files import write_data

        return _written(target, lambda: write_data(data, target))
    if kind is not ReportFormat.html:
        from nasattn.report.figures import draw_figures

        return _written(target, lambda: draw_figures(data, target, kind))
    from nasattn.report.page import render

    looks = None
    if cam:
        from nasattn.report.cam import look, section

        looks = section(look(data, notify))
    page = render(data, looks)
    return _written(target.parent, lambda: [_write_page(target, page)])


def _target(out: Path, kind: ReportFormat) -> Path:
    """Where to write. Raises UsageError before anything is computed."""
    if kind is ReportFormat.html:
        if out.suffix.lower() in {f".{f}" for f in ReportFormat if f is not ReportFormat.html}:
            raise UsageError(f"--out {out} is no page: add --format {out.suffix[1:].lower()}, which takes a folder, or name an .html file")
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder: name the page's file, such as {out / 'report.html'}")
        if not out.absolute().parent.is_dir():
            raise UsageError(f"--out {out}: no folder {out.absolute().parent}; make it first")
    elif out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, and --format {kind} writes several: name a folder")
    return out


def _written(folder: Path, write: Callable[[], list[Path]]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write()
    except OSError as error:
        raise NasattnError(
            f"the report cannot be written to {folder}: {error.strerror}; make room there, or give another place by --out"
        ) from None


def _write_page(file: Path, page: str) -> Path:
    content = page.encode(errors="backslashreplace")
    if file.is_symlink() or (file.exists() and not file.is_file()):  # such as /dev/stdout, which must stay what it is
        file.write_bytes(content)
        return file
    with replacing(file) as stream:  # an older page stays until this one is whole
        stream.write(content)
    return file
