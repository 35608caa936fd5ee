"""Tokens: the short strings that name one configured attention, and the registry they are read by.

A token is ``name`` followed by ``_<letter><integer>`` options: ``sge_g32``, ``lka_k21_d3``. Options that are left out
take the paper's values. Words behind ``@`` say where inside the stage it sits (see :mod:`nasattn.attention.where`).
``str(Attention.parse(t))`` is the canonical form and parses back to the same attention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from torch import nn

from nasattn.attention.where import EVERYWHERE, Where
from nasattn.errors import TokenError, did_you_mean

LARGEST = 999_999  # value of an option: a token has at most six digits
Form = Literal["gate", "branch", "widening", "none"]


@dataclass(frozen=True)
class Option:
    """One integer option of an attention.

    Attributes:
        letter: The letter in the token: ``g`` in ``sge_g32``.
        keyword: The keyword of the module's constructor: ``groups``. Space files use this name.
        default: The paper's value. None: derived from the other options or the channels by the module.
        minimum: The smallest value allowed.
        shown: Printed in the canonical token even at its default.
        counts_groups: The value is a number of groups of channels, so it scales with a proxy's width.
        derived: Gives the value that None stands for from the other options, so that naming it changes nothing.
    """

    letter: str
    keyword: str
    default: int | None
    minimum: int = 1
    shown: bool = False
    counts_groups: bool = False
    derived: Callable[[Mapping[str, int | None]], int] | None = None


@dataclass(frozen=True)
class Definition:
    """What the registry knows of an attention.

    Attributes:
        name: The first word of the token.
        build: ``build(channels, **options, device=None, dtype=None) -> nn.Module``.
        options: The options, in canonical order.
        form: How a host inserts it: ``gate`` replaces the features by ``f(x)``, ``branch`` adds them, ``x + f(x)``,
            ``widening`` gives extra channels beside the block's spatial convolution.
        paper: Title and arXiv id.
        variants: Names for sets of options: ``{"t": {"kernel": 5, ...}}`` lets ``ela_t`` stand for them.
        needs_variant: The bare name is refused with this message.
        check: ``check(channels, options)`` returns what is wrong, or None.
    """

    name: str
    build: Callable[..., nn.Module]
    options: tuple[Option, ...] = ()
    form: Form = "gate"
    paper: str = ""
    variants: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    needs_variant: str = ""
    check: Callable[[int, Mapping[str, int | None]], str | None] | None = None


_REGISTRY: dict[str, Definition] = {}


def register_attention(name: str, **definition: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: makes ``cls(channels, **options, device=None, dtype=None)`` known as the token *name*.

    Args:
        name: The token's first word: lower-case letters and digits, starting with a letter.
        **definition: The other fields of :class:`Definition`.

    Raises:
        TokenError: The name is malformed or taken.
    """

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        add_definition(Definition(name=name, build=cls, **definition))
        return cls

    return register


def add_definition(definition: Definition) -> None:
    """Add *definition* to the registry. Raises TokenError when its name is malformed or taken."""
    if not re.fullmatch(r"[a-z][a-z0-9]*", definition.name):
        raise TokenError(f"attention name {definition.name!r}: use lower-case letters and digits, starting with a letter")
    if definition.name in _REGISTRY:
        raise TokenError(f"attention {definition.name!r} is registered already: choose another name")
    _REGISTRY[definition.name] = definition


def definitions() -> dict[str, Definition]:
    """All registered attentions by name, in order of registration."""
    return dict(_REGISTRY)


