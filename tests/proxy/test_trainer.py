"""Training proxies: the same job gives the same figures, real digits are learned, and what diverges says so."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe, TrainingReport, trainer
from nasattn.proxy.fidelity import OPTIMIZERS
from nasattn.tasks import Split, Task, TaskRequest, load_task

SMALL = Fidelity(blocks=1, stem_stride=1, resolution=8, samples=600, val_samples=300, epochs=3, rungs=1)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(8, 600, 300))


def few(task: Task, samples: int) -> Task:
    return Task(task.name, task.classes, Split(task.train.images[:samples], task.train.labels[:samples]), task.val)


def train(
    task: Task, placement: str = "none,sge_g32,none,none", seed: int = 0, epochs: int = 3, **recipe: float | str
) -> list[TrainingReport]:
    training = ProxyTraining(ProxyJob("nasattn_resnet18", placement, SMALL.changed(epochs=epochs), Recipe(**recipe), seed), task)  # type: ignore[arg-type]
    reports = []
    while not training.done:
        reports.append(training.step())
    return reports


def figures(reports: list[TrainingReport]) -> list[tuple[int, float, float]]:
    return [(r.epoch, r.loss, r.accuracy) for r in reports]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", ["none,none,none,none", "none,sge_g32,ela_t,sb"])
def test_digits_are_learned(digits: Task, placement: str, optimizer: str) -> None:
    reports = train(digits, placement, optimizer=optimizer)
    assert [r.epoch for r in reports] == [1, 2, 3]
    assert reports[-1].accuracy > 0.8  # chance is 0.1
    assert reports[0].loss > reports[1].loss > reports[2].loss
    assert 0 < reports[0].seconds < reports[1].seconds < reports[2].seconds


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_job_gives_the_same_figures_to_the_last_digit(digits: Task, optimizer: str) -> None:
    first = train(digits, optimizer=optimizer)
    torch.rand(3)  # whatever else draws random numbers in the process
    assert figures(train(digits, optimizer=optimizer)) == figures(first)
    assert figures(train(digits, optimizer=optimizer, seed=1)) != figures(first)


def test_muon_makes_matrices_orthogonal(digits: Task) -> None:
    """A convolution's update has singular values of about one size and AdamW's root mean square."""
    recipe = Recipe(optimizer="muon", lr=1.0, weight_decay=0.0)
    training = ProxyTraining(ProxyJob("nasattn_resnet18", "none,none,none,none", SMALL, recipe), digits)
    weight = training.model.get_parameter("layer2.0.conv1.weight")
    before = weight.detach().clone()
    images, labels = next(training.train.batches(torch.arange(32), 32))
    training.step_once.rates = [torch.ones(training.steps)]
    training.step_once(0, images, labels, torch.zeros(32, 3, dtype=torch.int64))
    update = (weight.detach() - before).flatten(1)
    singular = torch.linalg.svdvals(update)
    assert singular[0] < 1.5 * singular[-1]
    assert math.isclose(float(update.square().mean().sqrt()), 0.2, rel_tol=0.2)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_loss_that_is_not_finite_gives_no_accuracy(digits: Task, lr: float) -> None:
    for report in train(digits, lr=lr):
        assert not math.isfinite(report.loss)
        assert math.isnan(report.accuracy)


def test_every_step_waits_for_its_turn(digits: Task) -> None:
    """600 images in batches of 32 are 18 steps; the validation is one more. Between turns nothing is computed."""
    entered, inside = 0, False

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal entered, inside
        entered, inside = entered + 1, True
        yield
        inside = False

    training = ProxyTraining(ProxyJob("nasattn_resnet18", "none,none,none,none", SMALL, Recipe()), digits, turn)
    seen: set[bool] = set()
    training.model.register_forward_hook(lambda *_: seen.add(inside))
    training.step()
    assert (entered, seen) == (19, {True})


def test_waiting_is_not_counted(digits: Task) -> None:
    waited = []

    @contextmanager
    def turn() -> Iterator[None]:
        started = time.perf_counter()
        time.sleep(0.05)
        waited.append(time.perf_counter() - started)
        yield

    training = ProxyTraining(ProxyJob("nasattn_resnet18", "none,none,none,none", SMALL, Recipe(batch_size=300)), digits, turn)
    started = time.perf_counter()
    report = training.step()
    assert len(waited) == 3
    assert report.seconds <= time.perf_counter() - started - sum(waited)


def test_a_batch_larger_than_the_data(digits: Task) -> None:
    reports = train(few(digits, 20), batch_size=64, epochs=2)
    assert all(math.isfinite(r.loss) and 0 <= r.accuracy <= 1 for r in reports)


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "warmup"), [(320, 32, 1, 0.1), (64, 32, 1, 0.5), (32, 32, 1, 0.1), (70, 32, 5, 0.1)]
)
def test_every_number_of_steps_has_a_schedule(digits: Task, samples: int, batch: int, epochs: int, warmup: float) -> None:
    reports = train(few(digits, samples), epochs=epochs, batch_size=batch, warmup=warmup)
    assert len(reports) == epochs and all(math.isfinite(r.loss) for r in reports)


def test_flip_hides_left_from_right() -> None:
    """One class is bright on the left, the other on the right: mirrored at random they cannot be told apart in training."""
    labels = torch.arange(200) % 2
    images = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    images[labels == 0, :, :, :4] = 200
    images[labels == 1, :, :, 4:] = 200
    sides = Task("sides", ("left", "right"), Split(images, labels), Split(images, labels))
    straight, flipped = train(sides), train(sides, flip=True)
    assert straight[-1].loss < 0.1 and straight[-1].accuracy == 1
    assert flipped[-1].loss > 0.6  # log 2 = 0.69 is what guessing costs
    assert figures(train(sides, flip=True)) == figures(flipped)


def test_weights_that_diverged_in_the_last_step_give_no_accuracy(digits: Task) -> None:
    """The loss of the last step was still finite, so only the validation can tell."""
    training = ProxyTraining(ProxyJob("nasattn_resnet18", "none,none,none,none", SMALL, Recipe()), digits)
    with torch.no_grad():
        training.model.fc.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
    assert math.isnan(training._accuracy(training.val))


def test_where_nothing_is_decided_a_part_of_the_validation_images_is_looked_at(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "GLANCE", 100)
    whole = replace(digits, val=Split(digits.val.images[:290], digits.val.labels[:290]))
    third = replace(digits, val=Split(digits.val.images[:290:3], digits.val.labels[:290:3]))
    job = ProxyJob("nasattn_resnet18", "none,sge_g32,none,none", SMALL.changed(epochs=4, rungs=2), Recipe())
    found, on_whole, on_third = ProxyTraining(job, whole), ProxyTraining(job, whole), ProxyTraining(job, third)
    monkeypatch.setattr(on_whole, "_accuracy", lambda split, most=None: ProxyTraining._accuracy(on_whole, split))
    accuracies = [[training.step().accuracy for _ in range(4)] for training in (found, on_whole, on_third)]
    assert accuracies[0] == [accuracies[2][0], accuracies[1][1], accuracies[2][2], accuracies[1][3]]  # rungs after two and four epochs
    assert all(a != b for a, b in zip(accuracies[1], accuracies[2], strict=True))


def test_a_tested_job_is_scored_on_the_test_images_at_its_end(digits: Task) -> None:
    test = load_task("digits", TaskRequest(8, 600, 200, held_out=True)).val
    job = ProxyJob("nasattn_resnet18", "none,none,none,none", SMALL, Recipe(), tested=True)
    plain = train(digits, job.placement)
    training = ProxyTraining(job, digits, test=test)
    reports = [training.step() for _ in range(3)]
    assert figures(reports) == figures(plain)
    assert [r.held_out for r in reports[:2]] == [None, None]
    held_out = ProxyTraining(job, Task("digits", digits.classes, digits.train, test))
    assert [held_out.step() for _ in range(3)][-1].accuracy == reports[-1].held_out
    assert reports[-1].held_out != reports[-1].accuracy
