"""The samplers by name. Importing this does not import Optuna."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = {
    "random": "uniform over the space",
    "tpe": "tree-structured Parzen estimator, multivariate over groups of parameters (default)",
    "nsga2": "genetic algorithm NSGA-II",
    "nsga3": "genetic algorithm NSGA-III",
    "gp": "Gaussian process on a flat encoding, one parameter per stage",
}
FLAT = {"gp"}  # samplers that draw conditional parameters at random: they get whole tokens instead


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The Optuna sampler called *name* (a key of SAMPLERS)."""
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
