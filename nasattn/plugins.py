"""Attentions and hosts from other packages: what they name under our entry-point groups is imported, and registers itself."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points


def load_plugins(group: str) -> None:
    """Import every entry point of *group* that is installed. One that fails is named in a warning; the others still load."""
    for entry in entry_points(group=group):
        try:
            entry.load()
        except Exception as error:
            warnings.warn(
                f"the plugin {entry.name!r} ({entry.value}, group {group}) cannot be loaded: {error}; repair or uninstall it", stacklevel=2
            )
