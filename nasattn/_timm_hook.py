"""Registers our models with timm the moment timm is imported, so that `import nasattn` alone need not import torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_when_timm_is_imported() -> None:
    """Import `nasattn.hosts` now if timm is imported already, else right after it will have been."""
    timm = sys.modules.get("timm")
    if timm is None:
        sys.meta_path.insert(0, _TimmFinder())
    elif not getattr(getattr(timm, "__spec__", None), "_initializing", False):
        importlib.import_module("nasattn.hosts")


class _TimmFinder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("timm")
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenOurs(spec.loader)
        return spec


class _ThenOurs(Loader):
    """timm's own loader, and after it our hosts."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module("nasattn.hosts")

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)
