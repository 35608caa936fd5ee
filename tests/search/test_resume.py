"""Killed workers: the trial goes on in another from its last report, to the result of an undisturbed one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nasattn.search.driver import run_search
from nasattn.search.study import StudyConfig, make_config
from tests.search.workers import KilledOnce

TINY = {"samples": 96, "val_samples": 64, "resolution": 24, "epochs": 2, "rungs": 2}


def configure(space_file: str, **settings: Any) -> StudyConfig:
    small = {"fidelity": TINY, "deployment": {"resolution": 64}, "latency_seconds": 0.2, "sampler": "random", "trials": 2, "workers": 1}
    return make_config({"space": space_file, "study": "s", **small, **settings})


@pytest.mark.slow
def test_a_trial_whose_worker_was_killed_ends_like_an_undisturbed_one(
    space_file: str, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASATTN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    whole = run_search(configure(space_file), f"sqlite:///{tmp_path / 'one.db'}").evaluations
    marks = tmp_path / "marks"
    marks.mkdir()
    disturbed = run_search(
        configure(space_file), f"sqlite:///{tmp_path / 'two.db'}", start=partial(KilledOnce, folder=str(marks))
    ).evaluations
    assert {m.read_text() for m in marks.iterdir()} == {"killed"}
    assert len(whole) == len(disturbed) == 2
    for a, b in zip(whole, disturbed, strict=True):
        assert a.state == b.state == "COMPLETE"
        assert (a.placement, a.accuracy) == (b.placement, b.accuracy)
        assert [(p["epoch"], p["accuracy"], p["loss"]) for p in a.curve] == [(p["epoch"], p["accuracy"], p["loss"]) for p in b.curve]
        assert a.worker is not None and b.worker is not None
