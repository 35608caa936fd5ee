"""The page in a real browser: drawn, quiet, within the window at any width, and asking nothing of any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nasattn.report.page import render
from nasattn.report.study_data import gather
from nasattn.store import Store
from tests.report.studies import add_study, add_table, add_trials, placements

MOST_BYTES = 6_000_000
TRIALS = 500
PLOTS = ("front", "growth", "parallel", "importance")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 256 placements with some 500 trials, with names that are as long as names get."""
    folder = tmp_path_factory.mktemp("page")
    store, name = Store(f"sqlite:///{folder / 's.db'}"), "a_study_with_a_name_" + "x" * 120 + "<script>"
    add_study(store, name)
    add_table(store, uncertain=(1, "sge_g32"))
    of = placements(250)
    add_trials(store, name, of)
    add_trials(store, name, of[: TRIALS - 260], seed=1, first=250)
    add_trials(store, name, placements(256)[250:], first=490, state="FAIL", error="RuntimeError: " + "no_memory" * 60)
    file = folder / "report.html"
    file.write_text(render(gather(store, name)))
    return file


def test_its_size(page: Path) -> None:
    assert page.stat().st_size <= MOST_BYTES


@pytest.mark.parametrize(("width", "touch", "scheme"), [(1280, False, "light"), (390, True, "dark")])
def test_it_is_drawn(page: Path, browser: Any, width: int, touch: bool, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=touch, is_mobile=touch, color_scheme=scheme)
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn]", timeout=120_000, state="attached")
    assert said == []
    assert asked == [page.as_uri()]
    for name in PLOTS:
        assert tab.locator(f"#plot-{name} svg.main-svg").count() > 0, f"{name} is not drawn"
    assert tab.locator("#plot-front .scatterlayer .point").count() >= 250
    assert tab.locator("#plot-parallel .scatterlayer path.js-line").count() > 3
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, ground[4:-1].split(","))) > 600 if scheme == "light" else sum(map(int, ground[4:-1].split(","))) < 150
    _use(tab, touch)
    assert said == []
    context.close()


def _use(tab: Any, touch: bool) -> None:
    """What its buttons, cells and labels do."""
    act = (lambda place: place.tap()) if touch else (lambda place: place.click())
    act(tab.locator("[data-mode='2']"))
    assert tab.locator("[data-mode='2']").get_attribute("aria-pressed") == "true"
    assert "ela" in tab.locator("#plot-front .legend").text_content()
    act(tab.locator("[data-grid='alone']"))
    assert tab.locator("[data-shown='alone']").is_visible() and not tab.locator("[data-shown='average']").is_visible()
    act(tab.locator("[data-shown='alone'] [data-tip]").first)
    assert "in stage 1" in tab.locator("#tip").inner_text()
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    act(tab.locator("#theme"))
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
    label = tab.locator("#plot-parallel .annotation-text-g .cursor-pointer").filter(has_text="ela_t").first
    label.dispatch_event("click")
    assert tab.locator("#plot-parallel .scatterlayer path.js-line").first.evaluate("p => getComputedStyle(p).strokeOpacity") < "0.5"
