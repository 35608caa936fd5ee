"""`nasattn report` and `Study.report`: files of every format, and mistakes told in a line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

import nasattn
from nasattn.cli import _run
from nasattn.errors import StudyError, UsageError
from nasattn.store import Store
from tests.report.studies import add_study, add_table, add_trials, placements


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('writing') / 'studies.db'}"
    store = Store(url)
    add_study(store, "s")
    add_table(store)
    add_trials(store, "s", placements(24))
    add_trials(store, "s", placements(25)[24:], first=24, state="FAIL", error="Traceback (most recent call last):\nRuntimeError: lost")
    add_study(store, "empty")
    return url


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open()))


def test_the_page(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["report", "s", "--out", str(tmp_path / "s.html"), "--storage", url]) == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path / 's.html'}\n"
    page = (tmp_path / "s.html").read_text()
    assert page.startswith("<!doctype html>") and f"--out model-0 --storage {url}" in page


def test_where_it_is_written_by_default(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NASATTN_STORAGE", url)
    (written,) = nasattn.open_study("empty").report()
    assert written == Path("report.html") and "--storage" not in written.read_text()


def test_the_data(url: str, tmp_path: Path) -> None:
    study = nasattn.open_study("s", url)
    files = study.report(tmp_path / "data", "csv")
    assert [f.name for f in files] == ["front.csv", "trials.csv", "effects.csv", "growth.csv"]
    assert [r["placement"] for r in rows(files[0])] == [m.placement for m in study.front()]
    trials = rows(files[1])
    assert len(trials) == 25 and trials[-1]["fault"] == "RuntimeError: lost" and float(trials[0]["latency_ratio"]) == 1
    effects = {(r["stage"], r["token"]): r for r in rows(files[2])}
    assert float(effects["2", "ela_t"]["gain_low"]) < 10 < float(effects["2", "ela_t"]["gain_high"])
    assert effects["2", "ela_t"]["added_source"] == "stage" and float(effects["2", "ela_t"]["per_ms"]) > 0
    assert {r["curve"] for r in rows(files[3])} == {"study", "predicted"}
    assert all(len(rows(f)) == 0 for f in nasattn.open_study("empty", url).report(tmp_path / "none", "csv"))


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figures(url: str, tmp_path: Path, kind: str) -> None:
    front, effects = nasattn.open_study("s", url).report(tmp_path, kind)
    assert (front.name, effects.name) == (f"front.{kind}", f"effects.{kind}")
    if kind == "png":
        with Image.open(front) as drawn:
            assert drawn.width == 1050 and drawn.convert("L").getextrema() != (255, 255)
    else:
        assert "#228833" in front.read_text().lower() or "#ee6677" in front.read_text().lower()
        first = front.read_text()
        assert nasattn.open_study("s", url).report(tmp_path, kind)[0].read_text() == first


def test_what_cannot_be_drawn(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no completed trial with a latency, so there is nothing to draw"):
        nasattn.open_study("empty", url).report(tmp_path, "png")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x.svg"], "is no page: add --format svg"),
        (["--out", "no/x.html"], "no folder .*; make it first"),
        (["--out", "."], "is a folder: name the page's file"),
        (["--out", "file", "--format", "csv"], "is a file, and --format csv writes several"),
        (["--cam", "--format", "png"], "--cam is for the page"),
        (["--format", "pdf"], "'pdf' is not one of"),
    ],
)
def test_mistakes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert _run(["report", "s", "--storage", url, *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and error.count("\n") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_no_such_study(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["report", "t", "--storage", url]) == 2
    assert "no study 't'" in capsys.readouterr().err


def test_cam_without_its_library(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasattn.report.cam.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'nasattn\[cam\]'"):
        nasattn.open_study("s", url).report(tmp_path / "x.html", cam=True)
