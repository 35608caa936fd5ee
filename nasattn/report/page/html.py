"""Pieces of HTML. Whatever comes from a study is text: it is escaped here, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """*value* as it is to be read, whatever it holds."""
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after another; those that are no HTML are escaped."""
    return Html(between.join(text(p) for p in parts))


def element(name: str, *content: object, **attributes: object) -> Html:
    """``<name attribute="value">content</name>``; an underscore at the end of an attribute's name falls off, others become dashes."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"' for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{told}>{join(content)}</{name}>")


def section(name: str, title: str, *content: object) -> Html:
    """A part of the page with a heading."""
    return element("section", element("h2", title), *content, id=name)


def paragraph(*content: object, **attributes: object) -> Html:
    return element("p", *content, **attributes)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Html:
    """A table in a frame of its own, which scrolls where it is wider than the page. Cells may be elements ``<td>`` or ``<th>`` already."""
    columns = element("tr", *(element("th", h, scope="col") for h in head))
    body = (
        element("tr", *(c if str(c).startswith(("<td", "<th")) and isinstance(c, Html) else element("td", c) for c in row)) for row in rows
    )
    whole = element("table", element("thead", columns), element("tbody", *body), **attributes)
    return element("div", whole, class_="scroll", tabindex="0")


def plot(name: str, label: str) -> Html:
    """Where the page's script draws."""
    return element("div", element("div", id=f"plot-{name}", class_="plot", role="img", aria_label=label), class_="scroll")


def script_data(value: Any) -> Html:
    """Plain data for the page's script; it cannot end the element that holds it."""
    dumped = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return Html(dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
