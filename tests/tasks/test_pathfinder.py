"""pathfinder: paths keep apart as promised, nothing simple gives the class away, and image i is image i."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from nasattn.errors import TaskError
from nasattn.tasks import Split, Task, TaskRequest, load_task
from nasattn.tasks.path_layouts import Layouts, PathShape, draw_layouts
from nasattn.tasks.pathfinder import CHUNK, DASHES, render


def load(
    name: str = "pathfinder", resolution: int = 54, samples: int = 20, val_samples: int = 10, seed: int = 0, held_out: bool = False
) -> Task:
    return load_task(name, TaskRequest(resolution, samples, val_samples, seed, held_out))


def images(split: object) -> np.ndarray:
    assert isinstance(split, Split)
    return split.images.numpy()


@pytest.fixture(scope="module", params=[DASHES, 9])
def shape(request: pytest.FixtureRequest) -> PathShape:
    return PathShape(request.param)


@pytest.fixture(scope="module")
def layouts(shape: PathShape) -> Layouts:
    return draw_layouts(shape, 2000, np.random.default_rng(0))


def finer(paths: np.ndarray) -> np.ndarray:
    """The polylines of ``(N, 2, P)`` with three more points between any two: ``(N, 2, 4 P - 3)``."""
    at = np.arange(0, paths.shape[-1] - 1 + 1e-9, 0.25)
    low = np.minimum(at.astype(int), paths.shape[-1] - 2)
    return paths[..., low] * (1 - (at - low)) + paths[..., low + 1] * (at - low)


def test_different_paths_keep_their_distance(shape: PathShape, layouts: Layouts) -> None:
    """Twice the gap between two dashes of one path, at all points of the continuous curves; so the nearest dash ahead is the path's own."""
    assert shape.clearance >= 1.9 * shape.gap
    for i in range(100):
        paths = [*layouts.main[i], *layouts.distractors[i][layouts.placed[i]]]
        curves = [finer(path[None])[0] for path in paths]
        for a in range(len(curves)):
            for b in range(a):
                apart = np.sqrt(((curves[a][:, :, None] - curves[b][:, None, :]) ** 2).sum(0).min())
                assert apart >= 0.98 * shape.clearance


def length(path: np.ndarray) -> int:
    """The points of ``(2, P)`` before it stays where it is."""
    return 1 + int((np.abs(np.diff(path)).max(0) > 0).sum())


def test_a_path_does_not_meet_itself(shape: PathShape, layouts: Layouts) -> None:
    """Points two periods apart along the path are no nearer to each other than other paths may be."""
    for path in layouts.main[:200].reshape(-1, 2, shape.points):
        path = path[:, : length(path)]
        apart = np.sqrt(((path[:, :, None] - path[:, None, :]) ** 2).sum(0))
        along = np.abs(np.arange(path.shape[1])[:, None] - np.arange(path.shape[1]))
        assert (apart[along >= 20] >= shape.clearance).all()


def test_both_main_paths_have_as_many_dashes_and_all_numbers_occur(shape: PathShape, layouts: Layouts) -> None:
    lengths = np.array([[length(path) for path in pair] for pair in layouts.main])
    assert (lengths[:, 0] == lengths[:, 1]).all()
    numbers, counts = np.unique((lengths[:, 0] + 3) / 10, return_counts=True)
    assert numbers.tolist() == list(range(2, shape.dashes + 1))
    shares = np.array([1, 1 / 2, 1 / 4, *[1 / 8] * (len(numbers) - 3)])
    assert np.abs(counts - len(lengths) * shares / shares.sum()).max() <= 1


def test_markers_are_at_the_ends_that_the_label_says(shape: PathShape, layouts: Layouts) -> None:
    ends = layouts.main[..., [0, -1]].swapaxes(2, 3)  # N, path, end, xy
    found = (np.abs(ends[:, :, :, None] - layouts.markers[:, None, None]).max(-1) < 1e-6).any(3)  # N, path, end
    assert (found.sum((1, 2)) == 2).all()
    assert (found.all(2).any(1) == (layouts.labels == 1)).all()
    inside = np.concatenate([layouts.main.reshape(-1), layouts.distractors[layouts.placed].reshape(-1)])
    assert inside.min() > 0.05 and inside.max() < 0.95
    assert layouts.placed.sum(1).mean() > 0.7


def score(features: np.ndarray, labels: np.ndarray, kind: str) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if kind == "logistic"
        else HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8)
    )
    return float(cross_val_score(model, features, labels, cv=3).mean())


