"""Search spaces: a host and, per stage, the attentions and options that may be chosen. A YAML file in `search_spaces/`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasattn.attention import Attention, Placement, Where, list_attention
from nasattn.attention.token import definitions
from nasattn.attention.where import name_blocks
from nasattn.config import find_yaml, list_yaml, read_yaml
from nasattn.errors import SpaceError, TokenError, UsageError, did_you_mean
from nasattn.hosts import Host, get_host

if TYPE_CHECKING:
    from optuna.trial import Trial

SPACE_KEYS = ("host", "description", "stages")
WHERE_KEYS = ("blocks", "position", "shared")  # of every attention, beside its own options
MOST_COMBINATIONS = 20_000  # of a stage: each is checked before a search begins
ANY_MASK_LIMIT = 10  # blocks: `blocks: any` stands for 2^blocks - 1 masks


@dataclass(frozen=True)
class Choice:
    """One attention that a stage may carry, with the values its options may take.

    Attributes:
        name: As a token begins: ``none``, ``sge``, ``ela_t``.
        options: ``(keyword, values)`` pairs; options not named keep the paper's value. Besides the attention's own options
            ``blocks``, ``position`` and ``shared``, which say where in the stage it sits (see :class:`Where`).
    """

    name: str
    options: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def combinations(self) -> Iterator[tuple[dict[str, Any], Attention]]:
        """Every combination of the options' values and the attention it means, in the order of the lists."""
        keywords = [k for k, _ in self.options]
        for values in itertools.product(*(v for _, v in self.options)):
            combination = dict(zip(keywords, values, strict=True))
            yield combination, self.attention(combination)

    def attention(self, combination: Mapping[str, Any]) -> Attention:
        """The attention that one value for each option means."""
        where = {k: v for k, v in combination.items() if k in WHERE_KEYS}
        attention = Attention.make(self.name, **{k: v for k, v in combination.items() if k not in WHERE_KEYS})
        return attention.placed(Where(**where)) if where else attention


