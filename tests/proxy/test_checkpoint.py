"""A training that was interrupted at any report goes on to the same result; whatever is wrong with a checkpoint, it begins again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasattn.errors import UsageError
from nasattn.proxy import CheckpointedTraining, Checkpoints, Fidelity, ProxyJob, ProxyTraining, Recipe, TrainingReport
from nasattn.proxy.fidelity import OPTIMIZERS
from nasattn.tasks import Split, Task, TaskRequest, load_task

JOB = ProxyJob(
    "nasattn_resnet18",
    "none,sge_g32,sb,none",
    Fidelity(stem_stride=1, resolution=8, samples=300, val_samples=200, epochs=3),
    Recipe(flip=True, crop=1),
)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(8, 300, 200))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def begin(task: Task, checkpoints: Checkpoints, job: ProxyJob = JOB) -> CheckpointedTraining:
    return CheckpointedTraining(ProxyTraining(job, task), "identity", checkpoints)


def finish(training: CheckpointedTraining | ProxyTraining) -> list[TrainingReport]:
    reports = []
    while not training.done:
        reports.append(training.step())
    return reports


def figures(reports: list[TrainingReport]) -> list[tuple[float, float, float, int | None]]:
    return [(r.epoch, r.loss, r.accuracy, r.rung) for r in reports]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_from_every_report_it_goes_on_to_the_same_result(digits: Task, checkpoints: Checkpoints, optimizer: str) -> None:
    job = replace(JOB, recipe=JOB.recipe.changed(optimizer=optimizer))
    whole = figures(finish(ProxyTraining(job, digits)))
    assert len(whole) == 5  # the rungs at 1/4 and 1/2, and three epochs
    for stop in range(1, len(whole)):
        interrupted = begin(digits, checkpoints, job)
        for _ in range(stop):
            interrupted.step()
        del interrupted
        torch.manual_seed(123)  # whatever happened in between
        again = begin(digits, checkpoints, job)
        assert again.training.seconds > 0
        assert figures(finish(again)) == whole[stop:]
        checkpoints.remove("identity")
        assert list(Path(checkpoints.folder).iterdir()) == []  # nothing else is left


def test_one_that_has_ended_is_not_trained_again(digits: Task, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver may have been killed before it told the result."""
    interrupted = begin(digits, checkpoints)
    first = [interrupted.step(), interrupted.step()]
    whole = first + finish(begin(digits, checkpoints))
    monkeypatch.setattr(ProxyTraining, "step", lambda self: pytest.fail("trained again"))
    for _ in range(2):
        again = begin(digits, checkpoints)
        assert not again.done
        assert finish(again) == whole
    assert not begin(digits, checkpoints, replace(JOB, seed=1)).done  # another one


def test_a_killed_process_is_continued_by_another(tmp_path: Path) -> None:
    """Killed by SIGKILL after each number of reports; the next process ends with the accuracy of an undisturbed one."""
    program = """
import sys, torch
sys.path.insert(0, "tests/proxy")
from test_checkpoint import JOB, CheckpointedTraining, Checkpoints, ProxyTraining, TaskRequest, load_task
torch.set_num_threads(1)
training = CheckpointedTraining(ProxyTraining(JOB, load_task("digits", TaskRequest(8, 300, 200))), "identity", Checkpoints(sys.argv[1]))
while not training.done:
    report = training.step()
    print(repr(report.accuracy), flush=True)
    if len(sys.argv) > 2:
        input()
"""

    def run(folder: str, *pause: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", program, str(tmp_path / folder), *pause]
        return subprocess.Popen(arguments, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    undisturbed = run("one").communicate(timeout=120)[0].split()
    assert len(undisturbed) == 5
    seen = []
    for _ in range(2):
        process = run("two", "pause")
        assert process.stdout is not None
        seen.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    seen += run("two").communicate(timeout=120)[0].split()
    assert seen == undisturbed


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_a_broken_checkpoint_is_no_checkpoint(digits: Task, checkpoints: Checkpoints, damage: str) -> None:
    begin(digits, checkpoints).step()
    (file,) = Path(checkpoints.folder).iterdir()
    content = file.read_bytes()
    if damage == "other":
        torch.save([1, 2], file)
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"x" * 1000)
    assert begin(digits, checkpoints).training.done_steps == 0


def test_nothing_in_a_checkpoint_is_executed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    Path(checkpoints.folder).mkdir()
    torch.save({"training": Payload()}, Path(checkpoints.folder) / "identity.pt")
    assert checkpoints.load("identity") is None
    assert not (tmp_path / "executed").exists()


def test_other_data_are_not_continued(digits: Task, checkpoints: Checkpoints) -> None:
    begin(digits, checkpoints).step()
    brighter = Task(digits.name, digits.classes, Split(digits.train.images.clamp_min(3), digits.train.labels), digits.val)
    assert begin(brighter, checkpoints).training.done_steps == 0
    assert begin(digits, checkpoints).training.done_steps > 0


def test_another_job_is_not_continued(digits: Task, checkpoints: Checkpoints) -> None:
    begin(digits, checkpoints).step()
    assert begin(digits, checkpoints, replace(JOB, placement="none,none,none,none")).training.done_steps == 0


def test_old_checkpoints_are_removed(checkpoints: Checkpoints) -> None:
    checkpoints.save("old", {})
    checkpoints.save("new", {})
    long_ago = time.time() - 8 * 86400
    os.utime(Path(checkpoints.folder) / "old.pt", (long_ago, long_ago))
    checkpoints.prune()
    assert [f.name for f in Path(checkpoints.folder).iterdir()] == ["new.pt"]


def test_where_they_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NASATTN_CHECKPOINTS", raising=False)
    assert Checkpoints().folder == str(tmp_path / "cache" / "nasattn" / "checkpoints")
    monkeypatch.setenv("NASATTN_CHECKPOINTS", str(tmp_path / "shared"))
    assert Checkpoints().folder == str(tmp_path / "shared")


def test_a_folder_on_another_store(digits: Task) -> None:
    """Any URL of fsspec; here one that needs no server."""
    checkpoints = Checkpoints("memory://shared/checkpoints")
    interrupted = begin(digits, checkpoints)
    first = [interrupted.step(), interrupted.step()]
    assert figures(first + finish(begin(digits, checkpoints))) == figures(finish(ProxyTraining(JOB, digits)))
    checkpoints.prune()
    assert checkpoints.load("identity") is not None
    checkpoints.prune(days=0)
    assert checkpoints.load("identity") is None
    checkpoints.remove("identity")


def test_a_url_that_is_none() -> None:
    with pytest.raises(UsageError, match="set NASATTN_CHECKPOINTS to a folder, or a URL that fsspec knows"):
        Checkpoints("nostore://bucket/x")


def test_a_training_goes_on_without_a_checkpoint_where_none_can_be_kept(digits: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reports = finish(begin(digits, Checkpoints(tmp_path / "file")))
    assert figures(reports) == figures(finish(ProxyTraining(JOB, digits)))
    assert all(len(r.notes) == 1 and r.notes[0].startswith("no checkpoint could be kept: FileExistsError") for r in reports)
