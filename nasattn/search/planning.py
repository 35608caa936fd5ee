"""What a search would do, checked before anything is trained or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nasattn.attention import Placement
from nasattn.errors import UsageError, one_line
from nasattn.hosts import get_host
from nasattn.proxy import Fidelity
from nasattn.proxy.precision import usual_precision
from nasattn.search.cluster import places
from nasattn.search.continuing import with_precision
from nasattn.search.study import StudyConfig
from nasattn.store import Store
from nasattn.tasks import Task, load_task
from nasattn.usual_space import made_for

MOST_STRETCHED = 10  # times as many epochs, for want of images


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
    """The task as the workers will load it. Raises TaskError, also for test images that will be needed at the end."""
    task = load_task(config.task, config.task_request())
    if not task.sources or config.held_out or not config.retrainings:
        return task
    tested = load_task(config.task, replace(config.task_request(), samples=1, held_out=True))
    return replace(
        task, skipped=tuple(dict.fromkeys((*task.skipped, *tested.skipped))), counts={**task.counts, "test": tested.counts["test"]}
    )


def fitted(config: StudyConfig, task: Task) -> StudyConfig:
    """*config* with as many images as there are. Where these are few and nobody has said how many epochs, they are trained on more often."""
    asked, count, epochs = config.fidelity.samples, len(task.train), config.fidelity.epochs
    if "epochs" in config.by_default and task.sources and asked and count < asked:
        epochs = min(MOST_STRETCHED * epochs, round(epochs * asked / count))
    return replace(config, fidelity=replace(config.fidelity, val_samples=len(task.val), samples=count, epochs=epochs))


def task_lines(asked: Fidelity, config: StudyConfig, task: Task) -> list[str]:
    """What a user should know of images that are read: how many there are, what is left out, and what became of the fidelity that was *asked*."""
    if not task.sources:
        return []
    counts = task.counts
    parts = [f"{len(task.classes):,} classes", f"{counts['train']:,} images to train on"]
    parts += [f"{counts['val']:,} to validate"] if "val" in counts else []
    parts += [f"{counts['test']:,} held out"] if "test" in counts else []
    used = [f"{len(split):,} to {what}" for split, kind, what in ((task.train, "train", "train on"), (task.val, "val", "validate")) if len(split) + len(task.skipped) < counts.get(kind, 0)]  # fmt: skip
    lines = [f"images of {Path(task.name).name or task.name}: {', '.join(parts)}" + (f" ({task.rule})" if task.rule else "")]
    lines += [f"of these the fidelity takes {' and '.join(used)}"] if used else []
    fidelity = config.fidelity
    if asked.samples and fidelity.samples and fidelity.samples < asked.samples:
        more = f", in {fidelity.epochs} epochs instead of {asked.epochs}" if fidelity.epochs != asked.epochs else ""
        lines.append(f"fewer images than the {asked.samples:,} that the fidelity asks for: all are trained on{more}")
    return [one_line(line) for line in (*lines, *task.notes, *filter(None, [left_out(task)]))]


def precision_line(config: StudyConfig) -> str:
    """A line about a precision for which this machine has no instructions; empty for others."""
    if config.recipe.precision == "float32" or usual_precision(config.device) == config.recipe.precision:
        return ""
    return f"the study computes in {config.recipe.precision}, for which this CPU has no instructions: its proxies take longer here"


def space_line(config: StudyConfig) -> str:
    """A line about a space that was made for a host; empty for others."""
    space = config.space
    if space.source != made_for(space.host):
        return ""
    return f"space {space.name}: {space.size:,} placements, made for {space.host}; `nasattn spaces --host {space.host} > my_space.yaml` writes it, to edit and give by --space"


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


def plan(
    config: StudyConfig,
    address: str | None = None,
    storage: str | None = None,
    listener: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Any]:
    """What a search would do and need: every choice is built and run once, the task loaded; nothing is trained or recorded. For `--dry-run`.

    Args:
        config: The study.
        address: A cluster, which is not looked at.
        storage: URL of a database whose latencies and trainings tell more than an estimate, if it exists.
        listener: Called before every network that is run with the number of those done, of all, and its placement.

    Returns:
        Plain data for JSON; :func:`nasattn.report.plan.describe_plan` says the same in words.

    Raises:
        UsageError: A choice cannot be built or run, the task not be loaded, or nothing of the space is within the limits.
    """
    from nasattn.search import estimates
    from nasattn.search.appraisal import Appraiser
    from nasattn.store.unchanged import open_unchanged

    check_buildable(config)
    appraiser = Appraiser(Store("sqlite://"), config.space.host, config.deployment, config.limits)
    appraiser.check_feasible(config.space)
    task = load_study_task(config)
    asked, config = config.fidelity, fitted(config, task)
    store = open_unchanged(storage) if storage else None
    config = with_precision(config, store.find_study(config.name) if store else None)
    workers = config.workers or (default_workers(config) if address is None else None)
    latency = estimates.latency_range(config, store, *estimates.run_choices(config, listener))
    space = config.space
    return {
        "study": config.name,
        "space": {"name": space.name, "host": space.host, "placements": space.size, "choices": [len(t) for t in space.tokens]},
        "task": {
            "name": task.name,
            "classes": len(task.classes),
            "images": {"train": len(task.train), "val": len(task.val)},
            "of": dict(task.counts),
            "split": task.rule or None,
            "left_out": list(task.skipped),
        },
        "notes": [
            *filter(None, [space_line(config), precision_line(config)]),
            *task_lines(asked, config, task),
            *filter(None, [alike_in_proxy(config).removeprefix("note: ")]),
        ],
        "fidelity": config.fidelity.to_dict(),
        "recipe": config.recipe.to_dict(),
        "trials": config.trials,
        "halving": config.halving,
        "sampler": config.sampler,
        "limits": {limit.name: str(limit) for limit in config.limits.values()},
        **{cost: asdict(found) for cost, found in estimates.counted_ranges(config, appraiser).items()},
        "latency": latency,
        "device": config.device,
        "workers": workers,
        "time": estimates.time_needed(config, task, store, workers, latency["estimated"]),
        "disk": estimates.disk_needed(config, task, workers),
        "seed": config.seed,
    }
