"""The commands that list what there is to search: studies, spaces, hosts and attentions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nasattn import completion, console, options
from nasattn.errors import UsageError


def studies(storage: options.StorageOption = None, as_json: options.JsonOption = False) -> None:
    """List the studies of the database, and the shipped study files that `nasattn run` takes. Example: nasattn studies"""
    from nasattn.api import DEFAULT_STORAGE, default_storage
    from nasattn.report.tables import shipped_studies_table, studies_table, study_summaries
    from nasattn.store import Store

    url = default_storage(storage)
    begun = url != DEFAULT_STORAGE or Path(url.removeprefix("sqlite:///")).exists()
    summaries = study_summaries(Store(url, create=False)) if begun else []
    if as_json:
        print(json.dumps(summaries, indent=2))
    else:
        console.out().print(studies_table(summaries), shipped_studies_table())


def spaces(
    name: Annotated[str | None, typer.Argument(help="Show this space, or a YAML file, whole.", autocompletion=completion.spaces)] = None,
    host: options.YamlHostOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the shipped search spaces with their size and choices.

    Examples: nasattn spaces resnet50_stages
              nasattn spaces --host resnet26d > my_space.yaml
    """
    from nasattn.report.tables import space_summary, space_table, spaces_table
    from nasattn.space import list_spaces, load_space

    if host is not None:
        from nasattn.usual_space import space_yaml, usual_space

        if name is not None:
            raise UsageError(f"give a space or --host, got both {name} and --host {host}")
        made = usual_space(host)
        print(json.dumps(space_summary(made), indent=2) if as_json else space_yaml(made), end="\n" if as_json else "")
        return
    loaded = [load_space(n) for n in ([name] if name else list_spaces())]
    if as_json:
        print(json.dumps([space_summary(s) for s in loaded], indent=2))
    elif name:
        console.out().print(space_table(loaded[0]))
    else:
        console.out().print(spaces_table(loaded))


def hosts(
    name: Annotated[str | None, typer.Argument(help="Show the stages of this host.", autocompletion=completion.hosts)] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the backbones that can carry a placement. Example: nasattn hosts nasattn_resnet50"""
    from nasattn.hosts import find_host, list_hosts
    from nasattn.report.tables import host_summary, host_table

    if name:
        host = find_host(name)
        print(json.dumps(host_summary(host), indent=2)) if as_json else console.out().print(host_table(host))
    else:
        print(json.dumps(list_hosts(), indent=2) if as_json else "\n".join(sorted(list_hosts())))


def attentions(as_json: options.JsonOption = False) -> None:
    """List the attentions: token, paper, options, parameters at 256 channels. Example: nasattn attentions"""
    from nasattn.report.tables import attention_summaries, attentions_table

    summaries = attention_summaries()
    print(json.dumps(summaries, indent=2)) if as_json else console.out().print(attentions_table(summaries))
