"""What a study could choose in each stage, and its placements as points of that grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from nasattn.attention import Attention
from nasattn.errors import NasattnError
from nasattn.front import is_plain
from nasattn.search.sampling.domain import Domain, Point, Slot, Token
from nasattn.space import SearchSpace
from nasattn.store import StudyRecord

NONE = "none"


@dataclass(frozen=True)
class Choices:
    """The tokens of each stage.

    Attributes:
        tokens: By stage, ``none`` first, whether or not the space offers it: it is what gains are counted from.
        size: Number of placements of the space; None where the space cannot be read any more.
    """

    tokens: tuple[tuple[str, ...], ...]
    size: int | None = None

    @classmethod
    def of(cls, record: StudyRecord, placements: Iterable[str]) -> Choices:
        """The choices of a study's space and those of its *placements*; of a space that this installation cannot read, the latter alone."""
        seen = [p.split(",") for p in placements]
        try:
            space = SearchSpace.from_dict(str(record.config.get("space_name", "")), record.config["space"])
        except NasattnError:
            offered: list[list[str]] = [[] for _ in range(max(map(len, seen), default=0))]
            size = None
        else:
            offered, size = [[str(a) for a in stage] for stage in space.tokens], space.size
        stages = enumerate(offered)
        return cls(
            tuple(tuple(dict.fromkeys([NONE, *tokens, *(p[i] for p in seen if len(p) == len(offered))])) for i, tokens in stages), size
        )

    @cached_property
    def domain(self) -> Domain:
        """The same for the samplers' model of accuracy."""
        slots = []
        for number, tokens in enumerate(self.tokens, start=1):
            name = f"stage{number}"
            made = [Token(((name, t),), family_of(t), _options(t)) for t in tokens]
            slots.append(Slot(name, tuple(made), {}))
        return Domain(tuple(slots), {}, tuple(0 for _ in slots))

    @cached_property
    def _index(self) -> list[dict[str, int]]:
        return [{t: i for i, t in enumerate(tokens)} for tokens in self.tokens]

    def point(self, placement: str) -> Point | None:
        """A placement's tokens as indices; None for one of another grid."""
        tokens = placement.split(",")
        if len(tokens) != len(self.tokens) or any(t not in index for t, index in zip(tokens, self._index, strict=True)):
            return None
        return tuple(index[t] for t, index in zip(tokens, self._index, strict=True))

    @cached_property
    def all_tokens(self) -> list[str]:
        """Every token of any stage but ``none``, in the order of the stages."""
        return [t for t in dict.fromkeys(t for tokens in self.tokens for t in tokens) if t != NONE]


def family_of(token: str) -> str:
    """``ela`` for ``ela_s_k7@mid``: what tokens of a kind have in common, and what has a colour of its own."""
    return token.partition("_")[0].partition("@")[0]


def is_uniform(placement: str) -> bool:
    """Whether every stage carries the same attention, and not none."""
    return len(set(placement.split(","))) == 1 and not is_plain(placement)


def _options(token: str) -> tuple[tuple[str, object], ...]:
    try:
        attention = Attention.parse(token)
    except NasattnError:
        return ()
    return (*attention.options, *(("where", word) for word in token.split("@")[1:]))
