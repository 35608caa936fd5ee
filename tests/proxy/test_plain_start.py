"""Placements that start from one trained plain network: all from the same, once a process, to the same figures whoever trained it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasattn.errors import UsageError
from nasattn.proxy import (
    CheckpointedTraining,
    Checkpoints,
    Fidelity,
    ProxyJob,
    ProxyTraining,
    Recipe,
    build_proxy,
    plain_start,
    trainer,
)
from nasattn.search.study import make_config
from nasattn.search.worker import start_proxy
from nasattn.tasks import Task, TaskRequest, load_task

FIDELITY = Fidelity(blocks=1, stem_stride=1, resolution=8, samples=600, val_samples=300, epochs=2, rungs=1)
RECIPE = Recipe(plain_epochs=3)
PLACEMENT = "none,sge_g32,ela_t,sb"


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_start, "_kept", plain_start._kept.__class__())


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(8, 600, 300))


def job(placement: str = PLACEMENT, seed: int = 0, recipe: Recipe = RECIPE) -> ProxyJob:
    return ProxyJob("nasattn_resnet18", placement, FIDELITY, recipe, seed)


def figures(training: ProxyTraining | CheckpointedTraining) -> list[tuple[float, float, float]]:
    reports = []
    while not training.done:
        reports.append(training.step())
    return [(r.epoch, r.loss, r.accuracy) for r in reports]


def plain_network(task: Task) -> dict[str, torch.Tensor]:
    training = ProxyTraining(plain_start.plain_job(job()), task)
    assert [training.step().epoch for _ in range(3)] == [1, 2, 3]
    return training.model.state_dict()


def test_the_plain_network_is_a_proxy_like_any_other() -> None:
    start = plain_start.plain_job(job(seed=3))
    assert start == ProxyJob(
        "nasattn_resnet18", "none,none,none,none", FIDELITY.changed(epochs=5), Recipe(), seed=0
    )  # it is stopped before the learning rate falls


@pytest.mark.parametrize(
    ("host", "placement"),
    [
        ("nasattn_resnet18", PLACEMENT),
        ("nasattn_convnext_tiny", "none,sge_g32,ela_t,none"),
        ("van_b0", "lka_k7_d2,none,sge_g8,ela_b"),  # some of which stand where the plain network has its own
    ],
)
def test_all_that_the_plain_network_has_is_taken_over(host: str, placement: str) -> None:
    fidelity = FIDELITY.changed(resolution=32)
    wanted = ProxyJob(host, placement, fidelity, RECIPE, seed=1)
    plain = build_proxy(plain_start.plain_job(wanted), 10)
    with torch.no_grad():
        for value in plain.state_dict().values():
            value.add_(1)

    class Trained:
        seconds, model, steps_per_epoch = 7.0, plain, 10

        def advance(self, mark: int) -> None:
            assert mark == 30

    model = build_proxy(wanted, 10)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    assert plain_start.start_from_plain(model, wanted, load_task("digits", TaskRequest(8, 20, 20)), lambda job, task: Trained()) == 7.0  # type: ignore[arg-type, return-value]
    after = model.state_dict()
    common = {n for n, v in plain.state_dict().items() if n in after and after[n].shape == v.shape}
    assert len(common) > 0.8 * len(plain.state_dict()) and common < set(after)
    assert all(torch.equal(after[n], plain.state_dict()[n]) for n in common)
    assert all(torch.equal(after[n], before[n]) for n in set(after) - common)


def test_a_placement_goes_on_from_what_the_plain_network_has_learned(digits: Task) -> None:
    first = ProxyTraining(job(recipe=RECIPE), digits).step()
    assert first.accuracy > ProxyTraining(job(recipe=Recipe()), digits).step().accuracy + 0.05
    assert first.epoch == 1


def test_the_plain_network_is_trained_once_for_all_placements_and_seeds(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    advance = ProxyTraining.advance
    monkeypatch.setattr(ProxyTraining, "advance", lambda self, mark: begun.append(self.job.placement) or advance(self, mark))  # type: ignore[func-returns-value]
    other = "sb,none,none,none"
    for placement, seed in ((PLACEMENT, 0), (other, 1)):
        ProxyTraining(job(placement, seed), digits).step()
    assert begun == ["none,none,none,none", PLACEMENT, other]


def test_who_needs_the_plain_network_first_spends_its_time(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "start_from_plain", lambda *_: 10_000.0)
    assert ProxyTraining(job(), digits).step().seconds > 10_000 > ProxyTraining(job(recipe=Recipe()), digits).step().seconds


def test_whoever_trained_the_plain_network_comes_to_the_same_figures(digits: Task) -> None:
    first = figures(ProxyTraining(job(), digits))
    assert figures(ProxyTraining(job(), digits)) == first  # kept
    plain_start._kept.clear()
    torch.rand(3)
    assert figures(ProxyTraining(job(), digits)) == first  # trained again
    assert figures(ProxyTraining(job(seed=1), digits)) != first


def test_what_was_killed_needs_no_plain_network_to_go_on(digits: Task, tmp_path: Path) -> None:
    whole = figures(ProxyTraining(job(), digits))
    CheckpointedTraining(ProxyTraining(job(), digits), "it", Checkpoints(tmp_path)).step()
    plain_start._kept.clear()
    assert figures(CheckpointedTraining(ProxyTraining(job(), digits), "it", Checkpoints(tmp_path))) == whole[1:]
    assert not plain_start._kept


class TestLeftForOthers:
    """Plain networks in a folder of checkpoints."""

    @pytest.fixture
    def left(self, digits: Task, tmp_path: Path) -> Path:
        """The file that a process has left, which has ended since."""
        ProxyTraining(job(), digits, checkpoints=Checkpoints(tmp_path)).step()
        plain_start._kept.clear()
        (file,) = tmp_path.iterdir()
        return file

    @pytest.fixture
    def trained(self, monkeypatch: pytest.MonkeyPatch) -> list[ProxyJob]:
        """The plain networks that are trained from now on."""
        jobs: list[ProxyJob] = []
        train = plain_start._trained
        monkeypatch.setattr(plain_start, "_trained", lambda job, *others: jobs.append(job) or train(job, *others))  # type: ignore[func-returns-value]
        return jobs

    def test_another_process_takes_it_to_the_same_figures(self, digits: Task, left: Path, trained: list[ProxyJob]) -> None:
        found = figures(ProxyTraining(job(), digits, checkpoints=Checkpoints(left.parent)))
        assert not trained
        plain_start._kept.clear()
        assert figures(ProxyTraining(job(), digits)) == found
        assert trained

    def test_other_seeds_and_placements_take_it_and_no_time(self, digits: Task, left: Path, trained: list[ProxyJob]) -> None:
        model, wanted = build_proxy(job("sb,none,none,none", 4), 10), job("sb,none,none,none", 4)
        task = load_task("digits", TaskRequest(8, 600, 300, seed=4))
        assert plain_start.start_from_plain(model, wanted, task, ProxyTraining, Checkpoints(left.parent)) == 0
        assert not trained

    @pytest.mark.parametrize(
        "recipe",
        [Recipe(plain_epochs=4), Recipe(plain_epochs=3, lr=0.02), Recipe(plain_epochs=3, precision="bfloat16")],
        ids=["longer", "by another recipe", "in another precision"],
    )
    def test_it_is_of_its_own_recipe(self, digits: Task, left: Path, trained: list[ProxyJob], recipe: Recipe) -> None:
        ProxyTraining(job(recipe=recipe), digits, checkpoints=Checkpoints(left.parent)).step()
        assert len(trained) == 1 and len(list(left.parent.iterdir())) == 2

    def test_other_images_under_the_same_name(self, digits: Task, left: Path, trained: list[ProxyJob]) -> None:
        ProxyTraining(job(), replace(digits, version=2), checkpoints=Checkpoints(left.parent)).step()
        assert len(trained) == 1

    @pytest.mark.parametrize("harm", ["broken", "of a host built otherwise", "of other shapes"])
    def test_what_does_not_fit_is_trained_again(self, digits: Task, left: Path, trained: list[ProxyJob], harm: str) -> None:
        content = torch.load(left)
        weights, name = content["weights"], "fc.weight"
        if harm == "broken":
            left.write_bytes(left.read_bytes()[:1000])
        else:
            torch.save(
                {
                    "weights": {n: w for n, w in weights.items() if n != name}
                    | ({name: torch.zeros(1)} if harm == "of other shapes" else {})
                },
                left,
            )
        ProxyTraining(job(), digits, checkpoints=Checkpoints(left.parent)).step()
        assert len(trained) == 1
        assert torch.load(left)["weights"].keys() == weights.keys()  # mended

    def test_where_nothing_can_be_kept_it_serves_all_the_same(self, digits: Task, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        nowhere = Checkpoints(tmp_path / "file" / "folder")
        training = CheckpointedTraining(ProxyTraining(job(), digits, checkpoints=nowhere), "it", nowhere)
        assert "no checkpoint could be kept" in str(training.step().notes)


def test_a_worker_trains_it_on_the_images_of_its_own_seed(digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_CHECKPOINTS", str(tmp_path))
    start_proxy(job(seed=5), "digits", "it").step()
    (kept,) = plain_start._kept.values()
    assert all(torch.equal(kept[n], w) for n, w in plain_network(digits).items())


def test_wrong_settings() -> None:
    for value in (-1, 1.5, True, "3"):
        with pytest.raises(UsageError, match="plain_epochs must be a number of epochs, 0 or more, got"):
            Recipe(plain_epochs=value)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="plain_epochs must be 0 with pretrained weights, got 2"):
        make_config({"space": "resnet18_stages", "recipe": {"pretrained": "a1_in1k", "plain_epochs": 2}})
    assert "plain_epochs" not in Recipe().identity() and Recipe(plain_epochs=2).identity()["plain_epochs"] == 2
