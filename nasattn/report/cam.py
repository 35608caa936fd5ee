"""Where the plain host and members of its front look: Grad-CAM (arXiv 1610.02391) on test images that no search saw.

A search keeps no weights, but a training is a function of its job, so the proxies are trained again. The images are the first test image
of each class, chosen by no result.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from nasattn.errors import StudyError, UsageError
from nasattn.report.choices import NONE
from nasattn.report.page.html import Html, element, paragraph, table
from nasattn.report.page.html import section as page_section
from nasattn.report.study_data import StudyData

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from nasattn.proxy import ProxyTraining
    from nasattn.search.study import StudyConfig
    from nasattn.tasks import Task

    Images = npt.NDArray[np.uint8]

MEMBERS = 3
IMAGES = 6
SIDE = 112  # pixels of a picture
SEARCHED = 2000  # test images in which the first of each class is looked for


@dataclass(frozen=True)
class Seen:
    """One placement on the sample images.

    Attributes:
        placement: What was trained.
        accuracy: Of this training on the validation images, 0..1; NaN where it diverged.
        recorded: That of the study's trial; None where it has none.
        predicted: The class it names for each image.
        maps: By stage, from 1, an image with its heat map for each, as PNG or JPEG data.
    """

    placement: str
    accuracy: float
    recorded: float | None
    predicted: tuple[str, ...]
    maps: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Looks:
    """The sample images, and what each placement makes of them."""

    images: tuple[str, ...]
    labels: tuple[str, ...]
    seen: tuple[Seen, ...]


def check_installed() -> None:
    """Raises UsageError where Grad-CAM is not there."""
    if find_spec("pytorch_grad_cam") is None:
        raise UsageError("--cam needs the package grad-cam: pip install 'nasattn[cam]'; or leave out --cam")


def look(data: StudyData, notify: Callable[[str], None] = lambda text: None) -> Looks:
    """Train the plain host and up to three members of the front again, and see where they look.

    Args:
        data: The study.
        notify: Called with a line before each training.

    Raises:
        UsageError: Grad-CAM is not installed.
        StudyError: The study has no front.
    """
    check_installed()
    from nasattn.hosts import get_host
    from nasattn.search.study import StudyConfig
    from nasattn.tasks import load_task

    config = StudyConfig.from_stored(data.record)
    plain = str(get_host(config.space.host).plain())
    chosen = [plain, *choose(data)]
    if len(chosen) == 1:
        raise StudyError(f"study {data.record.name!r} has no member of a front beside the plain host: there is nothing to look through yet")
    request = config.task_request()
    task = load_task(config.task, request)
    test = load_task(config.task, replace(request, samples=1, val_samples=SEARCHED, held_out=True))
    images, labels = _samples(test)
    seen = []
    for number, placement in enumerate(chosen, start=1):
        notify(f"training {number} of {len(chosen)} for Grad-CAM: {placement}")
        training, accuracy = _train(config, placement, task)
        recorded = next((t.accuracy for t in data.complete if t.placement == placement and t.seed == config.seed), None)
        seen.append(_seen(config, training, placement, accuracy, recorded, images, task.classes))
    return Looks(tuple(_picture(_shown(i)) for i in images), tuple(task.classes[label] for label in labels.tolist()), tuple(seen))


def choose(data: StudyData) -> list[str]:
    """Up to three members of the front, the most accurate first, then others in order of how probable they are."""
    members = [m for m in data.front if not m.is_plain]
    if not members:
        return []
    best = max(members, key=lambda m: m.accuracy)
    others = sorted((m for m in members if m is not best), key=lambda m: -m.p_member)
    return [m.placement for m in (best, *others)][:MEMBERS]


def _samples(test: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test image of each of some classes, spread over them: uint8 ``(N, C, R, R)``, and labels ``(N,)``."""
    import torch

    images, labels = next(test.val.batches(torch.arange(min(SEARCHED, len(test.val))), SEARCHED))
    classes = labels.unique()
    wanted = classes[torch.linspace(0, len(classes) - 1, min(IMAGES, len(classes))).round().long()]
    first = torch.stack([(labels == c).nonzero()[0, 0] for c in wanted])
    return images[first], labels[first]


def _train(config: StudyConfig, placement: str, task: Task) -> tuple[ProxyTraining, float]:
    from nasattn.latency import Deployment
    from nasattn.proxy import Checkpoints, ProxyTraining

    accuracy = math.nan
    with Deployment(device=config.device).applied():  # one thread, as a worker has: other numbers of threads sum in another order
        training = ProxyTraining(config.job(placement), task, checkpoints=Checkpoints())
        while not training.done:
            accuracy = training.step().accuracy
    return training, accuracy


