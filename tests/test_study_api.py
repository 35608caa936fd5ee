"""A study in Python: its front, frames, figure, and how it shows itself."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

import nasattn
from nasattn import Study
from nasattn.errors import StudyError, UsageError
from nasattn.report.frames import TRIALS
from nasattn.store import Store
from tests.made_study import BEST, GOOD, PLAIN, ROWS, SLOW, WORSE, make_study

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('study') / 'studies.db'}"
    make_study(url)
    make_study(url, rows=[], name="empty")
    make_study(url, name=HOSTILE)
    return url


@pytest.fixture
def study(url: str) -> Study:
    return nasattn.open_study("made", url)


@pytest.fixture
def empty(url: str) -> Study:
    return nasattn.open_study("empty", url)


def test_the_front_is_fastest_first_and_shows_itself_as_a_table(study: Study, empty: Study) -> None:
    front = study.front()
    assert [m.placement for m in front] == [PLAIN, GOOD, BEST]
    assert [m.seeds for m in front] == [1, 2, 1]
    assert front[1].accuracy == pytest.approx(0.81) and front[1].held_out == 0.79
    shown = repr(front)
    assert shown.index(PLAIN) < shown.index(GOOD) < shown.index(BEST) and "Front of made" in shown and WORSE not in shown
    assert empty.front() == [] and "Front of empty" in repr(empty.front())


def test_placements_hold_the_dominated_too_but_nothing_untrained(study: Study) -> None:
    placements = study.placements()
    assert [p.placement for p in placements] == [PLAIN, GOOD, WORSE, BEST]
    assert [p.placement for p in placements if p.tier == "dominated"] == [WORSE]


def test_what_a_study_is(study: Study) -> None:
    assert (study.name, study.host, study.task) == ("made", "nasattn_resnet18", "cued_digits")
    assert not study.has_proxy_report and study.proxy_report() is None
    shown = repr(study)
    assert "'made'" in shown and "7 trials: 5 complete, 1 pruned, 1 fail; 3 on the front, the best with 0.900" in shown


def test_all_trials_as_a_frame(study: Study) -> None:
    frame = study.to_pandas()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    assert list(frame.columns) == [*TRIALS, *stages]
    assert list(frame["trial"]) == list(range(len(ROWS)))
    assert list(frame["placement"]) == [row["placement"] for row in ROWS]
    assert list(frame["state"]) == ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE", "FAIL"]
    assert {frame[s].dtype.name for s in [*stages, "state", "tier", "latency_method"]} == {"category"}
    assert {frame[c].dtype.kind for c in ("accuracy", "held_out", "latency_ratio", "training_seconds", "p_member")} == {"f"}
    assert {frame[c].dtype.kind for c in ("trial", "params", "macs", "seed")} == {"i"}
    assert frame["val_samples"].dtype.name == "Int64" and frame["started_at"].dt.tz is not None
    assert list(frame["retrained"]) == [False] * 5 + [True, False]
    assert list(frame["stage2"][:3]) == ["none", "sge_g32", "ela_t"]
    assert list(frame["tier"].astype(object).where(frame["tier"].notna(), None)[3:]) == ["dominated", None, frame["tier"][1], None]


def test_what_is_not_known_is_missing(study: Study) -> None:
    slow, failed = study.to_pandas().iloc[4], study.to_pandas().iloc[6]
    for column in ("accuracy", "val_samples", "tier", "p_member", "held_out", "epochs", "training_seconds", "worker"):
        assert slow.isna()[column], column
    assert slow["placement"] == SLOW and slow["latency_ratio"] == 1.9 and "above --max-latency" in slow["error"]
    assert failed["error"] == "RuntimeError: <b>no</b>" and failed.isna()["accuracy"]


def test_the_front_as_a_frame(study: Study) -> None:
    frame = study.to_pandas(front=True)
    assert list(frame["placement"]) == [PLAIN, GOOD, BEST]
    assert list(frame["accuracy"]) == pytest.approx([0.5, 0.81, 0.9])
    assert frame["gain"].iloc[0] == 0 and frame["gain"].dtype.kind == "f" and frame["held_out"].isna().tolist() == [True, False, True]
    assert frame.equals(study.front().to_pandas()) and frame["stage2"].iloc[2] == "ela_t"
    assert set(frame.columns) >= {"trial", "latency_ms", "params", "macs", "p_member", "seeds"}


def test_frames_of_a_study_without_trials_have_the_same_columns(study: Study, empty: Study) -> None:
    assert len(empty.to_pandas()) == 0 == len(empty.to_pandas(front=True))
    assert [*empty.to_pandas().columns] == [*TRIALS]
    assert dict(empty.to_pandas().dtypes) == {c: d for c, d in study.to_pandas().dtypes.items() if not c.startswith("stage")}


def test_the_best_there_is(study: Study, empty: Study) -> None:
    assert study.best().placement == BEST
    assert study.best(max_latency="1.15x").placement == GOOD
    assert study.best(max_latency="10.5ms").placement == PLAIN
    with pytest.raises(
        StudyError, match="no member of the front is within .*0.5x.*the fastest is none,none,none,none with 1.000x, 10.0 ms"
    ):
        study.best(max_latency="0.5x")
    with pytest.raises(StudyError, match="'empty' has no completed trial: continue it with `nasattn search"):
        empty.best()
    with pytest.raises(StudyError, match="no trial 9: there are 0 to 6"):
        study.trial(9)


def test_what_export_refuses_leaves_nothing_behind(study: Study, empty: Study, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(UsageError, match="either a trial or a limit, got trial 1 and max_latency '1.2x'"):
        study.export(out, trial=1, max_latency="1.2x")
    with pytest.raises(StudyError, match="no trial 40"):
        study.export(out, trial=40)
    with pytest.raises(StudyError, match="no completed trial"):
        empty.export(out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="not empty"):
        study.export(out)


def test_a_device_that_is_not_there(study: Study) -> None:
    for ask in (study.front, study.to_pandas, study.plot_front, study.best):
        with pytest.raises(StudyError, match="cuda-of-nobody"):
            ask(device="cuda-of-nobody")


def test_the_figure_of_the_front(study: Study) -> None:
    figure = study.plot_front()
    traces = {t.name: t for t in figure.data if t.name}
    assert set(traces) == {"plain host", "provisional", "certified", "dominated", "above a limit, not trained"}
    assert list(traces["plain host"].x) == [1.0] and list(traces["plain host"].y) == [0.5]
    assert [*traces["certified"].x, *traces["provisional"].x] == [1.1, 1.2] and traces["provisional"].error_y.array[0] > 0
    assert list(traces["dominated"].y) == [0.48] and list(traces["above a limit, not trained"].x) == [1.9]
    stairs = next(t for t in figure.data if not t.name)
    assert stairs.line.shape == "hv" and list(stairs.y) == [0.5, 0.81, 0.9, 0.9]
    assert (
        figure.layout.title.text == "made"
        and "plain host" in figure.layout.xaxis.title.text
        and "accuracy" in figure.layout.yaxis.title.text
    )
    low, high = figure.layout.xaxis.range
    assert low < 1 and 1.2 < high < 1.9 and "1 slower placement" in figure.layout.annotations[0].text
    assert f"<b>{GOOD}</b>" in traces["certified"].hovertext[0] and "2 seeds" in traces["certified"].hovertext[0]
    assert study.plot_front(title="another").layout.title.text == "another"


def test_the_figure_of_nothing_says_so(empty: Study) -> None:
    figure = empty.plot_front()
    assert not figure.data and figure.layout.annotations[0].text == "no completed trial yet"


def test_what_a_notebook_shows(study: Study, empty: Study) -> None:
    page = study._repr_html_()
    for text in ("made", "nasattn_resnet18", "cued_digits", "7 trials", GOOD, "0.810", "1.100x (1.089-1.111)", "by test images"):
        assert text in page, text
    assert page.count("<tr>") == 4 == study.front()._repr_html_().count("<tr>")
    assert WORSE not in page
    assert "No completed trial yet" in empty._repr_html_() and "No completed trial yet" in empty.front()._repr_html_()
    assert (
        GOOD in study.best(max_latency="1.15x")._repr_html_() and "accuracy on test images" in study.best(max_latency="1.15x")._repr_html_()
    )


def test_a_hostile_name_is_only_text(url: str) -> None:
    study = nasattn.open_study(HOSTILE, url)
    page = study._repr_html_() + study.front()._repr_html_() + study.best()._repr_html_()
    assert "<script" not in page and html.escape(HOSTILE) in page
    assert "<script" not in study.plot_front().layout.title.text
    assert all("<b>no</b>" not in text for trace in study.plot_front().data for text in trace.hovertext or ())


def test_two_studies_of_one_database_are_apart(url: str) -> None:
    assert Store(url).study(HOSTILE).name == HOSTILE
    assert len(nasattn.open_study(HOSTILE, url).trials()) == len(ROWS)


def test_a_mistyped_setting_is_met_with_the_right_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(UsageError, match="unknown setting 'max_latenzy': Did you mean 'max_latency'"):
        nasattn.search("resnet18_stages", storage=url, max_latenzy="1.2x")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="--space is missing"):
        nasattn.search(storage=url)
    assert not (tmp_path / "none.db").exists()
