"""What a study chooses between: slots, and for each the tokens it may hold, as Optuna's parameters say them.

A slot is a parameter that every trial has, such as ``stage1``, with the parameters that depend on it, such as
``stage1.sge.groups``; a token is one value for each of them. A point is one token's index for each slot: ``(d,)`` integers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from nasattn.space import SearchSpace

Ints = npt.NDArray[np.int64]
Point = tuple[int, ...]
Params = Mapping[str, Any]
MAX_INTEGERS = 64  # values of an integer parameter that is taken as a choice


@dataclass(frozen=True)
class Token:
    """What one slot may hold.

    Attributes:
        params: Optuna's parameters and their values, the slot's own first.
        form: The slot's value: ``sge``.
        options: Names of the other parameters, without what the slots differ in, and their values: ``("groups", 16)``.
    """

    params: tuple[tuple[str, Any], ...]
    form: Any
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Slot:
    """One place of a point.

    Attributes:
        name: Of its parameter.
        tokens: What it may hold, each once.
        aliases: Other parameters that mean one of the tokens, and its index.
    """

    name: str
    tokens: tuple[Token, ...]
    aliases: Mapping[frozenset[tuple[str, Any]], int]

    @cached_property
    def index(self) -> dict[frozenset[tuple[str, Any]], int]:
        """The token that parameters mean."""
        return {**{frozenset(t.params): i for i, t in enumerate(self.tokens)}, **self.aliases}

    @cached_property
    def names(self) -> frozenset[str]:
        """Of all its parameters."""
        return frozenset(name for params in self.index for name, _ in params)


@dataclass(frozen=True)
class Domain:
    """All points of a study.

    Attributes:
        slots: The places.
        distributions: Optuna's, of every parameter.
        baseline: The point that others are changes of, such as no attention anywhere; None where there is none.
    """

    slots: tuple[Slot, ...]
    distributions: Mapping[str, BaseDistribution]
    baseline: Point | None = None

    @cached_property
    def sizes(self) -> Ints:
        """Number of tokens of each slot, ``(d,)``."""
        return np.array([len(s.tokens) for s in self.slots])

    @cached_property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(s.tokens) for s in self.slots)

    def params(self, point: Sequence[int]) -> dict[str, Any]:
        """The parameters of *point*."""
        return {name: value for slot, i in zip(self.slots, point, strict=True) for name, value in slot.tokens[i].params}

    def point(self, params: Params) -> Point | None:
        """The point that *params* mean; None where they lack a slot or hold what is not in the domain."""
        found = []
        for slot in self.slots:
            index = slot.index.get(frozenset((n, params[n]) for n in slot.names if n in params))
            if index is None:
                return None
            found.append(index)
        return tuple(found)

    def points(self) -> Iterator[Point]:
        """Every point."""
        return itertools.product(*(range(n) for n in self.sizes.tolist()))

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Random points, ``(count, d)``, perhaps some of them equal."""
        return rng.integers(0, self.sizes, (count, len(self.slots)))

    def neighbours(self, point: Point) -> list[Point]:
        """All points that differ from *point* in one slot."""
        return [
            (*point[:s], other, *point[s + 1 :]) for s, size in enumerate(self.sizes.tolist()) for other in range(size) if other != point[s]
        ]

    @classmethod
    def of_space(cls, space: SearchSpace) -> Domain:
        """The domain of the parameters under which *space* suggests placements; it also knows the flat ones (see :meth:`SearchSpace.suggest`)."""
        from nasattn.hosts import get_host

        slots, distributions, baseline = [], dict[str, BaseDistribution](), []
        for number, choices in enumerate(space.stages, start=1):
            name = f"stage{number}"
            found: dict[Any, Token] = {}
            aliases = {}
            for choice in choices:
                for values, attention in choice.combinations():
                    canonical = get_host(space.host).attention(attention, number)
                    options = tuple((f"{name}.{choice.name}.{k}", v) for k, v in values.items())
                    found.setdefault(canonical, Token(((name, choice.name), *options), choice.name, tuple(values.items())))
                    index = list(found).index(canonical)
                    aliases[frozenset(((name, choice.name), *options))] = index
                    aliases[frozenset({(f"{name}.token", str(canonical))})] = index
                distributions |= {f"{name}.{choice.name}.{k}": CategoricalDistribution(v) for k, v in choice.options}
            slots.append(Slot(name, tuple(found.values()), aliases))
            distributions[name] = CategoricalDistribution([c.name for c in choices])
            baseline.append(next((i for i, a in enumerate(found) if a.form == "none"), None))
        known = tuple(i for i in baseline if i is not None)
        return cls(tuple(slots), distributions, known if len(known) == len(slots) else None)

    @classmethod
    def of_trials(cls, trials: Sequence[FrozenTrial]) -> Domain | None:
        """What finished *trials* show of a study's parameters; None where they share none that is a choice.

        A parameter that only some trials have depends on the one whose values tell the trials that have it from the others.
        Parameters that are neither choices nor short ranges of integers, or whose dependence the trials do not show, are
        left out: they are drawn independently.
        """
        distributions = {n: d for t in trials for n, d in t.distributions.items() if _choices(d) is not None}
        having = {n: [n in t.params for t in trials] for n in distributions}
        roots = [n for n, has in having.items() if all(has)]
        parents = {n: p for n in having if n not in roots and (p := _parent(n, having, trials)) is not None}
        slots = [_slot(root, distributions, parents, roots) for root in roots]
        kept = {n for slot in slots for token in slot.tokens for n, _ in token.params}
        return cls(tuple(slots), {n: distributions[n] for n in kept}) if slots else None


def _choices(distribution: BaseDistribution) -> tuple[Any, ...] | None:
    """The values of a choice or of a short range of integers; None for others, and for a choice of one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution) and (distribution.high - distribution.low) // distribution.step < MAX_INTEGERS:
        return tuple(range(distribution.low, distribution.high + 1, distribution.step))
    return None


def _parent(name: str, having: Mapping[str, list[bool]], trials: Sequence[FrozenTrial]) -> tuple[str, frozenset[Any]] | None:
    """The parameter that *name* depends on, and its values with which *name* is there. The one of the most similar name wins."""
    found = []
    for other, has in having.items():
        if other == name or any(mine and not its for mine, its in zip(having[name], has, strict=True)):
            continue
        both = [(t.params[other], mine) for t, mine, its in zip(trials, having[name], has, strict=True) if its]
        with_it, without = {v for v, mine in both if mine}, {v for v, mine in both if not mine}
        if without and not with_it & without:
            found.append((_common(name, other), other, frozenset(with_it)))
    return max(found, key=lambda f: f[0])[1:] if found else None


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _slot(
    root: str, distributions: Mapping[str, BaseDistribution], parents: Mapping[str, tuple[str, frozenset[Any]]], roots: list[str]
) -> Slot:
    def grow(name: str, value: Any) -> Iterator[tuple[tuple[str, Any], ...]]:
        children = [n for n, (parent, values) in parents.items() if parent == name and value in values]
        branches = [[b for v in _choices(distributions[n]) or () for b in grow(n, v)] for n in children]
        for combination in itertools.product(*branches):
            yield ((name, value), *(pair for branch in combination for pair in branch))

    tokens = []
    for value in _choices(distributions[root]) or ():
        for params in grow(root, value):
            tokens.append(Token(params, value, tuple((n.removeprefix(root), v) for n, v in params[1:])))
    return Slot(root, tuple(tokens), {})