def _seen(
    config: StudyConfig,
    training: ProxyTraining,
    placement: str,
    accuracy: float,
    recorded: float | None,
    images: torch.Tensor,
    classes: Sequence[str],
) -> Seen:
    import torch

    from nasattn.hosts import get_host
    from nasattn.proxy.steps import prepared

    model = training.model.eval()
    x = prepared(images.to(training.device), training.scale).float()
    with torch.no_grad():
        predicted = model(x).argmax(1).tolist()
    stages = get_host(config.space.host).stage_blocks(model)
    tokens = placement.split(",")
    wanted = sorted({len(stages), *(n for n, t in enumerate(tokens, start=1) if t != NONE)})
    maps = {n: heat(model, stages[n - 1][-1], x, predicted) for n in wanted}
    return Seen(
        placement,
        accuracy,
        recorded,
        tuple(classes[p] for p in predicted),
        {n: tuple(_picture(_overlaid(i, h)) for i, h in zip(images, found, strict=True)) for n, found in maps.items() if found is not None},
    )


def heat(model: torch.nn.Module, block: torch.nn.Module, x: torch.Tensor, classes: Sequence[int]) -> Any:
    """How much each place of *block*'s output speaks for the class named: ``(N, R, R)``, 0..1; None where its output is no map.

    Args:
        model: In eval mode.
        block: Whose output is looked at.
        x: Prepared images, ``(N, C, R, R)``.
        classes: For each image the class to explain.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    shapes: list[tuple[int, ...]] = []
    handle = block.register_forward_hook(lambda module, given, out: shapes.append(tuple(getattr(out, "shape", ()))))
    model(x[:1])
    handle.remove()
    if not shapes or len(shapes[0]) != 4:
        return None
    last = shapes[0][1] == shapes[0][2] != shapes[0][3]  # B, H, W, C
    with GradCAM(model=model, target_layers=[block], reshape_transform=(lambda t: t.permute(0, 3, 1, 2)) if last else None) as cam:
        return cam(input_tensor=x, targets=[ClassifierOutputTarget(c) for c in classes])


def _shown(image: torch.Tensor) -> Images:
    """An image ``(C, R, R)`` of any number of channels as ``(SIDE, SIDE, 3)``."""
    from PIL import Image

    channels = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    resized = Image.fromarray(channels.permute(1, 2, 0).cpu().numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return np.asarray(resized)


def _overlaid(image: torch.Tensor, heat: Any) -> Images:
    from matplotlib import colormaps
    from PIL import Image

    warm = Image.fromarray(np.uint8(255 * np.clip(np.nan_to_num(heat), 0, 1))).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    strength = np.asarray(warm)[..., None] / 255
    colours = 255 * colormaps["inferno"](np.asarray(warm))[..., :3]
    grey = _shown(image).mean(-1, keepdims=True)
    return np.asarray(np.clip(0.45 * grey * (1 - 0.5 * strength) + 0.75 * colours, 0, 255), dtype=np.uint8)


def _picture(pixels: Images) -> str:
    """As a data URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def section(looks: Looks) -> Html:
    """The part of the page."""
    rows = [
        [
            element("th", "image", scope="row"),
            *(element("td", _image(i, f"an image of {n}")) for i, n in zip(looks.images, looks.labels, strict=True)),
        ]
    ]
    for seen in looks.seen:
        for stage, maps in seen.maps.items():
            token = seen.placement.split(",")[stage - 1]
            head = element(
                "th",
                element("code", seen.placement),
                Html("<br>"),
                f"end of stage {stage} ({token})",
                Html("<br>"),
                _accuracies(seen),
                scope="row",
            )
            cells = zip(maps, seen.predicted, looks.labels, strict=True)
            rows.append([head, *(element("td", _image(m, f"heat map, names {p}"), _named(p, right)) for m, p, right in cells)])
        if not seen.maps:
            rows.append(
                [
                    element("th", element("code", seen.placement), scope="row"),
                    element("td", "its stages put out no maps", colspan=len(looks.images)),
                ]
            )
    lead = (
        "Grad-CAM: how much each place speaks for the class that the network names, brighter is more, at the end of the last stage and of each stage with an attention. "
        "The plain host first. The proxies were trained again for this, with the seed of the study; the first test image of each of some classes, chosen by no result."
    )
    return page_section("cam", "Where it looks", paragraph(lead), table(["", *looks.labels], rows, class_="cams"))


def _image(data: str, alt: str) -> Html:
    return Html(str(element("img", src=data, alt=alt, width=SIDE, height=SIDE)).replace("</img>", ""))


def _named(predicted: str, right: str) -> Html:
    return element("span", f"names {predicted}", class_="right" if predicted == right else "wrong")


def _accuracies(seen: Seen) -> str:
    now = f"{100 * seen.accuracy:.1f} %" if math.isfinite(seen.accuracy) else "diverged"
    if seen.recorded is None or abs(seen.recorded - seen.accuracy) < 5e-4:
        return now
    return f"{now}; {100 * seen.recorded:.1f} % when the study trained it"
