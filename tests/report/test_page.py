"""The page: what it says of whole, partial and broken studies, and that names from a user's files stay names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from nasattn.proxy.agreement import agree
from nasattn.report.page import render
from nasattn.report.study_data import gather
from nasattn.store import Store
from nasattn.store.records import PROXY_REPORT
from tests.report.studies import PLAIN, accuracy_of, add_study, add_table, add_trials, placements, ratio_of

EVIL = "<script>alert('x')</script>&\"<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img"}


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store("sqlite://")
    yield made
    made.engine.dispose()


class Page(HTMLParser):
    """What a browser would make of a page: tags, visible text, and the data for its script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.text, self.data = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> ends nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data = data if self.tags[-1][1].get("type") == "application/json" else self.data
        elif self.open and self.open[-1] != "style":
            self.text += data

    @property
    def plots(self) -> dict[str, Any]:
        return json.loads(self.data)  # type: ignore[no-any-return]


def page_of(store: Store, study: str = "s") -> Page:
    return Page(render(gather(store, study)))


def test_a_whole_study(store: Store) -> None:
    add_study(store, "s")
    add_table(store, uncertain=(1, "sge_g32"))
    add_trials(store, "s", placements(40))
    add_trials(store, "s", placements(43)[40:], first=40, state="FAIL", error="RuntimeError: out of memory")
    curve = [{"epoch": 1.0, "loss": 1.0, "accuracy": 0.3, "rung": 1.0, "seconds": 1.0}]
    add_trials(store, "s", placements(45)[43:], first=43, state="PRUNED", error="stopped at rung 1 of 3", curve=curve)
    page = page_of(store)
    assert "40 trainings of 40 placements completed; 2 were stopped early, behind others of their latency; 3 failed" in page.text
    assert "The most accurate placement is" in page.text and "the plain host's latency" in page.text
    assert set(page.plots) == {"colours", "front", "growth", "parallel", "importance"}
    assert len(page.plots["front"]["points"]) == 40
    plain = next(p for p in page.plots["front"]["points"] if p["k"] == 2)
    assert plain["tip"].startswith(f"<b>{PLAIN}</b><br>accuracy")
    for heading in ("The front", "Which attention, where", "What each attention adds to the latency", "What the training time bought", "All placements", "Which stage decides", "Faults", "How it was made"):  # fmt: skip
        assert heading in page.text
    assert "RuntimeError: out of memory" in page.text
    assert (
        "No completed trial had, in any stage: sb, " in page.text
        and "- /ms" in page.text
        and "random choice is predicted to reach" in page.text
    )
    assert "nasattn export s --trial" in page.text and "nasattn proxy-report s" in page.text and "nasattn report s --cam" in page.text
    assert "A CPU | eager-torch2.15.0" in page.text and "torch 2.15.0" in page.text and '"sampler": "tpe"' in page.text


def test_it_asks_nothing_of_any_network(store: Store) -> None:
    add_study(store, "s")
    add_trials(store, "s", placements(6))
    html = render(gather(store, "s"))
    tags = Page(html).tags
    assert any("default-src 'none'" in attributes.get("content", "") for tag, attributes in tags if tag == "meta")
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in tags)
    assert not any(
        value.startswith(("http", "//")) for _, attributes in tags for key, value in attributes.items() if key in ("src", "href")
    )


