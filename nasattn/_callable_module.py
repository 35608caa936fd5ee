"""Lets `nasattn.search(...)` and `nasattn.export(...)` be functions of the API although they are also submodules.

Importing a submodule binds its name in the package, over whatever stood there; so the submodule itself is callable.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def call_through(module: str, function: str) -> None:
    """Make the imported module *module* callable: it calls ``nasattn.api``'s *function*."""

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module("nasattn.api"), function)(*args, **kwargs)

    sys.modules[module].__class__ = Callable
