"""The command that shows a whole study: a page, figures, or the data behind them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nasattn import options
from nasattn.report.writing import ReportFormat


def report(
    study: options.StudyArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="File of the page (default: report.html); folder of the other formats (default: report).")
    ] = None,
    format: Annotated[
        ReportFormat,
        typer.Option("--format", help="html: a page that works offline; png, svg: figures for a paper; csv: the data behind them."),
    ] = ReportFormat.html,
    cam: Annotated[
        bool, typer.Option("--cam", help="Train the plain host and up to 3 members again and show where they look (extra `cam`).")
    ] = False,
    storage: options.StorageOption = None,
) -> None:
    """Write all that is known of a study: front, which attention gains where, latencies, training time, faults, configuration.

    Examples: nasattn report STUDY --out report.html
              nasattn report STUDY --format svg --out figures
    """
    from nasattn.api import open_study

    opened = open_study(study, storage)
    for file in opened.report(out, format.value, cam=cam, notify=lambda text: print(text, file=sys.stderr, flush=True)):
        print(f"Wrote {file}")
