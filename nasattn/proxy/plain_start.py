"""Where all placements start: the weights of one plain proxy, trained for some epochs before attentions are added to it.

A small network stays at chance on some tasks until it takes off, and when it does is luck. Started from a plain network that has
taken off, what placements come to tells them apart. It is to proxies what pretrained weights are to whole hosts: one network for
all placements and seeds, which is seed 0's and has seen seed 0's training images; validation and test images are in no training set.

Its learning rate does not fall: it is stopped where warmup-stable-decay would begin to, since what falls early ends early
(on pathfinder a plain network comes to .65 in 15 epochs with the fall, and to .86 in the first 15 of 30).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nasattn.hosts import get_host
from nasattn.proxy.network import ProxyJob
from nasattn.proxy.steps import DECAY
from nasattn.tasks import Task, TaskRequest, load_task

if TYPE_CHECKING:
    from nasattn.proxy.trainer import ProxyTraining

SEED = 0  # of the plain network and of its images
KEPT = 4  # plain networks that stay in a worker's memory
_kept: OrderedDict[tuple[ProxyJob, str], dict[str, Tensor]] = OrderedDict()


def plain_job(job: ProxyJob) -> ProxyJob:
    """The training that *job* starts from, which is stopped after the recipe's `plain_epochs`."""
    fidelity = job.fidelity.changed(epochs=math.ceil(job.recipe.plain_epochs / (1 - DECAY)), rungs=1)
    recipe, plain = job.recipe.changed(plain_epochs=0), str(get_host(job.host).plain())
    return replace(job, placement=plain, fidelity=fidelity, recipe=recipe, seed=SEED, held_out=False, tested=False)


def start_from_plain(model: nn.Module, job: ProxyJob, task: Task, begin: Callable[[ProxyJob, Task], ProxyTraining]) -> float:
    """Set every parameter and statistic of *model* that the plain network has too; what only the placement has stays as it is.

    Args:
        model: The proxy of *job*.
        job: With ``plain_epochs`` in its recipe.
        task: The job's own; other seeds have other images than the plain network sees, which are loaded by the task's name.
        begin: Begins a training.

    Returns:
        The seconds that the plain network was in training for now: none where this process has it already.
    """
    key, seconds = (plain_job(job), task.name), 0.0
    if key not in _kept:
        training = begin(key[0], task if job.seed == SEED else _of_plain_seed(task, job))
        training.advance(job.recipe.plain_epochs * training.steps_per_epoch)
        _kept[key] = {name: value.detach().cpu().clone() for name, value in training.model.state_dict().items()}
        seconds = training.seconds
    _kept.move_to_end(key)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    own = model.state_dict()
    model.load_state_dict({n: w for n, w in _kept[key].items() if n in own and own[n].shape == w.shape}, strict=False)
    return seconds


def _of_plain_seed(task: Task, job: ProxyJob) -> Task:
    fidelity = job.fidelity
    return load_task(task.name, TaskRequest(fidelity.resolution, fidelity.samples, fidelity.val_samples, SEED))
