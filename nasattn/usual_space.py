"""The space of a host for which none is written: what can be placed where follows from the host's own stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from nasattn.config import list_yaml
from nasattn.errors import TokenError
from nasattn.hosts import Host, find_host
from nasattn.hosts.family import StageSlots
from nasattn.space import Choice, SearchSpace, load_space

Options = dict[str, list[Any]]
PROXY_WIDTHS = (0.125, 0.25)  # at which proxies are trained unless a recipe says otherwise
WIDE = 256  # channels in the first stage from which there are more groups
MOST_GROUPS = 3  # numbers of groups that a stage is offered, the largest that fit
NORM_GROUPS = (16, 8, 4)  # of ELA, where the paper's number does not divide the channels


def usual_space(name: str) -> SearchSpace:
    """The shipped space ``HOST_stages`` of a host, else one that is made for it.

    Its stages offer ``none``, what the network has in its original form, and each attention that they can carry, at the host's own
    position, with the values of options that fit the channels of the host and of its proxies.

    Args:
        name: A host, or timm's name of the model that it extends: ``resnet26d``.

    Raises:
        UsageError: No such host; the message says which are near.
    """
    host = find_host(name)
    short = f"{_plain_name(host)}_stages"
    if short in list_yaml("search_spaces") and (shipped := load_space(short)).host == host.name:
        return shipped
    return made_space(host)


def made_space(host: Host) -> SearchSpace:
    """The space that is made for *host*, whether or not one is shipped."""
    return SearchSpace.from_dict(f"{_plain_name(host)}_stages", _content(host), source=made_for(host.name))


def made_for(host: str) -> str:
    """The `source` of a space that was made for *host*."""
    return f"the space made for {host}"


def space_yaml(space: SearchSpace) -> str:
    """The text of a space file that says what *space* is."""
    content = space.to_dict()
    stages: dict[str, Any] = content["stages"]
    written = {"all": stages["1"]} if all(stage == stages["1"] for stage in stages.values()) else stages
    lines = [f"description: {_scalar(space.description)}", f"host: {space.host}", "stages:"]
    for number, choices in written.items():
        lines.append(f"  {number}:")
        for name, options in choices.items():
            lines.append(f"    {name}:{' ' + _inline(options) if options else ''}")
    return "\n".join(lines) + "\n"


def _plain_name(host: Host) -> str:
    return host.name.removeprefix("nasattn_")


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, width=1_000_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


def _inline(options: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(options), default_flow_style=True, sort_keys=False, width=1_000_000).strip()


def _content(host: Host) -> dict[str, Any]:
    proxies = [host.proxy_stages(width) for width in PROXY_WIDTHS]
    stages: dict[int, dict[str, Options]] = {}
    for number, (stage, native) in enumerate(zip(host.stages, host.native, strict=True), start=1):
        offered = {width: reduced[number - 1] for width, reduced in zip(PROXY_WIDTHS, proxies, strict=True)}
        stages[number] = {
            name: options
            for name, values in _candidates(host, str(native))
            if (options := _fitting(name, values, stage, offered)) is not None
        }
    same = all(stage == stages[1] for stage in stages.values())
    return {
        "description": f"Which attention in which stage of {_plain_name(host)}",
        "host": host.name,
        "stages": {"all": stages[1]} if same else stages,
    }


def _candidates(host: Host, native: str) -> Iterator[tuple[str, Options]]:
    """What a stage may be offered, the more modest first; what it cannot carry is taken out afterwards."""
    expanded = host.stages[0].position == "mid" and "out" in host.stages[0].channels  # MBConv: four to six times the channels inside
    yield "none", {}
    token, _, mask = native.partition("@")
    if token == "se":
        yield "se", {"blocks": ["every", mask]} if mask else {}
    if host.stages[0].forms == ("branch",):  # in its original form attention of this kind, in every second block
        yield "fsla", {"cluster": [25, 49, 98], "overlap": [0, 10, 20], "blocks": [mask or "even", "every"]}
        return
    yield "sb", {}
    channels = min(host.stages[0].channels[host.stages[0].position])
    yield "sge", {"groups": [4, 8, 16, 32, *([64] if channels >= WIDE else [])]}
    for variant in ("ela_t", "ela_b", "ela_s", "ela_l"):
        yield variant, {}
    yield "lka", {"kernel": [7, 21] if expanded else [7, 14, 21], "dilation": [2, 3]}
    yield "fsla", {"cluster": [49], "position": ["out"]} if expanded else {"cluster": [25, 49]}


def _fitting(name: str, options: Options, stage: StageSlots, proxies: Mapping[float, StageSlots]) -> Options | None:
    """Those values of *options* with which the stage and its proxies can carry the attention; None where there are none."""
    if name.startswith("ela_") and not _fits(name, {}, stage, proxies):
        options = {"norm_groups": next(([n] for n in NORM_GROUPS if _fits(name, {"norm_groups": n}, stage, proxies)), [])}
    combinations = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    fitting = [c for c in combinations if _fits(name, c, stage, proxies)]
    kept = {key: [v for v in values if any(c[key] == v for c in fitting)] for key, values in options.items()}
    if not fitting or len(fitting) < math.prod(map(len, kept.values())):
        return None
    return {key: values[-MOST_GROUPS:] if key == "groups" else values for key, values in kept.items()}


def _fits(name: str, values: Mapping[str, Any], stage: StageSlots, proxies: Mapping[float, StageSlots]) -> bool:
    try:
        attention = stage.canonical(Choice(name).attention(values))
        for width, reduced in proxies.items():
            reduced.scaled(attention, width, stage.blocks)
    except TokenError:
        return False
    return True
