"""A folder that does not fit into memory trains to the same figures as one that does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe, TrainingReport
from nasattn.tasks import Split, TaskRequest, load_task
from nasattn.tasks.stream import StreamedSplit

FIDELITY = Fidelity(stem_stride=1, resolution=16, epochs=2, rungs=2)


def fill(folder: Path) -> Path:
    """Two classes of noise, one darker than the other."""
    rng = np.random.default_rng(0)
    for split, images in (("train", 40), ("val", 20)):
        for name, brightness in (("dark", 100), ("light", 150)):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(images):
                Image.fromarray(rng.integers(0, brightness, (20, 24, 3)).astype(np.uint8)).save(place / f"{i}.png")
    return folder


def train(folder: Path, kind: type[Split] | type[StreamedSplit]) -> list[TrainingReport]:
    task = load_task(str(folder), TaskRequest(16))
    assert isinstance(task.train, kind) and isinstance(task.val, kind)
    training = ProxyTraining(ProxyJob("nasattn_resnet18", "none,sge_g32,none,none", FIDELITY, Recipe(flip=True, crop=1)), task)
    reports = []
    while not training.done:
        reports.append(training.step())
    return reports


def test_streamed_images_train_like_resident_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path)
    resident = train(folder, Split)
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    streamed = train(folder, StreamedSplit)
    assert [(r.epoch, r.loss, r.accuracy) for r in streamed] == [(r.epoch, r.loss, r.accuracy) for r in resident]
    assert resident[-1].accuracy > 0.7
