"""What a search will cost, found without training anything: each choice is built and run once, the rest is asked of the database or estimated."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.errors import UsageError
from nasattn.hosts import Host, get_host
from nasattn.hosts.count import count_params
from nasattn.latency import DTYPES, Deployment, DeviceKey
from nasattn.latency.table import LatencyTable
from nasattn.proxy import ProxyTraining
from nasattn.proxy.augment import draw_epoch
from nasattn.proxy.steps import prepared
from nasattn.proxy.trainer import VAL_BATCH
from nasattn.search.appraisal import Appraiser
from nasattn.search.latencies import alone
from nasattn.search.study import StudyConfig
from nasattn.store import Store
from nasattn.tasks import Split, Task

Choices = dict[tuple[int, str], float]  # by stage number and token, what it adds to the plain host's latency, as a part of it
ROUNDS = 2  # of plain, candidate, candidate, plain
STEPS, STEP_SECONDS = 6, 10.0  # that the plain proxy is timed for, at most
ENTRY_SECONDS, PLACEMENT_SECONDS = 2.5, 8.0  # that a latency takes a search, with building (45 entries and 7 placements: 190 s)
ENTRIES_A_TRIAL, PLACEMENTS = 2, 8  # that a search measures
DATABASE_BYTES, TRIAL_BYTES = 200_000, 8_000  # of SQLite
OPTIMIZER = 3  # times a proxy's weights: they and AdamW's two moments


@dataclass(frozen=True)
class Range:
    """A cost over all placements of a space: of the plain host, the least and the most."""

    plain: float
    least: float
    most: float

    @classmethod
    def of(cls, plain: float, added: Sequence[Sequence[float]]) -> Range:
        """The range of sums: one number of each stage is added to *plain*."""
        return cls(plain, plain + sum(map(min, added)), plain + sum(map(max, added)))


def counted_ranges(config: StudyConfig, appraiser: Appraiser) -> dict[str, Range]:
    """Parameters and MACs of the real host, which are sums over its stages."""
    plain = config.space.plain()
    base = appraiser.count(plain)
    single = [[appraiser.count(alone(plain, stage, a)) for a in tokens] for stage, tokens in enumerate(config.space.tokens)]
    return {
        cost: Range.of(base[number], [[counts[number] - base[number] for counts in stage] for stage in single])
        for number, cost in enumerate(("params", "macs"))
    }


def run_choices(config: StudyConfig, listener: Callable[[int, int, str], None] = lambda done, total, what: None) -> tuple[float, Choices]:
    """Build every choice of every stage once, on the real host with its weights, and run it; one network beside the plain one at a time.

    Args:
        config: The study.
        listener: Called before every network with the number of those done, of all, and its placement.

    Returns:
        Milliseconds of the plain host in eager mode, and what each choice adds to its stage there, by a few forward passes in pairs: a
        rough figure, which no decision should rest on.

    Raises:
        UsageError: A choice cannot be built or run; names it and the cause.
    """
    space, host = config.space, get_host(config.space.host)
    deployment = config.deployment.at(host.resolution)
    times: list[float] = []
    added: Choices = {}
    with deployment.applied(), torch.no_grad():
        plain = _Timed(host, space.plain(), deployment)
        for row in range(rows := max(map(len, space.tokens))):
            placement = Placement(tuple(tokens[min(row, len(tokens) - 1)] for tokens in space.tokens))
            listener(row, rows, str(placement))
            try:
                candidate = _Timed(host, placement, deployment)
                runs = [(model is plain, model.run()) for _ in range(ROUNDS) for model in (plain, candidate, candidate, plain)]
            except (RuntimeError, ValueError, TypeError, MemoryError) as error:
                which = _guilty(host, placement, deployment) or str(placement)
                cause = str(error).strip().partition("\n")[0] or type(error).__name__
                raise UsageError(f"{space.where('stages')}: {which} cannot be built or run on {host.name}: {cause}") from None
            baseline = [stages for is_plain, (_, stages) in runs if is_plain]
            total = statistics.median(seconds for is_plain, (seconds, _) in runs if is_plain)
            times.append(total)
            for number, attention in enumerate(placement, start=1):
                own = statistics.median(stages[number - 1] for is_plain, (_, stages) in runs if not is_plain)
                base = statistics.median(stages[number - 1] for stages in baseline)
                added.setdefault((number, str(attention)), 0.0 if attention.form == "none" else max(0.0, own - base) / total)
            del candidate
            gc.collect()
    return statistics.median(times) * 1000, added


def _guilty(host: Host, placement: Placement, deployment: Deployment) -> str | None:
    """Which attention of *placement*, alone in the plain host, cannot be built or run."""
    for stage, attention in enumerate(placement):
        try:
            _Timed(host, alone(host.plain(), stage, attention), deployment)
        except (RuntimeError, ValueError, TypeError, MemoryError):
            return f"{attention} in stage {stage + 1}"
    return None


class _Timed:
    """A placement on the real host that has run once; :meth:`run` tells how long it and its stages take."""

    def __init__(self, host: Host, placement: Placement, deployment: Deployment) -> None:
        layout = torch.channels_last if deployment.channels_last else torch.contiguous_format
        model = host.build(placement).to(deployment.device, DTYPES[deployment.dtype])
        self.model = model.to(memory_format=layout).eval()
        self.images = deployment.images()
        self.stages = host.stage_blocks(self.model)
        self.model(self.images)

    def run(self) -> tuple[float, list[float]]:
        """Seconds of one forward pass, and of each stage from the begin of its first block to the end of its last."""
        begun, ended = [0.0] * len(self.stages), [0.0] * len(self.stages)
        with _hooked(self.stages, lambda i: begun.__setitem__(i, self._now()), lambda i: ended.__setitem__(i, self._now())):
            start = self._now()
            self.model(self.images)
            seconds = self._now() - start
        return seconds, [end - begin for begin, end in zip(begun, ended, strict=True)]

    def _now(self) -> float:
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def _hooked(stages: Sequence[Sequence[nn.Module]], before: Callable[[int], None], after: Callable[[int], None]) -> Iterator[None]:
    hooks = []
    for number, blocks in enumerate(stages):
        hooks.append(blocks[0].register_forward_pre_hook(lambda module, inputs, number=number: before(number)))
        hooks.append(blocks[-1].register_forward_hook(lambda module, inputs, output, number=number: after(number)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def latency_range(config: StudyConfig, store: Store | None, plain_ms: float, estimated: Choices) -> dict[str, Any]:
    """The latency ratios of the space, from the table of stages in *store* where it has a choice, else *estimated*; and how many it lacks."""
    host = get_host(config.space.host)
    deployment = config.deployment.at(host.resolution)
    key = str(DeviceKey.here(deployment))
    table = LatencyTable(store.entries(key, host.name) if store else {})
    known = store.latencies(key, host.name) if store else {}

    def is_measured(stage: int, token: str) -> bool:
        return {(stage, "none"), (stage, token)} <= table.entries.keys()

    added, measured, choices = [], 0, 0
    for number, tokens in enumerate(config.space.tokens, start=1):
        own = [t for a in tokens if (t := str(a)) != "none"]
        choices += len(own)
        measured += sum(is_measured(number, token) for token in own)
        added.append(
            [0.0] * (len(own) < len(tokens)) + [table.added(number, t) if is_measured(number, t) else estimated[number, t] for t in own]
        )
    ratios = Range.of(1.0, added)
    stored = known.get(str(config.space.plain()))
    plain = stored.ms if stored else table.plain_ms if any(token == "none" for _, token in table.entries) else None
    rough = "" if config.deployment.runtime == "eager" else f", in eager mode instead of {config.deployment.runtime}"
    return {
        "plain_ms": plain if plain is not None else plain_ms,
        "plain_found_by": "measurement in the database" if plain is not None else f"a few forward passes{rough}",
        "least": ratios.least,
        "most": ratios.most,
        "choices": choices,
        "measured": measured,
        "estimated": choices - measured,
        "estimated_by": f"a few forward passes in pairs{rough}; the search measures" if measured < choices else None,
        "device": key,
    }


def past_seconds(config: StudyConfig, store: Store | None) -> list[float]:
    """The seconds of all trainings in *store* of this host, task, fidelity and recipe on this kind of device."""
    if store is None:
        return []
    own = config.identity()
    wanted = {key: own[key] for key in ("task", "fidelity", "recipe", "device")}
    same = [s for s in store.studies() if s.config.get("space", {}).get("host") == config.space.host and wanted.items() <= s.config.items()]
    trials = [t for study in same for t in store.evaluations(study.name, state="COMPLETE")]
    return [t.seconds for t in trials if t.seconds and t.reused_from is None]


def timed_training(config: StudyConfig, task: Task) -> float:
    """Seconds of a training of the plain proxy, from a few of its steps and one batch of its validation; the network is thrown away."""
    training = ProxyTraining(config.job(str(config.space.plain())), task)
    training.model.train()
    seconds: list[float] = []
    with Deployment(device=config.device).applied():  # one thread, as a worker has
        for number, (images, labels, draws) in zip(range(min(STEPS, training.steps)), _batches(training), strict=False):
            with _timing(training.device, seconds):
                training.step_once(number, images, labels, draws)
            if sum(seconds) > STEP_SECONDS:
                break
        step = statistics.median(seconds[1:] or seconds)  # the first one makes the optimiser's state
        return step * training.steps + _validation(training) * len(training.marks)


def _batches(training: ProxyTraining) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches of the first epochs: images, labels and draws."""
    size = training.batch
    for epoch in range(training.job.fidelity.epochs):
        order, draws = draw_epoch(len(training.train), training.job.recipe, training.job.seed, epoch)
        last = training.steps_per_epoch * size
        places = draws[:last].to(training.device).split(size)
        for (images, labels), place in zip(training.train.batches(order[:last], size), places, strict=True):
            yield images, labels, place