@dataclass(frozen=True)
class SearchSpace:
    """What may be placed where.

    Attributes:
        name: The file's stem.
        host: The timm name of a registered host.
        stages: For each stage of the host, the choices.
        description: One line for `nasattn spaces`.
        source: The file, for messages.

    Raises:
        SpaceError: A stage without choices, or an attention that does not fit its stage.
    """

    name: str
    host: str
    stages: tuple[tuple[Choice, ...], ...]
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        host = self._get_host()
        if len(self.stages) != len(host.stages):
            raise SpaceError(
                f"{self.where('stages')}: {len(self.stages)} stages, but {self.host} has {len(host.stages)}; give 1 to {len(host.stages)}"
            )
        for number, choices in enumerate(self.stages, start=1):
            if not choices:
                raise SpaceError(f"{self.where(f'stages.{number}')}: no attention to choose from; list at least `none:`")
            for choice in choices:
                self._check_choice(number, choice, host)

    def _get_host(self) -> Host:
        try:
            return get_host(self.host)
        except UsageError as error:
            raise SpaceError(f"{self.where('host')}: {error}") from None

    def _check_choice(self, number: int, choice: Choice, host: Host) -> None:
        key = self.where(f"stages.{number}.{choice.name}")
        try:
            for _, attention in choice.combinations():
                try:
                    host.attention(attention, number)
                except TokenError as error:
                    raise SpaceError(
                        f"{key}: {attention} does not fit stage {number} of {self.host}: {error}; remove that value from stage {number}"
                    ) from None
        except TokenError as error:
            raise SpaceError(f"{key}: {error}; remove or change that value") from None

    def where(self, key: str) -> str:
        """``file: key``, the beginning of every message."""
        return f"{self.source or self.name}: {key}"

    @cached_property
    def tokens(self) -> tuple[tuple[Attention, ...], ...]:
        """For each stage every attention it may carry, in the host's canonical form and without repetition."""
        host = get_host(self.host)
        return tuple(
            tuple(dict.fromkeys(host.attention(a, number) for choice in choices for _, a in choice.combinations()))
            for number, choices in enumerate(self.stages, start=1)
        )

    @property
    def size(self) -> int:
        """The number of different placements."""
        return math.prod(len(t) for t in self.tokens)

    def placements(self) -> Iterator[Placement]:
        """Every placement of the space."""
        return (Placement(p) for p in itertools.product(*self.tokens))

    def plain(self) -> Placement:
        """The baseline: ``none`` in every stage, whether or not the space lists it."""
        return get_host(self.host).plain()

    def native(self) -> Placement:
        """The host's original form, such as ``se`` in every stage of an EfficientNet; often :meth:`plain`."""
        return get_host(self.host).native

    def __contains__(self, placement: Placement) -> bool:
        try:
            canonical = get_host(self.host).placement(placement)
        except TokenError:
            return False
        return all(a in t for a, t in zip(canonical, self.tokens, strict=True))

    def suggest(self, trial: Trial, flat: bool = False) -> Placement:
        """Draw a placement from an Optuna trial.

        Args:
            trial: Asked from any Optuna study.
            flat: One categorical parameter per stage over whole tokens (for samplers that handle conditional
                parameters badly, such as GP), instead of one for the attention and one for each of its options.
        """
        draw = self._suggest_token if flat else self._suggest_choice
        return Placement(tuple(draw(trial, stage) for stage in range(len(self.stages))))

    def _suggest_token(self, trial: Trial, stage: int) -> Attention:
        return Attention.parse(trial.suggest_categorical(f"stage{stage + 1}.token", [str(a) for a in self.tokens[stage]]))

    def _suggest_choice(self, trial: Trial, stage: int) -> Attention:
        choices = {c.name: c for c in self.stages[stage]}
        name = trial.suggest_categorical(f"stage{stage + 1}", list(choices))
        options = {k: trial.suggest_categorical(f"stage{stage + 1}.{name}.{k}", list(v)) for k, v in choices[name].options}
        return get_host(self.host).attention(choices[name].attention(options), stage + 1)

    def placement(self, params: Mapping[str, Any]) -> Placement:
        """The placement that :meth:`suggest` gives under the Optuna parameters *params*, flat or not."""
        return Placement(tuple(self._attention(params, stage) for stage in range(len(self.stages))))

    def _attention(self, params: Mapping[str, Any], stage: int) -> Attention:
        if (token := params.get(f"stage{stage + 1}.token")) is not None:
            return Attention.parse(token)
        choice = next(c for c in self.stages[stage] if c.name == params[f"stage{stage + 1}"])
        values = {k: params[f"stage{stage + 1}.{choice.name}.{k}"] for k, _ in choice.options}
        return get_host(self.host).attention(choice.attention(values), stage + 1)

    def params(self, placement: Placement, flat: bool = False) -> dict[str, Any]:
        """The Optuna parameters under which :meth:`suggest` gives *placement*.

        Raises:
            SpaceError: The placement is not in the space.
        """
        if placement not in self:
            raise SpaceError(f"{self.where('stages')}: placement {str(placement)!r} is not in this space")
        placement = get_host(self.host).placement(placement)
        if flat:
            return {f"stage{i}.token": str(a) for i, a in enumerate(placement, start=1)}
        params: dict[str, Any] = {}
        for number, (attention, choices) in enumerate(zip(placement, self.stages, strict=True), start=1):
            name, values = self._find(number, choices, attention)
            params[f"stage{number}"] = name
            params.update({f"stage{number}.{name}.{k}": v for k, v in values.items()})
        return params

    def _find(self, number: int, choices: tuple[Choice, ...], attention: Attention) -> tuple[str, dict[str, Any]]:
        host = get_host(self.host)
        return next((c.name, values) for c in choices for values, a in c.combinations() if host.attention(a, number) == attention)

    def to_dict(self) -> dict[str, Any]:
        """The space as its YAML file would say it, for the study's record."""
        return {
            "host": self.host,
            "stages": {
                str(i): {c.name: {k: list(v) for k, v in c.options} for c in choices} for i, choices in enumerate(self.stages, start=1)
            },
        }

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any], source: str = "") -> SearchSpace:
        """Build from the content of a space file.

        Raises:
            SpaceError: Unknown keys, wrong types, impossible options; names the file, the key and the remedy.
        """
        source = source or name
        for key in data:
            if key not in SPACE_KEYS:
                raise SpaceError(f"{source}: unknown key {key!r}; {did_you_mean(str(key), SPACE_KEYS)}allowed: {', '.join(SPACE_KEYS)}")
        for key in ("host", "stages"):
            if not data.get(key):
                raise SpaceError(f"{source}: key {key!r} is missing; add it")
        if not isinstance(data["host"], str) or not isinstance(data["stages"], dict):
            raise SpaceError(f"{source}: `host` must be a name and `stages` a mapping of 1, 2, ... or `all` to attentions")
        return cls(
            name=name,
            host=data["host"],
            stages=_read_stages(data["stages"], data["host"], source),
            description=str(data.get("description", "")),
            source=source,
        )