@dataclass(frozen=True)
class Attention:
    """One configured attention: a name and the values of its options.

    Attributes:
        name: A registered name, or ``none``.
        options: ``(keyword, value)`` pairs in the definition's order. A value of None is derived by the module.
        where: In which blocks of its stage it sits, and how.
    """

    name: str
    options: tuple[tuple[str, int | None], ...] = ()
    where: Where = EVERYWHERE

    @classmethod
    def parse(cls, token: str | Attention) -> Attention:
        """Read a token such as ``sge_g32`` or ``sge_g32@last``.

        Raises:
            TokenError: Unknown name or option, or a value out of range; the message says what is allowed.
        """
        if isinstance(token, Attention):
            return token
        if not isinstance(token, str):
            raise TokenError(f"a token is a string such as 'sge_g32', got {token!r}")
        return _parse(token)

    @classmethod
    def make(cls, name: str, **options: int) -> Attention:
        """Build from a registered name or variant (``ela_t``) and options by keyword; the rest takes the paper's values.

        Raises:
            TokenError: Unknown name or option, or a value out of range.
        """
        base, _, variant = name.partition("_")
        definition = _lookup(base, name)
        values: dict[str, int | None] = {o.keyword: o.default for o in definition.options}
        if variant:
            if variant not in definition.variants:
                raise TokenError(_unknown_option(name, definition, variant))
            values.update(definition.variants[variant])
        elif definition.needs_variant and not options:
            raise TokenError(definition.needs_variant)
        known = {o.keyword: o for o in definition.options}
        for keyword, value in options.items():
            if keyword not in known:
                raise TokenError(
                    f"attention {name!r} has no option {keyword!r}: {did_you_mean(keyword, known)}allowed: {', '.join(known) or 'none'}"
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < known[keyword].minimum:
                raise TokenError(f"attention {name!r}: option {keyword!r} must be an integer >= {known[keyword].minimum}, got {value!r}")
            if value > LARGEST:
                raise TokenError(f"attention {name!r}: option {keyword!r} must be an integer <= {LARGEST}, got {value}")
            values[keyword] = value
        for option in definition.options:
            if option.derived is not None and values[option.keyword] == option.derived(values):
                values[option.keyword] = None
        attention = cls(definition.name, tuple(values.items()))
        if definition.check is not None and (wrong := definition.check(0, values)):
            raise TokenError(f"attention {attention}: {wrong}")
        return attention

    @property
    def definition(self) -> Definition:
        return _REGISTRY[self.name]

    @property
    def form(self) -> Form:
        return self.definition.form

    def placed(self, where: Where) -> Attention:
        """The same attention at another place of its stage. Raises TokenError for ``none``, which has no place."""
        if self.form == "none" and where != EVERYWHERE:
            raise TokenError(f"token '{self.name}{where}': {self.name!r} inserts nothing, so it takes no place; write {self.name!r}")
        return replace(self, where=where)

    def problem(self, channels: int) -> str | None:
        """What keeps this attention from being built for *channels* channels, or None."""
        check = self.definition.check
        return check(channels, dict(self.options)) if check is not None else None

    def scaled(self, width: float, channels: int) -> Attention:
        """This attention for a proxy of *width* times the channels.

        The rule: a number of groups is multiplied by the width, so that each group keeps its channels, then moved to
        the nearest divisor of the proxy's *channels* (the smaller of two equally near), at least 1. Nothing else
        changes: kernel sizes, dilations, cluster sizes and channels per group do not count channels.
        """
        counted = {o.keyword for o in self.definition.options if o.counts_groups}
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]

        def scale(keyword: str, value: int | None) -> int | None:
            if keyword not in counted or value is None:
                return value
            return min(divisors, key=lambda d: abs(d - value * width))

        return replace(self, options=tuple((k, scale(k, v)) for k, v in self.options))

    def __str__(self) -> str:
        return f"{self.module_token}{self.where}"

    @property
    def module_token(self) -> str:
        """The canonical token without its place: what the module is, wherever it sits."""
        values = dict(self.options)
        for variant, fixed in self.definition.variants.items():
            if all(values[k] == v for k, v in fixed.items()):
                rest = [o for o in self.definition.options if o.keyword not in fixed]
                return "_".join([self.name, variant, *_print_options(rest, values)])
        return "_".join([self.name, *_print_options(self.definition.options, values)])

    def __repr__(self) -> str:
        return f"Attention.parse({str(self)!r})"


def _print_options(options: Any, values: Mapping[str, int | None]) -> list[str]:
    return [
        f"{o.letter}{values[o.keyword]}" for o in options if values[o.keyword] is not None and (o.shown or values[o.keyword] != o.default)
    ]


@cache
def _parse(token: str) -> Attention:
    module, *places = token.split("@")
    name, *words = module.split("_")
    definition = _lookup(name, token)
    letters = {o.letter: o.keyword for o in definition.options}
    options: dict[str, int] = {}
    variant = f"_{words.pop(0)}" if words and words[0] in definition.variants else ""
    for word in words:
        match = re.fullmatch(r"([a-z]+)(0|[1-9][0-9]{0,5})", word)
        if match is None or match[1] not in letters:
            raise TokenError(_unknown_option(token, definition, word))
        if letters[match[1]] in options:
            raise TokenError(f"token {token!r}: option {match[1]!r} is given twice; give it once")
        options[letters[match[1]]] = int(match[2])
    attention = Attention.make(name + variant, **options)
    return attention.placed(Where.parse(places, token)) if places else attention


def _lookup(name: str, token: str) -> Definition:
    if name not in _REGISTRY:
        raise TokenError(
            f"unknown attention {token!r}: {did_you_mean(name, _REGISTRY)}allowed: {', '.join(_REGISTRY)}; `nasattn attentions` describes them"
        )
    return _REGISTRY[name]


def _unknown_option(token: str, definition: Definition, word: str) -> str:
    allowed = [*definition.variants, *(f"{o.letter}<integer> ({o.keyword})" for o in definition.options)]
    return f"token {token!r}: {word!r} is not an option of {definition.name!r}; allowed: {', '.join(allowed) or 'no options'}"
