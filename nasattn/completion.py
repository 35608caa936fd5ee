"""What a shell offers for the words of a command, once `nasattn --install-completion` has been run. Nothing here may fail or write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import typer


def _offering(find: Callable[[typer.Context], list[str]]) -> Callable[[typer.Context, str], list[str]]:
    """A completion that offers those words of *find* that begin as what was typed does; none where they cannot be found."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):  # a damaged database is for the command to report
            return [word for word in find(ctx) if word.startswith(incomplete)]
        return []

    return complete


def _studies(ctx: typer.Context) -> list[str]:
    from nasattn.api import default_storage
    from nasattn.store import Store

    return [study.name for study in Store(default_storage(ctx.params.get("storage")), create=False).studies()]


def _spaces(ctx: typer.Context) -> list[str]:
    from nasattn.config import list_yaml

    return list_yaml("search_spaces")


def _study_files(ctx: typer.Context) -> list[str]:
    from nasattn.config import list_yaml

    return list_yaml("studies")


def _hosts(ctx: typer.Context) -> list[str]:
    from nasattn.hosts import list_hosts

    return sorted(list_hosts())


def _samplers(ctx: typer.Context) -> list[str]:
    from nasattn.search.samplers import SAMPLERS

    return list(SAMPLERS)


studies, spaces, study_files, hosts, samplers = map(_offering, (_studies, _spaces, _study_files, _hosts, _samplers))
runtimes = _offering(lambda ctx: ["eager", "compile", "cudagraph", "onnxruntime"])
tasks = _offering(lambda ctx: ["cued_digits", "digits", "pathfinder", "torch/cifar10", "torch/cifar100", "hfds/"])
devices = _offering(lambda ctx: ["cpu", "cuda"])