def _read_stages(stages: Mapping[Any, Any], host_name: str, source: str) -> tuple[tuple[Choice, ...], ...]:
    try:
        slots = get_host(host_name).stages
    except UsageError as error:
        raise SpaceError(f"{source}: host: {error}") from None
    count = len(slots)
    keys = {str(k): v for k, v in stages.items()}
    numbers = [str(i) for i in range(1, count + 1)]
    for key in keys:
        if key not in (*numbers, "all"):
            raise SpaceError(
                f"{source}: stages.{key}: unknown stage; {host_name} has stages {', '.join(numbers)}, and `all` stands for those not listed"
            )
    missing = [n for n in numbers if n not in keys and "all" not in keys]
    if missing:
        raise SpaceError(f"{source}: stages: stage {missing[0]} of {host_name} is missing; add `{missing[0]}:` or `all:`")
    return tuple(
        _read_choices(keys.get(n, keys.get("all")), f"{source}: stages.{n if n in keys else 'all'}", offered.blocks)
        for n, offered in zip(numbers, slots, strict=True)
    )


def _read_choices(choices: Any, where: str, blocks: int) -> tuple[Choice, ...]:
    if not isinstance(choices, dict):
        raise SpaceError(f"{where}: must map attentions to their options, such as `sge: {{groups: [16, 32]}}`, got {choices!r}")
    read = tuple(_read_choice(name, options, where, blocks) for name, options in choices.items())
    combinations = sum(math.prod(len(values) for _, values in choice.options) for choice in read)
    if combinations > MOST_COMBINATIONS:
        raise SpaceError(
            f"{where}: {combinations:,} combinations of options; give fewer values, {MOST_COMBINATIONS:,} combinations at most"
        )
    return read


def _read_choice(name: Any, options: Any, where: str, blocks: int) -> Choice:
    if name not in list_attention():
        hint = did_you_mean(str(name), list_attention())
        raise SpaceError(f"{where}.{name}: unknown attention; {hint}allowed: {', '.join(list_attention())}")
    definition = definitions()[name.partition("_")[0]]
    known = [*(o.keyword for o in definition.options), *(WHERE_KEYS if definition.form != "none" else ())]
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise SpaceError(
            f"{where}.{name}: must map options to lists, such as `{{{known[0] if known else 'option'}: [1, 2]}}`, got {options!r}"
        )
    for keyword in options:
        if keyword not in known:
            raise SpaceError(
                f"{where}.{name}.{keyword}: unknown option; {did_you_mean(str(keyword), known)}allowed: {', '.join(known) or 'none'}"
            )
    return Choice(name, tuple((k, _read_values(k, v, f"{where}.{name}.{k}", blocks)) for k, v in options.items()))


def _read_values(keyword: str, values: Any, key: str, blocks: int) -> tuple[Any, ...]:
    if keyword == "blocks" and values == "any":
        if blocks > ANY_MASK_LIMIT:
            raise SpaceError(f"{key}: `any` stands for 2^{blocks} - 1 masks here; list those that matter, such as [every, last, even]")
        masks = ("b" + "".join(bits) for bits in itertools.product("01", repeat=blocks) if "1" in bits)
        return tuple(name_blocks(Where(mask).carriers(blocks), blocks) for mask in masks)
    kind, example = {"blocks": (str, "[every, last, b0101], or `any` for every mask"), "position": (str, "[out, mid]"), "shared": (bool, "[false, true]")}.get(
        keyword, (int, "[16, 32]")
    )  # fmt: skip
    if not isinstance(values, list) or not values or not all(type(v) is kind for v in values):
        what = {int: "integers", str: "words", bool: "true or false"}[kind]
        raise SpaceError(f"{key}: must be a list of {what}, such as {example}, got {values!r}")
    if len(set(values)) < len(values):
        raise SpaceError(f"{key}: {values!r} names a value twice; name it once")
    return tuple(values)


def list_spaces() -> list[str]:
    """The names of the shipped spaces."""
    return list_yaml("search_spaces")


def load_space(name_or_file: str | Path) -> SearchSpace:
    """Read a shipped space by name, or a YAML file.

    Raises:
        SpaceError: No such space or file, or its content is wrong.
    """
    path = find_yaml("search_spaces", str(name_or_file), SpaceError)
    return SearchSpace.from_dict(path.stem, read_yaml(path, SpaceError), source=str(path))