def _validation(training: ProxyTraining) -> float:
    """Seconds of one validation, from two batches of it."""
    size = VAL_BATCH[training.device.type]
    order = torch.arange(min(2 * size, len(training.val)))
    training.model.eval()
    seconds: list[float] = []
    with torch.no_grad():
        for images, _ in training.val.batches(order, size):
            with _timing(training.device, seconds):
                training.model(prepared(images, training.scale))
    return min(seconds) * math.ceil(len(training.val) / size)


@contextmanager
def _timing(device: torch.device, seconds: list[float]) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.append(time.perf_counter() - begun)


def time_needed(config: StudyConfig, task: Task, store: Store | None, workers: int | None, lacking: int) -> dict[str, Any]:
    """How long the search takes: of trainings as they took before, else as the plain proxy's steps promise, and of latencies.

    Args:
        config: The study.
        task: Its images.
        store: The database, if there is one.
        workers: Trainings at once; None: not known, and then only the hours of all trainings together are said.
        lacking: Entries that the table of latencies lacks.
    """
    past = past_seconds(config, store)
    training = statistics.mean(past) if past else timed_training(config, task)
    measuring = min(lacking, ENTRIES_A_TRIAL * config.trials) * ENTRY_SECONDS + min(PLACEMENTS, config.trials) * PLACEMENT_SECONDS
    starts = (workers or 1) * config.recipe.plain_epochs / config.fidelity.epochs  # the plain network, by all that begin
    hours = (config.trials + starts) * training / 3600
    return {
        "training_seconds": training,
        "found_by": f"{len(past)} trainings of this fidelity in the database"
        if past
        else "a few steps of the plain proxy; attentions add to it",
        "training_hours": hours,
        "measuring_hours": measuring / 3600,
        "hours": None if workers is None else hours / min(workers, config.trials) + measuring / 3600,
    }


def disk_needed(config: StudyConfig, task: Task, workers: int | None) -> dict[str, int]:
    """Bytes that the search writes, at most: checkpoints, decoded images and the database."""
    host, fidelity = get_host(config.space.host), config.fidelity
    if config.recipe.pretrained:
        proxy = host.build(host.plain(), device="meta")
    else:
        settings = {key: asdict(fidelity)[key] for key in ("width", "blocks", "stem_stride")}
        proxy = host.build_proxy(host.plain(), num_classes=len(task.classes), device="meta", **settings)
    waiting = config.trials if config.halving or workers is None else min(config.trials, workers + 1)
    images = sum(len(split) for split in (task.train, task.val) if isinstance(split, Split)) if task.sources else 0
    images += min(task.counts.get("test", 0), fidelity.val_samples or task.counts.get("test", 0)) if images and config.retrainings else 0
    found: Mapping[str, int] = {
        "checkpoints": waiting * OPTIMIZER * 4 * count_params(proxy),
        "decoded_images": images * 3 * fidelity.resolution**2,
        "database": DATABASE_BYTES + config.trials * TRIAL_BYTES,
    }
    return {**found, "all": sum(found.values())}
