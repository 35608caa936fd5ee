"""A study's configuration: what is searched, on what, how far, and where."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from nasattn.attention import Attention, Placement
from nasattn.config import read_yaml
from nasattn.errors import StudyError, UsageError, did_you_mean, one_line
from nasattn.hosts import get_host
from nasattn.hosts.family import StageSlots
from nasattn.latency import Deployment, check_device
from nasattn.proxy import Fidelity, ProxyJob, Recipe
from nasattn.proxy.defaults import default_settings
from nasattn.proxy.recipe_file import read_recipe_file
from nasattn.search.limits import UNITS, Limit
from nasattn.search.samplers import LEARNING, SAMPLERS
from nasattn.space import SearchSpace, list_spaces, load_space
from nasattn.store.records import StudyRecord
from nasattn.tasks import TaskRequest, list_tasks
from nasattn.usual_space import usual_space

MAX_SEED = 2**31 - 1  # of a database integer
FIRST_GENERATOR = {"generator": 1}  # trainings on generated images have been known by the task's name alone
FEWEST_TRIALS = 10  # of a study that certifies its front unasked


@dataclass(frozen=True)
class StudyConfig:
    """Everything that decides a study's outcome, and how much of it to spend.

    Attributes:
        space: What may be placed where.
        task: Name of a task, or a folder, whose path is made absolute.
        fidelity: How far proxies are reduced.
        recipe: How they are trained.
        name: Of the study; made from space, task and seed when empty.
        trials: Trainings in the study, all in all.
        time_budget: Seconds after which no new trial begins; None for no limit.
        sampler: One of SAMPLERS.
        limits: Upper limits on ``latency``, ``params``, ``macs`` and ``memory`` of the real host: placements above one are not trained.
        device: Where proxies train: ``cpu`` or ``cuda``.
        deployment: How the real host is run when its latency is measured.
        latency_seconds: How long one latency measurement of a placement may go on for a narrower interval; training waits meanwhile.
        workers: Proxies trained at once; None: one per CPU or GPU.
        gpus_per_trial: Share of a GPU each takes.
        seed: Of sampler, initialisation, data order and generated data.
        held_out: Score on the test images of the task, which no search sees: for checks of what searches found.
        halving: Stop trainings at a rung where others of about the same latency are better (see :class:`HalvingRule`); None: with the
            samplers that learn from the first whole trainings, `auto` and `placement`.
        compute_budget: Seconds of training, over all workers and all runs of the study, after which no trial begins or goes on
            from a rung; None for no limit.
        certify: Share of the trials that train likely members of the front again, with other seeds, from 0 to 0.5.
        plateau: Trials after which the search ends when the front's hypervolume has not grown in them; None: never.
        max_failures: Share of the trials of one run that may fail, from 0 to 1, once there are some: else the search ends.
        progress_timeout: Seconds after which a trial that has reported nothing counts as hanging and is ended; None: see
            :class:`~nasattn.search.loop.Watchdog`.
        by_default: Which of ``epochs`` and ``precision`` nobody has chosen: where there are fewer images than the fidelity asks for, they
            are trained on more often, and a study that goes on elsewhere keeps its precision.
        data: The fingerprint of the task's images, as the driver found them; empty: not known.
        first: Placements to train to the end before any that the sampler chooses, such as published ones; the space need not list them.
    """

    space: SearchSpace
    task: str = "cued_digits"
    fidelity: Fidelity = field(default_factory=Fidelity)
    recipe: Recipe = field(default_factory=Recipe)
    name: str = ""
    trials: int = 24
    time_budget: float | None = None
    sampler: str = "auto"
    limits: Mapping[str, Limit] = field(default_factory=dict)
    device: str = "cpu"
    deployment: Deployment = field(default_factory=Deployment)
    latency_seconds: float = 5.0
    workers: int | None = None
    gpus_per_trial: float = 1.0
    seed: int = 0
    held_out: bool = False
    halving: bool | None = None
    compute_budget: float | None = None
    plateau: int | None = None
    certify: float = 0.2
    max_failures: float = 0.5
    progress_timeout: float | None = None
    by_default: frozenset[str] = frozenset()
    data: Mapping[str, Any] = field(default_factory=dict)
    first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.task, str):
            raise UsageError(f"task must be the name of a task or a folder, got {self.task!r}")
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise UsageError(f"unknown sampler {self.sampler!r}: {did_you_mean(str(self.sampler), SAMPLERS)}allowed: {', '.join(SAMPLERS)}")
        check_device(self.device)
        for name, value, least in (
            ("trials", self.trials, 1),
            ("workers", self.workers, 1),
            ("seed", self.seed, 0),
            ("plateau", self.plateau, 1),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UsageError(f"{name} must be an integer >= {least}, got {value!r}")
        if isinstance(self.certify, bool) or not isinstance(self.certify, (int, float)) or not 0 <= self.certify <= 0.5:
            raise UsageError(f"certify must be a share of the trials from 0 to 0.5, got {self.certify!r}")
        if isinstance(self.max_failures, bool) or not isinstance(self.max_failures, (int, float)) or not 0 <= self.max_failures <= 1:
            raise UsageError(f"max_failures must be a share of the trials from 0 to 1, got {self.max_failures!r}")
        if self.seed > MAX_SEED:
            raise UsageError(f"seed must be an integer from 0 to {MAX_SEED}, got {self.seed}")
        object.__setattr__(self, "first", _read_first(self.first, self.space.host))
        if self.halving is None:
            object.__setattr__(self, "halving", self.sampler in LEARNING)
        elif not isinstance(self.halving, bool):
            raise UsageError(f"halving must be true or false, got {self.halving!r}")
        for name in ("gpus_per_trial", "latency_seconds"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < float("inf"):
                raise UsageError(f"{name} must be a number above 0, got {number!r}")
        if os.path.isdir(self.task) and self.task not in list_tasks():
            # the same folder from wherever the study is continued, and for workers, which run elsewhere
            object.__setattr__(self, "task", str(Path(self.task).resolve()))
        if os.path.isfile(self.recipe.pretrained):
            object.__setattr__(self, "recipe", self.recipe.changed(pretrained=str(Path(self.recipe.pretrained).resolve())))
        if not self.name.isprintable():
            raise UsageError(f"the study's name has characters that cannot be printed, got {self.name!r}: give another by --study")
        if not self.name:
            kind, _, parameter = self.task.partition("/")
            task = f"{kind}-{parameter}" if parameter and kind in list_tasks() else Path(self.task).name or "folder"
            object.__setattr__(self, "name", one_line(f"{self.space.name}-{task}-s{self.seed}"))

    def identity(self) -> dict[str, Any]:
        """What a study is: continuing it needs the same space, task, fidelity, recipe, device and seed."""
        return {
            "space": self.space.to_dict(),
            "task": self.task,
            "fidelity": self.fidelity.to_dict(),
            "recipe": self.recipe.identity(),
            "device": self.device,
            "deployment": self.deployment.to_dict(),
            "seed": self.seed,
            **({"held_out": True} if self.held_out else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration, as it is stored."""
        return {
            **self.identity(),
            "space_name": self.space.name,
            "sampler": self.sampler,
            "trials": self.trials,
            "certify": self.certify,
            "halving": self.halving,
            **{limit.name: str(limit) for limit in self.limits.values()},
            **({"data": dict(self.data)} if self.data else {}),
            **({"first": list(self.first)} if self.first else {}),
        }

    @property
    def retrainings(self) -> int:
        """How many of the trials certify the front; none where there are too few trials to have one worth it."""
        return round(self.certify * self.trials) if self.trials >= FEWEST_TRIALS else 0

    def job(self, placement: str, seed: int | None = None) -> ProxyJob:
        """The training of one placement, with the study's seed; or with another one, then it is scored on the test images too."""
        seed = self.seed if seed is None else seed
        tested = seed != self.seed and not self.held_out
        return ProxyJob(self.space.host, placement, self.fidelity, self.recipe, seed, self.device, self.held_out, tested)

    def task_request(self) -> TaskRequest:
        """The images that workers train on and score on."""
        return TaskRequest(self.fidelity.resolution, self.fidelity.samples, self.fidelity.val_samples, self.seed, self.held_out)

    @classmethod
    def from_stored(cls, record: StudyRecord) -> StudyConfig:
        """The configuration of a study of a database, as far as it decides results."""
        stored = record.config
        device = stored["device"]
        return cls(
            space=SearchSpace.from_dict(stored["space_name"], stored["space"]),
            task=stored["task"],
            fidelity=Fidelity.from_dict(stored["fidelity"]),
            recipe=Recipe.from_dict(stored["recipe"]),
            name=record.name,
            device=device,
            deployment=Deployment.from_dict(stored.get("deployment", {"device": device, "batch": stored.get("batch", 1)})),
            seed=stored["seed"],
        )

    def evaluation_identity(self, placement: str, seed: int | None = None) -> str:
        """What makes two trainings the same: host, proxy network, task and its images, fidelity, recipe, seed and device. A sha256."""
        parts = {k: v for k, v in self.identity().items() if k not in ("space", "deployment")}
        parts["seed"] = self.seed if seed is None else seed
        if self.data and self.data != FIRST_GENERATOR:
            parts["data"] = self.data.get("digest", self.data.get("generator"))
        text = json.dumps({**parts, "host": self.space.host, "proxy": self.proxy(Placement.parse(placement))}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def proxy(self, placement: Placement) -> str:
        """The placement that the proxy of *placement* carries. Where two placements have the same, one training is both's.

        An option has no effect on a proxy where, say, two numbers of groups scale to the same one; with *pretrained* weights
        the proxy is the whole host, and every option counts.
        """
        if self.recipe.pretrained:
            return str(placement)
        stages = enumerate(get_host(self.space.host).placement(placement))
        return ",".join(_in_proxy(self.space.host, self.fidelity.width, self.fidelity.blocks, i, a) for i, a in stages)


def _read_first(placements: Any, host: str) -> tuple[str, ...]:
    """Placements in their canonical form. Raises UsageError, naming the key."""
    if not isinstance(placements, (list, tuple)) or not all(isinstance(p, str) for p in placements):
        raise UsageError(f"first must be a list of placements, such as ['sge_g64,sge_g64,none,none'], got {placements!r}")
    try:
        return tuple(str(get_host(host).placement(p)) for p in placements)
    except UsageError as error:
        raise UsageError(f"first: {error}") from None


@cache
def _in_proxy(host_name: str, width: float, blocks: int, stage: int, attention: Attention) -> str:
    """*attention*, in stage number *stage* from 0, as a proxy carries it."""
    return str(_proxy_stages(host_name, width, blocks)[stage].scaled(attention, width, get_host(host_name).blocks[stage]))


@cache
def _proxy_stages(host_name: str, width: float, blocks: int) -> tuple[StageSlots, ...]:
    return get_host(host_name).proxy_stages(width, blocks)


def check_same(stored: dict[str, Any], config: StudyConfig) -> None:
    """Refuse to continue a study under another configuration. Raises StudyError with the differences."""
    if "deployment" not in stored:  # by a release that knew only the batch
        stored = {**stored, "deployment": Deployment(device=config.device, batch=stored.get("batch", 1)).to_dict()}
    whole = {**config.identity(), "recipe": config.recipe.to_dict()}
    stored = {**stored, "recipe": Recipe.from_dict(stored["recipe"]).to_dict()}
    differences = sorted(
        _differences("", {k: stored.get(k) for k in whole}, whole), key=lambda line: (line.partition(":")[0].count("."), line)
    )
    if differences:
        raise StudyError(
            f"study {config.name!r} was begun with another configuration ({'; '.join(differences[:5])}): "
            "use the same, or begin another study with --study NAME or --fresh"
        )


def _differences(prefix: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line for key in {*old, *new} for line in _differences(f"{prefix}.{key}" if prefix else str(key), old.get(key), new.get(key))
        ]
    return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]


