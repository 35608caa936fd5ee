"""Proxies: reduced hosts that are trained in place of the real ones."""

from __future__ import annotations

from nasattn.proxy.checkpoint import CheckpointedTraining, Checkpoints
from nasattn.proxy.fidelity import Fidelity, Recipe
from nasattn.proxy.network import ProxyJob, build_proxy
from nasattn.proxy.trainer import ProxyTraining, TrainingReport

__all__ = ["CheckpointedTraining", "Checkpoints", "Fidelity", "ProxyJob", "ProxyTraining", "Recipe", "TrainingReport", "build_proxy"]
