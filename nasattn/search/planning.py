"""What a search would do, checked before anything is trained or written."""

from __future__ import annotations

import os
from typing import Any

from nasattn.attention import Placement
from nasattn.errors import UsageError
from nasattn.hosts import get_host
from nasattn.latency import DeviceKey
from nasattn.search.cluster import places
from nasattn.search.study import StudyConfig
from nasattn.store import Store
from nasattn.tasks import Task, load_task


def check_buildable(config: StudyConfig) -> None:
    """Build every choice of the space once on the meta device, on the host and on its proxy.

    Raises:
        UsageError: One cannot be built, with the space, the placement and the cause.
    """
    host = get_host(config.space.host)
    fidelity = config.fidelity
    for row in range(max(len(t) for t in config.space.tokens)):
        placement = Placement(tuple(t[min(row, len(t) - 1)] for t in config.space.tokens))
        try:
            host.build(placement, device="meta")
            if not config.recipe.pretrained:
                host.build_proxy(
                    placement,
                    width=fidelity.width,
                    blocks=fidelity.blocks,
                    stem_stride=fidelity.stem_stride,
                    num_classes=10,
                    device="meta",
                )
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(
                f"{config.space.where('stages')}: {placement} cannot be built on {host.name} or its proxy of width {fidelity.width:g}: {error}"
            ) from None


def alike_in_proxy(config: StudyConfig) -> str:
    """A line that says which choices the proxies of this fidelity cannot tell apart; empty where there are none."""
    host, fidelity = get_host(config.space.host), config.fidelity
    if config.recipe.pretrained:  # the proxies are the host itself
        return ""
    slots = host.proxy_stages(fidelity.width, fidelity.blocks)
    lost = []
    for number, (tokens, offered, blocks) in enumerate(zip(config.space.tokens, slots, host.blocks, strict=True), start=1):
        different = len({offered.scaled(token, fidelity.width, blocks) for token in tokens})
        if different < len(tokens):
            lost.append(f"stage {number} has {len(tokens)} choices and {different} different proxies")
    if not lost:
        return ""
    return f"note: {'; '.join(lost)} with fidelity blocks {fidelity.blocks}, width {fidelity.width:g}: raise them to tell all choices apart"


def load_study_task(config: StudyConfig) -> Task:
    """The task as the workers will load it. Raises TaskError."""
    return load_task(config.task, config.task_request())


def worker_resources(config: StudyConfig) -> dict[str, float]:
    """What a worker takes of a node: one CPU, and its share of a GPU. Raises UsageError for a share that Ray cannot give."""
    if config.device != "cuda":
        return {"CPU": 1.0}
    share = float(config.gpus_per_trial)
    if share < 1e-4 or (share > 1 and not share.is_integer()):
        raise UsageError(f"gpus_per_trial must be a share of a GPU from 0.0001 to 1, or a whole number of GPUs, got {share:g}")
    return {"CPU": 1.0, "GPU": share}


def left_out(task: Task) -> str:
    """A line about images that are broken; empty where none is."""
    names = ", ".join(task.skipped[:5]) + (", ..." if len(task.skipped) > 5 else "")
    subject = f"{len(task.skipped)} images" if len(task.skipped) > 1 else "1 image"
    return f"{subject} could not be decoded and {'are' if len(task.skipped) > 1 else 'is'} left out: {names}" if task.skipped else ""


def default_workers(config: StudyConfig) -> int:
    """How many workers this machine has room for: one per CPU, or as many as its GPUs take."""
    if config.device == "cuda":
        import torch

        gpus = float(torch.cuda.device_count())
        return max(1, places({"GPU": gpus}, {"GPU": worker_resources(config)["GPU"]}))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(config: StudyConfig, address: str | None = None) -> dict[str, Any]:
    """What a search would do: every choice is built once and the task loaded, nothing is trained or written. For `--dry-run`.

    A cluster at *address* is not looked at.
    """
    from nasattn.search.appraisal import Appraiser

    check_buildable(config)
    Appraiser(Store("sqlite://"), config.space.host, config.deployment, config.limits).check_feasible(config.space)
    task = load_study_task(config)
    return {
        "study": config.name,
        "space": f"{config.space.name}: {config.space.size:,} placements on {config.space.host}, every choice can be built",
        "task": f"{task.name}: {len(task.train):,} training and {len(task.val):,} validation images, {len(task.classes)} classes",
        "left out": left_out(task) or None,
        "fidelity": config.fidelity.to_dict(),
        "note": alike_in_proxy(config).removeprefix("note: ") or None,
        "recipe": config.recipe.to_dict(),
        "trials": config.trials,
        "halving": config.halving,
        "sampler": config.sampler,
        "limits": {limit.name: str(limit) for limit in config.limits.values()} or None,
        "deployment": str(DeviceKey.here(config.deployment.at(get_host(config.space.host).resolution))),
        "device": config.device,
        "workers": config.workers or (default_workers(config) if address is None else "as many as the cluster has room for"),
        "seed": config.seed,
    }
