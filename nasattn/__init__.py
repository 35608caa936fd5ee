"""nasattn: which attention, in which stage, is worth its latency?

Importing this is cheap: torch, timm, Optuna and Ray are imported when a function needs them. Our models are registered
with timm as soon as both `nasattn` and `timm` are imported, in whatever order.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nasattn._timm_hook import register_when_timm_is_imported

if TYPE_CHECKING:
    from nasattn.api import certify, export, list_spaces, measure_latency, measure_table, open_study, proxy_report, search, tune_proxy
    from nasattn.attention import create_attention, list_attention, register_attention
    from nasattn.errors import NasattnError
    from nasattn.study import Front, Study

__all__ = [
    "Front",
    "NasattnError",
    "Study",
    "certify",
    "create_attention",
    "export",
    "list_attention",
    "list_spaces",
    "measure_latency",
    "measure_table",
    "open_study",
    "proxy_report",
    "register_attention",
    "search",
    "tune_proxy",
]

_HOME = {
    "Front": "nasattn.study",
    "NasattnError": "nasattn.errors",
    "Study": "nasattn.study",
    "certify": "nasattn.api",
    "create_attention": "nasattn.attention",
    "export": "nasattn.export",
    "list_attention": "nasattn.attention",
    "list_spaces": "nasattn.api",
    "measure_latency": "nasattn.api",
    "measure_table": "nasattn.api",
    "open_study": "nasattn.api",
    "proxy_report": "nasattn.api",
    "register_attention": "nasattn.attention",
    "search": "nasattn.search",
    "tune_proxy": "nasattn.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nasattn' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    return home if _HOME[name] == f"nasattn.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_timm_is_imported()
