"""How tasks are named and registered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nasattn.errors import NasattnError, TaskError
from nasattn.tasks import Split, Task, TaskRequest, list_tasks, load_task, register_task


def test_the_embedded_tasks() -> None:
    assert list_tasks()[:3] == ["cued_digits", "digits", "pathfinder"]
    for name in ("cued_digits", "digits", "pathfinder"):
        assert load_task(name, TaskRequest(54, samples=3, val_samples=2)).name == name
    assert load_task("digits").train.images.shape[-1] == TaskRequest().resolution


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cued_digit", "unknown task 'cued_digit': Did you mean 'cued_digits'"),
        ("digit", "Did you mean 'digits'"),
        ("no/such/folder", "unknown task 'no/such/folder': allowed: cued_digits, digits, pathfinder"),
        ("", "unknown task ''"),
    ],
)
def test_an_unknown_name(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError) as caught:
        load_task(name)
    assert message in str(caught.value)
    assert str(caught.value).endswith("torch/NAME, hfds/NAME, or a folder of class folders")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NasattnError)


def test_a_task_of_ones_own() -> None:
    @register_task("stripes")
    def stripes(request: TaskRequest) -> Task:
        """Grey images of one channel."""
        images = torch.arange(request.resolution, dtype=torch.uint8).repeat(4, 1, request.resolution, 1)
        split = Split(images, torch.tensor([0, 1, 0, 1]))
        return Task("stripes", ("a", "b"), split, split)

    task = load_task("stripes", TaskRequest(16))
    assert "stripes" in list_tasks()
    assert (task.in_chans, len(task.val)) == (1, 4)
    with pytest.raises(TaskError, match="task 'stripes' is registered already: choose another name"):
        register_task("stripes")(stripes)


def test_a_task_with_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @register_task("grey", takes_parameter=True)
    def grey(request: TaskRequest, parameter: str | None = None) -> Task:
        split = Split(torch.full((2, 3, 8, 8), int(parameter or 7), dtype=torch.uint8), torch.tensor([0, 1]))
        return Task("grey", ("a", "b"), split, split)

    assert load_task("grey").train.sample(1)[0, 0, 0, 0] == 7
    assert load_task("grey/20").train.sample(1)[0, 0, 0, 0] == 20
    with pytest.raises(TaskError, match="task digits takes no parameter, got 'digits/9'; write digits"):
        load_task("digits/9")
    with pytest.raises(TaskError, match="a name has no slash"):
        register_task("grey/scale")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits/photos").mkdir(parents=True)
    with pytest.raises(TaskError, match="task folder digits/photos has no images"):  # a folder may be called as a task
        load_task("digits/photos")


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(3, 3, 8, 8, dtype=torch.uint8)]
)
def test_a_split_is_checked(images: torch.Tensor) -> None:
    with pytest.raises(TaskError, match=r"a split needs uint8 images \(N, C, R, R\) and N labels, got "):
        Split(images, torch.zeros(2, dtype=torch.int64))
