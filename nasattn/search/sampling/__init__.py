"""Samplers of our own for categorical search spaces, usable in any Optuna study."""

from nasattn.search.sampling.baselines import EvolutionSampler, LocalSearchSampler, UniformSampler
from nasattn.search.sampling.domain import Domain
from nasattn.search.sampling.placement import PlacementSampler

__all__ = ["Domain", "EvolutionSampler", "LocalSearchSampler", "PlacementSampler", "UniformSampler"]
