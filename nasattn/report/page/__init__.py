"""The self-contained HTML page of a study."""

from nasattn.report.page.page import render

__all__ = ["render"]