@pytest.mark.parametrize("kind", ["logistic", "trees"])
@pytest.mark.parametrize("what", ["distance", "light", "markers", "borders"])
def test_nothing_simple_gives_the_class_away(shape: PathShape, layouts: Layouts, what: str, kind: str) -> None:
    if what == "distance":
        features = np.linalg.norm(layouts.markers[:, 0] - layouts.markers[:, 1], axis=1)[:, None]
    elif what == "light":  # sum of the light, pixels that are lit at all, pixels that are fully lit
        pixels = render(shape, layouts, shape.smallest_resolution).reshape(len(layouts.labels), -1)
        features = np.stack([pixels.sum(1, dtype=np.int64), (pixels > 0).sum(1), (pixels == 255).sum(1)], 1)
    elif what == "markers":
        features = layouts.markers.reshape(-1, 4)
    else:
        features = np.minimum(layouts.markers, 1 - layouts.markers).min(2)
    assert 0.44 < layouts.labels.mean() < 0.56
    assert score(features, layouts.labels, kind) < 0.56


def test_dashes_and_gaps_can_be_seen(shape: PathShape) -> None:
    """Along a main path the image is bright on the dashes and dark between them, at the least resolution too."""
    some = draw_layouts(shape, 50, np.random.default_rng(1))
    resolution = shape.smallest_resolution
    pictures = render(shape, some, resolution)
    for i in range(50):
        for path in some.main[i]:
            if length(path) < 27:  # of two dashes the discs hide most
                continue
            x, y = (path[:, 5 : length(path) - 5] * resolution).astype(int)
            along = pictures[i][y, x]
            phase = np.arange(5, 5 + len(along)) % 10
            assert along[(phase >= 2) & (phase <= 4)].mean() > 150  # the middle of a dash
            assert along[(phase == 8)].mean() < 90  # the middle of a gap


@pytest.mark.parametrize(
    ("name", "resolution"), [("pathfinder", 54), ("pathfinder/4", 32), ("pathfinder/3", 32), ("pathfinder/9", 72), ("pathfinder/14", 112)]
)
def test_difficulties(name: str, resolution: int) -> None:
    task = load(name, resolution)
    assert (task.name, task.classes, task.in_chans, len(task.train), len(task.val)) == (name, ("apart", "connected"), 3, 20, 10)
    pictures = images(task.train)
    assert pictures.shape == (20, 3, resolution, resolution) and pictures.dtype == np.uint8
    assert (pictures[:, 0] == pictures[:, 1]).all() and (pictures[:, 0] == pictures[:, 2]).all()
    assert pictures.max() == 255 and (pictures == 0).mean() > 0.5


def test_studies_of_other_layouts_do_not_go_on_with_these() -> None:
    """In the first version all numbers of dashes were equally frequent."""
    assert load().fingerprint == {"generator": 2}


def test_the_default_is_a_difficulty_like_any_other() -> None:
    assert (images(load().train) == images(load(f"pathfinder/{DASHES}").train)).all()


def test_image_i_is_the_same_whatever_the_number_of_images() -> None:
    few, many = load(samples=7, val_samples=3), load(samples=CHUNK + 20, val_samples=CHUNK)
    for a, b in ((few.train, many.train), (few.val, many.val)):
        assert (images(a) == images(b)[: len(a)]).all()
        assert torch.equal(a.labels, b.labels[: len(a)])


def test_every_split_and_seed_has_images_of_its_own() -> None:
    one, again, held_out, other = (
        load(val_samples=20),
        load(val_samples=20),
        load(val_samples=20, held_out=True),
        load(val_samples=20, seed=1),
    )
    assert (images(one.train) == images(again.train)).all() and (images(one.val) == images(again.val)).all()
    assert (images(one.train) == images(held_out.train)).all() and torch.equal(one.train.labels, held_out.train.labels)
    sets = [images(split) for split in (one.train, one.val, held_out.val, other.train, other.val)]
    assert len({picture.tobytes() for pictures in sets for picture in pictures}) == 100


def test_a_millisecond_an_image() -> None:
    """Half as much is usual; a busy machine may take more."""
    load()
    started = time.process_time()
    load_task("pathfinder", TaskRequest(54, samples=2000, val_samples=1000))
    assert time.process_time() - started < 4


@pytest.mark.parametrize("parameter", ["", "x", "2", "17", "-5", "5.0", "5/3", "05", "²", "99999999999999999999"])
def test_a_difficulty_that_is_not_allowed(parameter: str) -> None:
    with pytest.raises(TaskError) as caught:
        load(f"pathfinder/{parameter}")
    assert str(caught.value) == f"pathfinder/DASHES needs an integer from 3 to 16, got {parameter!r}; write pathfinder/{DASHES}"


def test_too_small_to_see() -> None:
    with pytest.raises(
        TaskError, match="pathfinder with 14 dashes needs a resolution of at least 1.. pixels, got 54; raise the resolution or"
    ):
        load("pathfinder/14")
