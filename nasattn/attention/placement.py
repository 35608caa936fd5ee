"""A placement: one attention per stage of a host, ``none,sge_g32,ela_l,lka_k21_d3``. The string is the identity everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nasattn.attention.token import Attention
from nasattn.errors import TokenError


@dataclass(frozen=True)
class Placement:
    """One attention per stage.

    Attributes:
        attentions: In the order of the host's stages.
    """

    attentions: tuple[Attention, ...]

    @classmethod
    def parse(cls, text: str | Sequence[str | Attention] | Placement, stages: int | None = None) -> Placement:
        """Read ``"none,sge_g32,ela_l,lka_k21_d3"`` or the list of its tokens.

        Args:
            text: The placement. One token alone means the same attention in every stage when *stages* is given.
            stages: The number of stages that the host has; None accepts any number.

        Raises:
            TokenError: A token cannot be read, or the number of tokens is not *stages*.
        """
        if isinstance(text, Placement):
            placement = text
        else:
            tokens: Sequence[str | Attention] = [t.strip() for t in text.split(",")] if isinstance(text, str) else text
            if not isinstance(tokens, (list, tuple)) or not tokens:
                raise TokenError(f"a placement is a string such as 'none,sge_g32,none,none' or a list of tokens, got {text!r}")
            placement = cls(tuple(Attention.parse(t) for t in tokens))
        if stages is not None and len(placement.attentions) == 1 < stages:
            placement = cls(placement.attentions * stages)
        if stages is not None and len(placement.attentions) != stages:
            raise TokenError(
                f"placement {str(placement)!r} has {len(placement.attentions)} tokens, the host has {stages} stages; give one token a stage"
            )
        return placement

    @property
    def is_plain(self) -> bool:
        """Whether every stage stays as it is."""
        return all(a.form == "none" for a in self.attentions)

    def __iter__(self) -> Iterator[Attention]:
        return iter(self.attentions)

    def __len__(self) -> int:
        return len(self.attentions)

    def __str__(self) -> str:
        return ",".join(map(str, self.attentions))

    def __repr__(self) -> str:
        return f"Placement.parse({str(self)!r})"
