"""The log of a command that trains: there when it fails, with what libraries said, and no word of it on the terminal."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from nasattn import api, log
from nasattn.cli import _run
from nasattn.search.cluster import quiet_libraries, ray_cluster


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NASATTN_LOGS", str(tmp_path / "logs"))
    yield tmp_path / "logs"
    log.stop()


def written() -> str:
    path = log.current()
    assert path is not None
    return path.read_text()


def test_what_libraries_say_is_kept_and_not_shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.start("search", "one/two")
    quiet_libraries()
    optuna.create_study(study_name="kept")
    warnings.warn("mind the gap", UserWarning, stacklevel=1)
    logging.getLogger("somebody").warning("not on the terminal")
    text = written()
    assert [f.name.split("-", 2)[2] for f in folder.iterdir()] == [f"search-one_two-{os.getpid()}.log"]
    for part in ("nasattn search one/two", "study created in memory with name: kept", "mind the gap", "not on the terminal"):
        assert part in text
    assert capfd.readouterr() == ("", "")


def test_workers_words_are_kept(folder: Path) -> None:
    log.start("search", "one")
    with ray_cluster(None, 1):
        import ray

        @ray.remote
        def speak() -> None:
            print("a word from a worker", flush=True)

        ray.get(speak.remote())
    text = written()
    assert "a word from a worker" in text
    assert text.count("a worker's ") == 1 and ":job_id:" not in text  # what said nothing is not named


def test_nothing_is_kept_without_a_log(folder: Path) -> None:
    quiet_libraries()
    optuna.create_study()
    log.take_over("optuna", logging.ERROR)
    log.keep_file(Path(__file__), "title")
    assert log.current() is None and not folder.exists()


def test_only_the_newest_logs_stay(folder: Path) -> None:
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.log").write_text("old")
        os.utime(folder / f"{number:02d}.log", (number, number))
    log.start("search")
    names = sorted(f.name for f in folder.iterdir())
    assert len(names) == log.KEPT and names[:2] == ["11.log", "12.log"]


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASATTN_LOGS", str(tmp_path / "file" / "logs"))
    log.start("search")
    assert log.current() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: no log is kept: ") and line.endswith("set NASATTN_LOGS to a folder that can be written")


def test_an_error_nobody_foresaw_is_one_line_that_names_the_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of\ncheese")

    monkeypatch.setattr(api, "open_study", broken)
    assert _run(["front", "one"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = folder.iterdir()
    assert line == f"nasattn: internal error, please report it: RuntimeError: out of; its traceback is in {file}"
    assert "Traceback (most recent call last)" in file.read_text() and "cheese" in file.read_text()
    assert log.current() is None


def test_a_users_mistake_needs_no_log(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run(["front", "one", "--storage", f"sqlite:///{tmp_path / 'none.db'}"]) == 2
    assert "log" not in capsys.readouterr().err and not folder.exists()
