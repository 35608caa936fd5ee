"""A study of a database as Python sees it: its trials, its front, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nasattn.errors import StudyError, UsageError
from nasattn.front import FrontMember, appraise
from nasattn.store import EvaluationRecord, Store, StudyRecord
from nasattn.store.records import PROXY_REPORT

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from nasattn.export import Exported
    from nasattn.search.proxy_report import ProxyReport


class Front(list[FrontMember]):
    """The members of a front, fastest first: a list that shows itself as a table, in a terminal and in a notebook.

    Args:
        members: Fastest first.
        study: Name of the study, for the heading.
    """

    def __init__(self, members: Iterable[FrontMember] = (), study: str = "") -> None:
        super().__init__(members)
        self.study = study

    def to_pandas(self) -> pd.DataFrame:
        """One row a member, fastest first; the columns are the fields of :class:`~nasattn.front.FrontMember`, then a column a stage."""
        from nasattn.report.frames import members_frame

        return members_frame(self)

    def __repr__(self) -> str:
        from nasattn.console import plain_text
        from nasattn.report.tables import front_table

        return plain_text(front_table(self, f"Front of {self.study}" if self.study else "Front", 130), 130)

    def _repr_html_(self) -> str:
        from nasattn.report.notebook import front_html

        return front_html(self)


class Study:
    """A study in a database.

    Nothing is kept here: every call reads the trials as they are now, so that a study can be watched while it runs elsewhere.

    Args:
        store: The database.
        name: The study's name.

    Raises:
        StudyError: There is no such study, or its record is damaged.

    Example:
        >>> study = nasattn.open_study("resnet50_stages-cued_digits-s0")
        >>> study.best(max_latency="1.2x").placement
        'none,sge_g16,ela_t,ela_b'
        >>> study.plot_front().show()
        >>> study.export("model", max_latency="1.2x")
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.record: StudyRecord = store.study(name)
        self.name = name
        kinds = {"space_name": str, "space": dict, "task": str, "fidelity": dict, "recipe": dict, "device": str, "seed": int}
        wrong = [key for key, kind in kinds.items() if not isinstance(self.record.config.get(key), kind)]
        if wrong or not isinstance(self.record.config["space"].get("host"), str):
            raise StudyError(
                f"the record of study {name!r} is damaged: wrong or missing is {', '.join(wrong) or 'space.host'}; use a copy of the database, or another study"
            )

    @property
    def host(self) -> str:
        """The network whose stages carry the attentions."""
        return str(self.record.config["space"]["host"])

    @property
    def task(self) -> str:
        """Name of the task, or the folder of images, that its proxies are trained on."""
        return str(self.record.config["task"])

    @property
    def storage(self) -> str:
        """URL of the database, without its password."""
        return self._store.shown

    def trials(self) -> list[EvaluationRecord]:
        """All trials, in order of their numbers."""
        return self._store.evaluations(self.name)

    def trial(self, number: int) -> EvaluationRecord:
        """One trial. Raises StudyError with the numbers there are."""
        trials = {t.trial: t for t in self.trials()}
        if number not in trials:
            known = f"{min(trials)} to {max(trials)}" if trials else "none yet"
            raise StudyError(f"study {self.name!r} has no trial {number}: there are {known}; `nasattn front {self.name}` lists the best")
        return trials[number]

    def placements(self, device: str | None = None) -> list[FrontMember]:
        """All placements that were completed, fastest first: those of the front, and the others with the tier ``dominated``.

        Args:
            device: As for :meth:`front`.
        """
        return appraise(self.trials() if device is None else self._trials_on(device))

    def front(self, device: str | None = None) -> Front:
        """The front, fastest first, from the trials as they are now; empty as long as no trial has completed.

        Args:
            device: A device key, or a part of one that fits no other: the front that the same trained proxies make there, by
                what the database holds of that device (see :meth:`without_latency`).

        Raises:
            StudyError: No such device key, or more than one.
        """
        return Front((p for p in self.placements(device) if p.on_front), self.name)

    def without_latency(self, device: str) -> list[str]:
        """The completed placements of which nothing is known on the device key *device*; they are not on its front."""
        return [t.placement for t in self._trials_on(device) if t.state == "COMPLETE" and t.latency is None]

    def _trials_on(self, device: str) -> list[EvaluationRecord]:
        from nasattn.search.latencies import find_latencies

        return find_latencies(self._store, self.host, device, self.trials())

    def to_pandas(self, front: bool = False, device: str | None = None) -> pd.DataFrame:
        """The study as a data frame.

        Args:
            front: The members of the front, a row each, with the fields of :class:`~nasattn.front.FrontMember`: accuracies are means
                over the seeds. Else all trials, a row each, whatever became of them.
            device: As for :meth:`front`.

        Returns:
            Rows in the order of :meth:`trials` or :meth:`front`. Accuracies are from 0 to 1, ``latency_ratio`` is to the plain host's,
            ``latency_ms`` in milliseconds a batch, ``training_seconds`` in seconds, times are in UTC; ``stage1``, ``stage2``, ... hold the
            tokens of the placement, as categories. What is not known is missing: NaN, NaT, ``<NA>`` or None.

        Raises:
            StudyError: No such device key, or more than one.
        """
        from nasattn.report.frames import trials_frame

        if front:
            return self.front(device).to_pandas()
        trials = self.trials() if device is None else self._trials_on(device)
        return trials_frame(trials, appraise(trials), self.record.seed)

    def best(self, max_latency: str | None = None, device: str | None = None) -> FrontMember:
        """The most accurate member of the front, within *max_latency* (``1.2x`` or ``12ms``) if given, on *device* (see :meth:`front`).

        Raises:
            StudyError: No trial has completed, or none is within the limit.
            UsageError: *max_latency* cannot be read.
        """
        members = self.front(device)
        if not members:
            raise StudyError(f"study {self.name!r} has no completed trial: continue it with `nasattn search --study {self.name} ...`")
        if max_latency is None:
            return max(members, key=lambda m: m.accuracy)
        from nasattn.search.limits import Limit

        limit = Limit.parse("latency", max_latency)
        within = [m for m in members if limit.excess(m.latency_ms, m.latency_ratio) <= 0]
        if not within:
            fastest = members[0]
            raise StudyError(
                f"no member of the front is within {limit}: the fastest is {fastest.placement} with {fastest.latency_ratio:.3f}x, {fastest.latency_ms:.1f} ms; raise the limit"
            )
        return max(within, key=lambda m: m.accuracy)

    def export(self, out: str | Path, trial: int | None = None, max_latency: str | None = None, force: bool = False) -> Exported:
        """Write a placement as a timm model folder; the best one unless *trial* or *max_latency* says otherwise.

        Args:
            out: The folder; made if need be.
            trial: Number of a trial, on the front or not.
            max_latency: The most accurate member of the front within ``1.2x`` or ``12ms``.
            force: Write into a folder that is not empty.

        Returns:
            The folder, the placement, and the lines that load and train it.

        Raises:
            StudyError: No such trial, or nothing within the limit.
            UsageError: *out* is not empty, or both *trial* and *max_latency* are given.
        """
        from nasattn.export import export_placement

        if trial is not None and max_latency is not None:
            raise UsageError(f"give either a trial or a limit, got trial {trial} and max_latency {max_latency!r}")
        if trial is None:
            trial = self.best(max_latency).trial
        return export_placement(self.record, self.trial(trial), self._figures(trial), Path(out), force=force)

    def plot_front(self, device: str | None = None, title: str | None = None) -> go.Figure:
        """Accuracy against the latency ratio: all placements, the front with its 95 % intervals, the plain host.

        Args:
            device: As for :meth:`front`.
            title: By default the study's name.

        Returns:
            A plotly figure: ``figure.show()``, ``figure.write_html("front.html")``.

        Raises:
            StudyError: No such device key, or more than one.
        """
        from nasattn.report.plot_front import front_figure, untrained

        trials = self.trials() if device is None else self._trials_on(device)
        return front_figure(appraise(trials), self.name if title is None else title, above=untrained(trials))

    @property
    def has_proxy_report(self) -> bool:
        """Whether the database holds a report on its proxy; cheaper to ask than for the report."""
        return self._store.report(self.name, PROXY_REPORT) is not None

    def proxy_report(self) -> ProxyReport | None:
        """How far its proxy can be trusted, as last found by :func:`nasattn.proxy_report`; None where that has not been asked."""
        from nasattn.search.proxy_report import stored_proxy_report

        return stored_proxy_report(self._store, self.name)

    def report(
        self, out: str | Path | None = None, format: str = "html", *, cam: bool = False, notify: Callable[[str], None] = lambda text: None
    ) -> list[Path]:
        """Write what is known of the study into files, which are returned (see :func:`nasattn.report.writing.write_report`).

        Args:
            out: The page's file, by default ``report.html``; of the other formats a folder, by default ``report``.
            format: ``html``: one page that works offline; ``png``, ``svg``: figures for a paper; ``csv``: the data behind them.
            cam: Train the plain host and up to three members again, and show by Grad-CAM where each looks.
            notify: Called with a line whenever something begins that takes a while.

        Raises:
            UsageError: *out* cannot be written, or *cam* without the extra ``cam``.
            StudyError: There is nothing to draw.
        """
        from nasattn.report.writing import write_report
        from nasattn.storage_url import storage_flag

        storage = storage_flag(self._store.url, self._store.shown)
        return write_report(self._store, self.name, out, format, cam=cam, storage=storage, notify=notify)

    def _figures(self, trial: int) -> FrontMember | None:
        return next((m for m in self.front() if m.trial == trial), None)

    def __repr__(self) -> str:
        from nasattn.report.tables import count_states

        trials = self.trials()
        members = [p for p in appraise(trials) if p.on_front]
        found = f", the best with {max(m.accuracy for m in members):.3f}" if members else ""
        return f"<Study {self.name!r} in {self.storage}: {count_states(trials)}; {len(members)} on the front{found}>"

    def _repr_html_(self) -> str:
        from nasattn.report.notebook import study_html

        return study_html(self.record, self.storage, self.trials())
