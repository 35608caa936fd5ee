"""What a proxy of a task is when nobody says otherwise: minutes of a CPU, or hours of a GPU."""

from __future__ import annotations

from nasattn.proxy.fidelity import Fidelity, Recipe
from nasattn.proxy.precision import usual_precision
from nasattn.tasks.pathfinder import smallest_resolution

_PHOTOGRAPHS = Recipe(batch_size=64, lr=0.004, weight_decay=0.02, label_smoothing=0.1, flip=True)


def default_settings(task: str, device: str, pretrained: bool = False) -> tuple[Fidelity, Recipe]:
    """The fidelity and the recipe of proxies of *task* on *device*.

    On a CPU a training takes some seconds to a minute. On CUDA proxies are wider and deeper and train longer; resolution goes
    last, since what attention is good for is spatial. With *pretrained* the proxy is the whole host.

    Args:
        task: As a user names it.
        device: ``cpu`` or ``cuda``.
        pretrained: The proxy starts from pretrained weights.

    Raises:
        TaskError: pathfinder's number of dashes is not allowed.
    """
    kind, _, parameter = task.partition("/")
    fidelity, recipe = _with_adamw(kind, task)
    recipe = recipe.changed(precision=usual_precision(device))
    if kind == "pathfinder":
        fidelity = fidelity.changed(resolution=max(fidelity.resolution, smallest_resolution(parameter or None)))
    if pretrained:
        return fidelity.changed(width=1.0, resolution=max(fidelity.resolution, 96), epochs=1), recipe.changed(lr=0.002)
    if device == "cuda":
        more = {} if task in ("cued_digits", "digits") else {"samples": 50_000, "val_samples": 10_000}
        return fidelity.changed(width=0.25, blocks=2, epochs=4 * fidelity.epochs, **more), recipe
    # by a few epochs of AdamW it is up to the seed whether a small network learns a relation; a whole host pays too much for Muon's
    # products, and on CUDA they are not measured
    if kind not in ("cued_digits", "pathfinder"):
        return fidelity, recipe
    recipe = recipe.changed(optimizer="muon", schedule="warmup-stable-decay", batch_size=64, lr=0.01)
    if kind == "pathfinder":
        # fewer images, seen more often, are learnt from sooner; when a network takes off is luck, so all start from one that has
        # (16 placements by 8 epochs have a tau of .57 with 40 epochs of two other seeds, of .71 with 20 of one, by 4 epochs of .19;
        # in the middle of the 8 it is .26, so no rung)
        return fidelity.changed(samples=4_000, val_samples=4_000, epochs=8, rungs=1), recipe.changed(plain_epochs=15)
    # after a quarter of the steps all are alike: of 640 trainings the tau with the end is -.08, after half .35 (between two seeds .51)
    return fidelity.changed(rungs=2), recipe


def _with_adamw(kind: str, task: str) -> tuple[Fidelity, Recipe]:
    """On a CPU, before the optimiser is chosen."""
    match kind:
        case "cued_digits":
            return Fidelity(), Recipe()
        case "digits":
            return Fidelity(stem_stride=1, resolution=16, epochs=6), Recipe()
        case "pathfinder":
            return Fidelity(resolution=54, samples=16_000, epochs=3), Recipe(dihedral=True)
    if task.startswith(("torch/cifar", "hfds/cifar")):
        return Fidelity(stem_stride=1, resolution=32, samples=10_000, epochs=3), _PHOTOGRAPHS.changed(crop=4)
    return Fidelity(resolution=64, samples=8_000, epochs=3), _PHOTOGRAPHS.changed(crop=8)
