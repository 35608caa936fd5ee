"""Whether the images of a study are still those that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nasattn.errors import StudyError
from nasattn.search.study import StudyConfig
from nasattn.store import StudyRecord
from nasattn.tasks import Task

SHOWN = 5  # differences that a message tells


def with_data(config: StudyConfig, task: Task, stored: StudyRecord | None) -> StudyConfig:
    """*config* with the fingerprint of its images, which a new study records and one that goes on must share.

    A study of a release that recorded none goes on without.

    Args:
        config: The study.
        task: Its images as they are now.
        stored: The study as the database holds it, or None for a new one.

    Raises:
        StudyError: The images are others than those that the study was begun with.
    """
    if stored is None:
        return replace(config, data=task.fingerprint)
    if not stored.config.get("data"):
        return replace(config, data={})
    check_unchanged(stored.config, task)
    return replace(config, data=stored.config["data"])


def check_unchanged(stored: Mapping[str, Any], task: Task) -> None:
    """Compare the fingerprint in a study's *stored* configuration with that of *task*. Raises StudyError with what changed and what to do."""
    before, now = stored.get("data") or {}, task.fingerprint
    if not before or before == now:
        return
    remedy = "begin another study with --study NAME or --fresh"
    if "generator" in before or "generator" in now:
        raise StudyError(
            f"task {task.name} makes other images (generator {now.get('generator')}) than those that the study was begun with"
            f" (generator {before.get('generator')}): use the nasattn that began it, or {remedy}"
        )
    changes = _changes(before.get("parts", {}), now["parts"])
    shown = "; ".join(changes[:SHOWN]) + (f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else "")
    raise StudyError(
        f"the images of task {task.name} are not those that the study was begun with ({shown or 'it cannot be told how'}): restore them, or {remedy}"
    )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each folder whose images changed: ``train/cat: 5 images -> 6``."""
    lines = []
    for part in sorted({*before, *now}):
        (count, digest), (new_count, new_digest) = before.get(part, (0, "")), now.get(part, (0, ""))
        if count != new_count:
            lines.append(f"{part}: {count} images -> {new_count}")
        elif digest != new_digest:
            lines.append(f"{part}: other files, still {count}")
    return lines
