"""The samplers by name. Importing this does not import Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nasattn.attention import Placement
    from nasattn.search.sampling import Domain
    from nasattn.space import SearchSpace

SAMPLERS = {
    "auto": "placement, or evolution where the model would have more than 2,000 trials to take in (default)",
    "placement": "screens single replacements, then learns accuracy and trains what should widen the front most at its known latency",
    "random": "uniform over the space",
    "tpe": "tree-structured Parzen estimator, multivariate over groups of parameters",
    "nsga2": "genetic algorithm NSGA-II",
    "nsga3": "genetic algorithm NSGA-III",
    "gp": "Gaussian process on a flat encoding, one parameter per stage",
    "local": "local search: changes one stage of a member of the front",
    "evolution": "regularised evolution with a Pareto tournament",
    "uniform": "the same attention in every stage, as papers place it by hand; then random",
}
FLAT = {"gp"}  # samplers that draw conditional parameters at random: they get whole tokens instead
# samplers of Optuna whose only state is that of their random numbers; a new one for each trial makes a study repeatable
STATELESS = {"random", "tpe", "nsga2", "nsga3"}
LEARNING = {"auto", "placement"}  # samplers with a model of the accuracy at the end, which takes whole trainings to begin
MODEL_TRIALS = 2_000  # above which `auto` learns no model: what it would ask costs more than it saves
Known = Callable[["Placement"], float | None]


def make_sampler(
    name: str, seed: int, space: SearchSpace | None = None, known: Known | None = None, trials: int | None = None
) -> BaseSampler:
    """The Optuna sampler called *name*.

    Args:
        name: A key of SAMPLERS.
        seed: Of its random draws.
        space: What will be searched; None: samplers of our own learn it from the trials.
        known: A placement's latency ratio before it is evaluated; None where it is not known yet, inf where it exceeds a limit.
        trials: Trainings in the study, all in all, for `auto`.
    """
    name = ("placement" if (trials or 0) <= MODEL_TRIALS else "evolution") if name == "auto" else name
    return _OURS[name](seed, space, known) if name in _OURS else _of_optuna(name, seed)


def _of_optuna(name: str, seed: int) -> BaseSampler:
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        classes: dict[str, type[BaseSampler]] = {
            "random": samplers.RandomSampler,
            "nsga2": samplers.NSGAIISampler,
            "nsga3": samplers.NSGAIIISampler,
            "gp": samplers.GPSampler,
        }
        return classes[name](seed=seed)  # type: ignore[call-arg]


def _placement(seed: int, space: SearchSpace | None, known: Known | None) -> BaseSampler:
    from nasattn.search.sampling import PlacementSampler

    if space is None or known is None:
        return PlacementSampler(_domain(space), seed=seed)
    offered, latency = space, known

    def cost(params: dict[str, Any]) -> float | None:
        return latency(offered.placement(params))

    return PlacementSampler(_domain(space), cost, seed)


def _local(seed: int, space: SearchSpace | None, known: Known | None) -> BaseSampler:
    from nasattn.search.sampling import LocalSearchSampler

    return LocalSearchSampler(_domain(space), seed)


def _evolution(seed: int, space: SearchSpace | None, known: Known | None) -> BaseSampler:
    from nasattn.search.sampling import EvolutionSampler

    return EvolutionSampler(_domain(space), seed)


def _uniform(seed: int, space: SearchSpace | None, known: Known | None) -> BaseSampler:
    from nasattn.search.sampling import UniformSampler

    return UniformSampler(_domain(space), seed)


def _domain(space: SearchSpace | None) -> Domain | None:
    from nasattn.search.sampling import Domain

    return Domain.of_space(space) if space is not None else None


_OURS: dict[str, Callable[[int, SearchSpace | None, Known | None], BaseSampler]] = {
    "placement": _placement,
    "local": _local,
    "evolution": _evolution,
    "uniform": _uniform,
}
