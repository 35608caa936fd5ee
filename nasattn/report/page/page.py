"""The page as a whole: one file with its style, its script, Plotly and the data in it. It asks nothing of any network."""

from __future__ import annotations

from pathlib import Path

from nasattn.report.page import sections
from nasattn.report.page.html import Html, element, join, paragraph, script_data, section, text
from nasattn.report.page.plots import plots
from nasattn.report.study_data import StudyData

ASSETS = Path(__file__).parent / "assets"
# nothing may be fetched, whatever a study's names hold
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def render(data: StudyData, cam: Html | None = None) -> str:
    """The page of a study.

    Args:
        data: The study.
        cam: What Grad-CAM shows (see :func:`nasattn.report.cam.section`); None says how to get it.
    """
    record = data.record
    subtitle = " · ".join(str(p) for p in (data.host, record.config.get("space_name"), record.config.get("task")) if p)
    links = [
        ("the-front", "front"),
        ("effects", "which, where"),
        ("latency", "latency"),
        ("compute", "training time"),
        ("placements", "placements"),
        ("made", "how made"),
    ]
    header = element(
        "header",
        element("div", element("h1", record.name), element("button", "light / dark", type="button", id="theme"), class_="top"),
        element("p", subtitle, class_="note"),
        element("nav", *(element("a", title, href=f"#{name}") for name, title in links)),
    )
    parts = (
        sections.summary, sections.front, sections.where, sections.latency, sections.compute, sections.parallel, sections.importance,
    )  # fmt: skip
    last = (sections.proxy, sections.faults, sections.made)
    body = join([*(part(data) for part in parts), cam if cam is not None else _how_to_cam(data), *(part(data) for part in last)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(record.name)} · nasattn</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'{header}\n<main>{body}</main>\n<div id="tip" role="status" hidden></div>\n'
        f'<script type="application/json" id="data">{script_data(plots(data))}</script>\n'
        f"<script>{_plotly()}</script>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _how_to_cam(data: StudyData) -> Html:
    import shlex

    command = f"nasattn report {shlex.quote(data.record.name)} --cam{data.storage}"
    return section(
        "cam", "Where it looks",
        paragraph("A search keeps no weights. ", element("code", command), " trains the plain host and up to three members again, and shows by Grad-CAM where each looks."),
    )  # fmt: skip


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
