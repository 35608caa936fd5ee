"""What Optuna dashboard shows of a study beside its trials: notes, the front as a figure, files. Written by the driver when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nasattn.front import FrontMember, appraise
from nasattn.report.notes import former_note, member_note, merged, study_note
from nasattn.report.plot_front import front_figure, untrained
from nasattn.report.tables import front_csv
from nasattn.search.events import Event, SearchNoted
from nasattn.storage_url import storage_flag
from nasattn.store import EvaluationRecord, Store
from nasattn.store.artifacts import Artifacts, artifact_folder

FIGURE = "nasattn-front"
MOST_DOMINATED = 150  # of the figure: it lies in the database, and a page reads it again and again


def publish(store: Store, name: str, trials: Sequence[EvaluationRecord], ended: str, notify: Callable[[Event], None]) -> None:
    """Write what the dashboard is to show of a study. The same again changes nothing; whatever goes wrong is noted, and nothing fails.

    Args:
        store: The database, whose recorded front is still the one that was published last.
        name: Of the study.
        trials: All of it.
        ended: Why the run ended, in a phrase.
        notify: Told what went wrong.
    """
    try:
        _Publication(store, name, trials, ended).write()
    except Exception as error:
        notify(SearchNoted(f"the notes for Optuna dashboard could not be written: {type(error).__name__}: {error}"))


@dataclass
class _Publication:
    store: Store
    name: str
    trials: Sequence[EvaluationRecord]
    ended: str

    def write(self) -> None:
        import optuna

        self.record = self.store.study(self.name)
        self.storage = storage_flag(self.store.url, self.store.shown)
        points = appraise(self.trials)
        members = [p for p in points if p.on_front]
        # a sampler of ours would take the trials that are noted for new ones
        self.study = optuna.load_study(study_name=self.name, storage=self.store.optuna, sampler=optuna.samplers.RandomSampler())
        self._attributes()
        self._notes(members)
        self._figure(points)
        if (folder := artifact_folder(self.store.url)) is not None:
            Artifacts(folder, self.store.optuna).put(self.study, "front.csv", front_csv(members))

    def _attributes(self) -> None:
        config = self.record.config
        deployment = config.get("deployment", {})
        found = {  # the dashboard shows the first five at once
            "host": config["space"]["host"],
            "task": config["task"],
            "deployment": ", ".join(f"{k} {v}" for k, v in deployment.items() if v not in (None, False)),
            "limits": ", ".join(f"{k} {v}" for k, v in config.items() if k.startswith("max_")) or "none",
            "ended": self.ended,
            "space": config["space_name"],
            "sampler": config.get("sampler"),
            "seed": self.record.seed,
        }
        known = self.study.user_attrs
        for key, value in found.items():
            if value is not None and known.get(key) != value:
                self.study.set_user_attr(key, value)

    def _notes(self, members: Sequence[FrontMember]) -> None:
        from optuna.trial import Trial

        self._note(self.study, study_note(self.record, self.trials, self.ended, self.storage))
        ids = {t.number: t._trial_id for t in self.study.get_trials(deepcopy=False)}
        now = {m.trial: member_note(self.record, m, self.trials, self.storage) for m in members}
        before = {trial for trial, _, _ in self.store.front(self.name)} - set(now)
        former = {t.trial: former_note(t.placement) for t in self.trials if t.trial in before}
        for number, text in {**now, **former}.items():
            if number in ids:
                self._note(Trial(self.study, ids[number]), text)

    def _note(self, owner: object, text: str) -> None:
        from optuna_dashboard import get_note, save_note

        old = get_note(owner)
        if (new := merged(old, text)) != old:
            save_note(owner, new)

    def _figure(self, points: Sequence[FrontMember]) -> None:
        from optuna_dashboard import save_plotly_graph_object

        figure = front_figure(points, "Front with 95 % intervals", above=untrained(self.trials), most=MOST_DOMINATED)
        save_plotly_graph_object(self.study, figure, graph_object_id=FIGURE)