STUDY_KEYS = (
    "space", "host", "study", "description", "task", "fidelity", "recipe", "trials", "time_budget", "compute_budget", "plateau", "certify", "max_failures", "progress_timeout",
    "sampler", "halving",
    "max_latency", "max_params", "max_macs", "max_memory", "device", "deployment", "runtime", "batch", "latency_seconds", "workers", "gpus_per_trial", "seed",
    "first",
)  # fmt: skip


def read_study_file(path: Path) -> dict[str, Any]:
    """The content of a study file with its keys checked. Raises StudyError naming the file and the key."""
    data = read_yaml(path, StudyError)
    for key in data:
        if key not in STUDY_KEYS:
            raise StudyError(f"{path}: unknown key {key!r}; {did_you_mean(str(key), STUDY_KEYS)}allowed: {', '.join(STUDY_KEYS)}")
    if bool(data.get("space")) == bool(data.get("host")):
        what = "keys 'space' and 'host' exclude each other" if data.get("space") else "key 'space' is missing"
        raise StudyError(f"{path}: {what}; name a space or a space file by 'space', or a host by 'host'")
    if isinstance(data.get("recipe"), str):  # a file, beside this one or as seen from where we are
        beside = path.parent / data["recipe"]
        data["recipe"] = str(beside if os.path.isfile(beside) else data["recipe"])
    for key in ("fidelity", "recipe", "deployment"):
        if not isinstance(data.get(key, {}), (dict, str) if key == "recipe" else dict):
            raise StudyError(f"{path}: {key} must be a mapping, got {data[key]!r}")
    return data


