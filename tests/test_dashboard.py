"""`nasattn dashboard` in a real browser: what it shows of a study and of a trial, without a complaint in the console."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nasattn.search.publishing import publish
from tests.made_study import GOOD, make_study

PATIENCE = 120_000  # milliseconds, on a machine with much else to do


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the dashboard of a made study, started by the command."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'studies.db'}"
    store = make_study(url)
    noted: list[Any] = []
    publish(store, "made", store.evaluations("made"), "all 7 trials are done", noted.append)
    assert noted == []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nasattn", "dashboard", "--port", str(port), "--storage", url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            assert f"at http://127.0.0.1:{port}/ (Ctrl-C ends it)" in server.stdout.readline()
            yield f"http://127.0.0.1:{port}/dashboard"
        finally:
            server.terminate()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of either width that complains at its end of whatever its console said."""
    context = browser.new_context(viewport={"width": request.param, "height": 1000})
    opened, complaints = context.new_page(), []
    opened.set_default_timeout(PATIENCE)
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def visit(tab: Any, address: str) -> None:
    """Go there; the command says where it will listen a moment before it does."""
    from playwright.sync_api import Error

    for _ in range(100):
        try:
            tab.goto(address)
            return
        except Error as error:
            if "ERR_CONNECTION_REFUSED" not in str(error):
                raise
            tab.wait_for_timeout(200)
    raise AssertionError(f"{address} does not answer")


def test_a_study(address: str, tab: Any) -> None:
    visit(tab, f"{address}/studies/1")
    for text in ("accuracy", "latency_ratio"):
        tab.get_by_text(text, exact=True).first.wait_for()
    front = tab.locator(".js-plotly-plot").filter(has_text="Front with 95 % intervals")
    front.wait_for()
    for text in ("plain host", "certified", "provisional", "dominated", "above a limit, not trained"):
        assert text in front.text_content(), text
    for text in ("nasattn_resnet18", "max_latency 1.5x", "all 7 trials are done", "front.csv"):
        tab.get_by_text(text).first.wait_for()


def test_the_note_of_a_study(address: str, tab: Any) -> None:
    visit(tab, f"{address}/studies/1/note")
    tab.get_by_role("heading", name="Front of made").wait_for()
    row = tab.get_by_role("row").filter(has_text=GOOD)
    assert "1.100x (1.089 to 1.111)" in row.inner_text()
    assert tab.get_by_text("--max-latency 1.5x: 1 placement above it was not trained").is_visible()


def test_a_trial(address: str, tab: Any) -> None:
    visit(tab, f"{address}/studies/1/trials?numbers=1")
    tab.get_by_role("heading", name="On the front").wait_for()
    for text in (f"placement {GOOD}", "latency_interval 1.089x to 1.111x", "max_latency 1.100x, within 1.5x", "curve.svg"):
        tab.get_by_text(text).first.wait_for()
    assert tab.get_by_text("nasattn export made --trial 1").first.is_visible()
