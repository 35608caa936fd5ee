"""What a search leaves in Optuna for its dashboard: attributes, notes, the figure, files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.trial import Trial
from optuna_dashboard import get_note, save_note

from nasattn.report.notes import BORDER
from nasattn.search import publishing
from nasattn.search.events import Event, SearchNoted
from nasattn.search.publishing import publish
from nasattn.store import Store
from tests.made_study import BEST, GOOD, ROWS, SLOW, WORSE, make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_study(f"sqlite:///{folder / 'studies.db'}")
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Store(f"sqlite:///{tmp_path / 'studies.db'}")


def published(store: Store, ended: str = "all 7 trials are done") -> list[str]:
    """Publish as the driver does, and record the front; what was noted."""
    from nasattn.front import front

    noted: list[Event] = []
    trials = store.evaluations("made")
    publish(store, "made", trials, ended, noted.append)
    store.save_front("made", ((m.trial, m.tier, m.p_member) for m in front(trials)))
    return [event.text for event in noted]  # type: ignore[union-attr]


def load(store: Store) -> optuna.Study:
    return optuna.load_study(study_name="made", storage=store.optuna, sampler=optuna.samplers.RandomSampler())


def trial(store: Store, number: int) -> Trial:
    study = load(store)
    return Trial(study, study.trials[number]._trial_id)


def rows_of(store: Store) -> dict[str, list[Any]]:
    """Every row that Optuna keeps beside the trials."""
    engine = sa.create_engine(store.url)
    with engine.connect() as connection:
        tables = ("study_system_attributes", "study_user_attributes", "trial_system_attributes", "trial_user_attributes")
        rows = {t: [tuple(row) for row in connection.execute(sa.text(f"select * from {t} order by 1"))] for t in tables}
    engine.dispose()
    return rows


def test_the_note_of_a_study(store: Store) -> None:
    assert published(store) == []
    note = get_note(load(store))
    assert note.startswith("# Front of `made`\n\nHost `nasattn_resnet18`, task `cued_digits`, space `resnet18_stages`, seed 0.")
    assert "7 trials: 5 complete, 1 pruned, 1 fail. All 7 trials are done." in note
    assert f"| 1 | `{GOOD}` | 0.810 ± 0.014 | 1.100x (1.089 to 1.111) |" in note and WORSE not in note
    assert "- --max-latency 1.5x: 1 placement above it was not trained\n" in note
    assert f"nasattn export made --best --out model --storage {store.shown}\n" in note


def test_the_count_of_what_is_above_a_limit(tmp_path: Path) -> None:
    more = {"placement": "fsla_c49,fsla_c49,none,none", "ratio": 2.5}
    store = make_study(f"sqlite:///{tmp_path / 'more.db'}", [{"placement": SLOW, "ratio": 1.9}, more])
    published(store)
    note = get_note(load(store))
    assert "2 placements above it were not trained" in note and "No trial has completed yet." in note and "nasattn export" not in note


def test_the_notes_of_trials(store: Store) -> None:
    published(store)
    note = get_note(trial(store, 1))
    assert note.startswith("## On the front, ") and f"| placement | `{GOOD}` |" in note
    assert "| trainings | trial 1, seed 0: 0.800; trial 5, seed 1: 0.820 |" in note and "| accuracy on test images | 0.790 |" in note
    assert f"nasattn export made --trial 1 --out model-1 --storage {store.shown}" in note
    assert [number for number in range(7) if get_note(trial(store, number))] == [0, 1, 2]


def test_the_same_again_changes_nothing(store: Store) -> None:
    published(store)
    before = rows_of(store)
    assert published(store) == []
    assert rows_of(store) == before and before["study_user_attributes"]


def test_what_a_reader_wrote_stays(store: Store) -> None:
    published(store)
    study = load(store)
    save_note(study, get_note(study) + "\nMine: see [there](https://example.org).\n")
    save_note(trial(store, 2), "Only mine.")
    published(store, "interrupted")
    note = get_note(load(store))
    above, below = note.split(BORDER)
    assert below.strip() == "Mine: see [there](https://example.org)." and "Interrupted." in above and "All 7 trials" not in note
    above, below = get_note(trial(store, 2)).split(BORDER)
    assert below.strip() == "Only mine." and f"`{BEST}`" in above


def test_a_former_member_says_so(store: Store) -> None:
    published(store)
    store.save_front("made", [(3, "provisional", 0.6)])
    published(store)
    assert f"No longer on the front: `{WORSE}` is dominated" in get_note(trial(store, 3))


def test_attributes_read_well(store: Store) -> None:
    published(store)
    study = load(store)
    assert study.metric_names == ["accuracy", "latency_ratio"]
    expected = {"host": "nasattn_resnet18", "space": "resnet18_stages", "task": "cued_digits", "seed": 0, "limits": "max_latency 1.5x"}
    assert study.user_attrs.items() >= {**expected, "ended": "all 7 trials are done"}.items()
    good = study.trials[1].user_attrs
    assert good["placement"] == GOOD and good["params_M"] == 11.7 and good["macs_G"] == 1.8 and good["latency_ms"] == 11.0
    assert good["latency_interval"] == "1.089x to 1.111x" and good["latency_method"] == "measured end to end"
    assert good["max_latency"] == "1.100x, within 1.5x" and study.trials[4].user_attrs["max_latency"] == "1.900x, above 1.5x"
    assert study.trials[5].user_attrs["test_accuracy"] == 0.79 and study.trials[5].user_attrs["training_seconds"] == 20.0
    assert study.trials[6].user_attrs["reason"] == "RuntimeError: <b>no</b>"


def test_files_lie_beside_the_database(store: Store, tmp_path: Path) -> None:
    published(store)
    published(store)
    study, files = load(store), FileSystemArtifactStore(tmp_path / "studies.artifacts")
    (front,) = get_all_artifact_meta(study)
    with files.open_reader(front.artifact_id) as file:
        lines = file.read().decode().splitlines()
    assert front.filename == "front.csv" and lines[0].startswith("trial,placement,accuracy") and len(lines) == 4
    kept = [[meta.filename for meta in get_all_artifact_meta(t, storage=store.optuna)] for t in study.trials]
    assert kept == [["curve.svg"]] * 4 + [[], ["curve.svg"], []]
    (curve,) = get_all_artifact_meta(study.trials[1], storage=store.optuna)
    with files.open_reader(curve.artifact_id) as file:
        assert f"trial 1: {GOOD}".encode() in file.read()
    assert len(list((tmp_path / "studies.artifacts").iterdir())) == 6


def test_what_goes_wrong_is_noted_and_nothing_fails(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "front_figure", full)
    assert published(store) == ["the notes for Optuna dashboard could not be written: OSError: [Errno 28] No space left on device"]
    monkeypatch.undo()
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("NASATTN_ARTIFACTS", str(tmp_path / "a file"))
    (said,) = published(store)
    assert said.startswith("the notes for Optuna dashboard could not be written: ")
    monkeypatch.undo()
    assert published(store) == []


def test_a_curve_that_cannot_be_kept_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("NASATTN_ARTIFACTS", str(tmp_path / "a file"))
    events: list[Event] = []
    store = make_study(f"sqlite:///{tmp_path / 'studies.db'}", ROWS[:3], notify=events.append)
    assert [t.state for t in store.evaluations("made")] == ["COMPLETE"] * 3
    (noted,) = [event.text for event in events if isinstance(event, SearchNoted)]
    assert noted.startswith("the curves of trials are not kept as pictures: ")
