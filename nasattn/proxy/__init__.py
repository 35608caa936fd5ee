"""Proxies: reduced hosts that are trained in place of the real ones."""

from __future__ import annotations

from nasattn.proxy.fidelity import Fidelity, Recipe
from nasattn.proxy.trainer import EpochReport, ProxyJob, ProxyTraining, build_proxy

__all__ = ["EpochReport", "Fidelity", "ProxyJob", "ProxyTraining", "Recipe", "build_proxy"]