def make_config(settings: dict[str, Any], where: str = "") -> StudyConfig:
    """A configuration from the keys of a study file (or the flags of `nasattn search`); None stands for the default.

    Raises:
        UsageError: A value that is not allowed.
    """
    given = {k: v for k, v in settings.items() if v is not None and k != "description"}
    space = _space(given)
    fidelity, recipe, by_default = _proxy_settings(given, where)
    changes: dict[str, Any] = {"fidelity": fidelity, "recipe": recipe, "by_default": by_default}
    if "study" in given:
        changes["name"] = str(given.pop("study"))
    changes["limits"] = {cost: Limit.parse(cost, str(given.pop(f"max_{cost}"))) for cost in UNITS if f"max_{cost}" in given}
    deployed = given.pop("deployment", {})
    prefix = f"{where}deployment: " if deployed else ""
    deployed = {**deployed, **{key: given.pop(key) for key in ("runtime", "batch") if key in given}}
    changes["deployment"] = Deployment.from_dict({"device": given.get("device", "cpu"), **deployed}, where=prefix)
    for key in ("time_budget", "compute_budget", "progress_timeout"):
        if key in given:
            changes[key] = parse_duration(str(given.pop(key)), key.replace("_", " "))
    return StudyConfig(space=space, **changes, **given)


