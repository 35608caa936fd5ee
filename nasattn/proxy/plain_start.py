"""Where all placements start: the weights of one plain proxy, trained for some epochs before attentions are added to it.

A small network stays at chance on some tasks until it takes off, and when it does is luck. Started from a plain network that has
taken off, what placements come to tells them apart. It is to proxies what pretrained weights are to whole hosts: one network for
all placements and seeds, which is seed 0's and has seen seed 0's training images; validation and test images are in no training set.

Its learning rate does not fall: it is stopped where warmup-stable-decay would begin to, since what falls early ends early
(on pathfinder a plain network comes to .65 in 15 epochs with the fall, and to .86 in the first 15 of 30).

It is trained once: a process keeps it in memory, and where there is a folder of checkpoints others find it there, also after an
interruption and for another study.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasattn.hosts import get_host
from nasattn.proxy import steps
from nasattn.proxy.network import ProxyJob, build_proxy
from nasattn.tasks import Task, TaskRequest, load_task

if TYPE_CHECKING:
    from nasattn.proxy.checkpoint import Checkpoints
    from nasattn.proxy.trainer import ProxyTraining

SEED = 0  # of the plain network and of its images
KEPT = 4  # plain networks that stay in a worker's memory
Weights = dict[str, Tensor]
_kept: OrderedDict[str, Weights] = OrderedDict()  # by identity


def plain_job(job: ProxyJob) -> ProxyJob:
    """The training that *job* starts from, which is stopped after the recipe's `plain_epochs`."""
    fidelity = job.fidelity.changed(epochs=math.ceil(job.recipe.plain_epochs / (1 - steps.DECAY)), rungs=1)
    recipe, plain = job.recipe.changed(plain_epochs=0), str(get_host(job.host).plain())
    return replace(job, placement=plain, fidelity=fidelity, recipe=recipe, seed=SEED, held_out=False, tested=False)


def start_from_plain(
    model: nn.Module, job: ProxyJob, task: Task, begin: Callable[[ProxyJob, Task], ProxyTraining], checkpoints: Checkpoints | None = None
) -> float:
    """Set every parameter and statistic of *model* that the plain network has too; what only the placement has stays as it is.

    Args:
        model: The proxy of *job*.
        job: With ``plain_epochs`` in its recipe.
        task: The job's own; other seeds have other images than the plain network sees, which are loaded by the task's name.
        begin: Begins a training.
        checkpoints: Where other processes leave their plain networks and find this one's; None for nowhere.

    Returns:
        The seconds that the plain network was in training for now: none where there is one already.
    """
    identity, seconds = _identity(job, task), 0.0
    if identity not in _kept:
        found = _found(checkpoints, identity, job, task) if checkpoints else None
        _kept[identity], seconds = (found, 0.0) if found else _trained(job, task, begin)
        if checkpoints and not found:
            with suppress(Exception):  # a full disk: the training that starts from it leaves checkpoints there too, and says so
                checkpoints.save(identity, {"weights": _kept[identity]})
    _kept.move_to_end(identity)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    model.load_state_dict(_shared(_kept[identity], model.state_dict()), strict=False)
    return seconds


def _identity(job: ProxyJob, task: Task) -> str:
    """What makes two plain networks the same, as the name of a checkpoint."""
    what = (repr(plain_job(job)), job.recipe.plain_epochs, task.name, task.fingerprint, str(torch.__version__), steps.VERSION)
    return f"plain-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()}"


def _found(checkpoints: Checkpoints, identity: str, job: ProxyJob, task: Task) -> Weights | None:
    """The weights that another process has left, unless the host is built otherwise by now."""
    left = checkpoints.load(identity)
    if left is None:
        return None
    weights: Weights = left["weights"]
    own = build_proxy(plain_job(job), len(task.classes), task.in_chans).state_dict()
    return weights if weights.keys() == own.keys() == _shared(weights, own).keys() else None


def _trained(job: ProxyJob, task: Task, begin: Callable[[ProxyJob, Task], ProxyTraining]) -> tuple[Weights, float]:
    """The weights, and the seconds that it took."""
    training = begin(plain_job(job), task if job.seed == SEED else _of_plain_seed(task, job))
    training.advance(job.recipe.plain_epochs * training.steps_per_epoch)
    return {name: value.detach().cpu().clone() for name, value in training.model.state_dict().items()}, training.seconds


def _shared(weights: Weights, own: Mapping[str, Tensor]) -> Weights:
    """Those of *weights* that have their place among a network's *own*."""
    return {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}


def _of_plain_seed(task: Task, job: ProxyJob) -> Task:
    fidelity = job.fidelity
    return load_task(task.name, TaskRequest(fidelity.resolution, fidelity.samples, fidelity.val_samples, SEED))