def test_names_stay_names(store: Store) -> None:
    add_study(store, EVIL, {"space_name": EVIL, "task": EVIL, "description": EVIL})
    add_trials(store, EVIL, placements(12))
    add_trials(store, EVIL, placements(13)[12:], first=12, state="FAIL", error=f"Traceback (most recent call last):\n  {EVIL}\n{EVIL}")
    html = render(gather(store, EVIL))
    assert EVIL not in html and "<script>alert" not in html and "<img src=x" not in html
    page = Page(html)
    assert page.text.count(EVIL) >= 5
    assert sum(tag == "script" for tag, _ in page.tags) == 3 and not any(tag == "img" for tag, _ in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_a_placement_of_an_attention_that_is_gone(store: Store) -> None:
    """Of a plug-in that is not installed any more, or whatever a database of others holds."""
    add_study(store, "s", {"space": {"host": "nasattn_resnet18", "stages": {"all": {"none": {}, "gone": {}}}}})
    odd = "none,<b>gone</b>,none,none"
    store.add_architecture("nasattn_resnet18", odd, 1, 1)
    add_trials(store, "s", placements(6))
    rows = gather(store, "s")
    trials = [*rows.trials, replace(rows.trials[1], trial=9, placement=odd)]
    from nasattn.front import appraise

    page = Page(render(replace(rows, trials=trials, appraised=appraise(trials))))
    assert odd in page.text and not any(tag == "b" and attributes for tag, attributes in page.tags)
    assert all("<b>gone" not in p["tip"] for p in page.plots["front"]["points"])


def test_before_the_first_trial(store: Store) -> None:
    add_study(store, "s")
    page = page_of(store)
    assert "No trial has begun yet" in page.text and "No placement has both" in page.text and set(page.plots) == {"colours"}


def test_all_failed(store: Store) -> None:
    add_study(store, "s")
    add_trials(store, "s", placements(3), state="FAIL", error="lost")
    page = page_of(store)
    assert "None of the 3 trials completed, 3 failed" in page.text and "lost" in page.text and "front" not in page.plots


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_trials(store: Store, count: int) -> None:
    add_study(store, "s")
    add_trials(store, "s", placements(count))
    page = page_of(store)
    assert f"{count} training{'s' if count > 1 else ''} of {count} placement{'s' if count > 1 else ''} completed" in page.text
    assert ("too few to tell placements apart" in page.text) is (count < 3)
    assert "Too few different placements completed" in page.text and "Too few completed trials to tell" in page.text
    assert ("growth" in page.plots) is (count > 1) and len(page.plots["front"]["points"]) == count


def test_without_latencies(store: Store) -> None:
    add_study(store, "s")
    add_trials(store, "s", placements(12), latency=False)
    page = page_of(store)
    assert "12 trials completed, but no latency is known of any of them" in page.text
    assert "No latency of a stage or of a whole placement is stored" in page.text
    assert "ms not known" in page.text  # gains are told all the same


def test_equal_accuracies_are_drawn(store: Store) -> None:
    add_study(store, "s")
    add_trials(store, "s", placements(12), accuracy=0.5)
    page = page_of(store)
    assert "Too few different placements completed" in page.text and len(page.plots["front"]["points"]) == 12


def test_the_proxy_report(store: Store) -> None:
    add_study(store, "s")
    of = placements(12)
    add_trials(store, "s", of)
    accuracy, ratio = np.array([accuracy_of(p) for p in of]), np.array([ratio_of(p) for p in of])
    found = agree(of, accuracy, np.stack([accuracy + 0.1, accuracy + 0.11], 1), ratio, {"params": ratio}, draws=100)
    store.save_report("s", PROXY_REPORT, {"study": "s", "longer": 5, "long_runs": [], "agreement": found.to_dict()})
    page = page_of(store)
    assert "ranks better than" in page.text and "5 times the epochs" in page.text
    assert len(page.plots["proxy"]["points"]) == 12


def test_a_space_of_many_attentions_has_rows_for_those_that_were_tried(store: Store) -> None:
    space = {"host": "nasattn_resnet18", "stages": {"all": {"none": {}, "sge": {"groups": [8, 16, 32, 64]}, "ela_t": {}, "lka": {"kernel": list(range(5, 45, 2)), "dilation": [2, 3]}}}}  # fmt: skip
    add_study(store, "s", {"space": space})
    add_trials(store, "s", placements(12))
    page = page_of(store)
    assert re.search(r"No completed trial had, in any stage: .* and \d+ more\.", page.text)


def test_a_choice_that_was_tried_elsewhere_only(store: Store) -> None:
    add_study(store, "s")
    add_trials(store, "s", [PLAIN, *(p for p in placements(200) if p.startswith("none,") and p != PLAIN)][:30])
    assert page_of(store).text.count("not tried") == 2 * 3  # three attentions in stage 1, in both grids