def _space(given: dict[str, Any]) -> SearchSpace:
    """The space that is named, or the usual one of the host that is."""
    space, host = given.pop("space", None), given.pop("host", None)
    if (space is None) == (host is None):
        raise UsageError(
            f"--space and --host exclude each other, got {space} and {host}: give one of them"
            if space is not None
            else f"--space is missing: name one of {', '.join(list_spaces())}, or a YAML file; or a host by --host, such as resnet26d"
        )
    return load_space(str(space)) if host is None else usual_space(str(host))


def _proxy_settings(given: dict[str, Any], where: str) -> tuple[Fidelity, Recipe, frozenset[str]]:
    """Fidelity and recipe: what is given, else what a recipe file gives, else the task's defaults; and which of epochs and precision are such."""
    fidelity, recipe = given.pop("fidelity", {}), given.pop("recipe", {})
    if isinstance(recipe, str):
        from_file, recipe = read_recipe_file(recipe)
        fidelity = {**from_file, **fidelity}
    Fidelity.from_dict(fidelity, where=f"{where}fidelity: ")
    chosen = Recipe.from_dict(recipe, where=f"{where}recipe: ")
    task, device = str(given.get("task", StudyConfig.task)), str(given.get("device", "cpu"))
    usual_fidelity, usual_recipe = default_settings(task, device, pretrained=bool(chosen.pretrained))
    if chosen.pretrained and fidelity.get("width", 1) != 1:
        raise UsageError(
            f"{where}fidelity: width must be 1 with pretrained weights, got {fidelity['width']}: they fit the whole host only; leave width out"
        )
    return replace(usual_fidelity, **fidelity), replace(usual_recipe, **recipe), frozenset({"epochs", "precision"} - {*fidelity, *recipe})


def parse_duration(text: str, what: str = "time budget") -> float:
    """Seconds of ``90s``, ``30m``, ``2h`` or ``1d``. Raises UsageError for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"a {what} is a number with s, m, h or d, such as 30m, got {text!r}")
    return seconds
