"""Where inside a stage an attention sits: in which blocks, at which position of a block, shared or not.

Written behind a token as words that begin with ``@``: ``fsla_c49@last``, ``ela_l@mid``, ``sge_g64@shared``, and together
``sge_g64@b0101@mid@shared``. No word: in every block, at the host's own position, each block with its own parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nasattn.errors import TokenError, did_you_mean

BLOCKS = ("every", "last", "odd", "even")
POSITIONS = ("out", "mid")
WORDS = (*BLOCKS, *POSITIONS, "shared")


@dataclass(frozen=True)
class Where:
    """The place of an attention inside a stage.

    Attributes:
        blocks: ``every``; ``last``; ``odd``: the first, third, ...; ``even``: the second, fourth, ...; or a mask with one
            digit a block, ``b0110``.
        position: ``out``: after the block's last convolution, before the residual is added; ``mid``: after its spatial
            convolution. Empty: where the host has it.
        shared: The blocks that carry the attention share one set of its parameters.
    """

    blocks: str = "every"
    position: str = ""
    shared: bool = False

    def __post_init__(self) -> None:
        if self.blocks not in BLOCKS and not re.fullmatch(r"b[01]+", self.blocks):
            raise TokenError(
                f"blocks {self.blocks!r}: allowed: {', '.join(BLOCKS)}, or a mask with one digit a block from the first on, such as b0101"
            )
        if self.blocks.startswith("b") and "1" not in self.blocks:
            raise TokenError(f"blocks {self.blocks!r}: no block carries the attention; write `none` for that")
        if self.position and self.position not in POSITIONS:
            raise TokenError(f"position {self.position!r}: {did_you_mean(self.position, POSITIONS)}allowed: {', '.join(POSITIONS)}")

    @classmethod
    def parse(cls, words: list[str], token: str) -> Where:
        """Read the words behind the ``@`` of *token*. Raises TokenError for unknown or contradicting ones."""
        found: dict[str, str] = {}
        for word in words:
            kind = "shared" if word == "shared" else "position" if word in POSITIONS else "blocks"
            if kind == "blocks" and re.fullmatch(r"[01]+", word):
                word = f"b{word}"
            if kind == "blocks" and word not in BLOCKS and not re.fullmatch(r"b[01]+", word):
                raise TokenError(
                    f"token {token!r}: unknown place '@{word}': {did_you_mean(word, WORDS)}"
                    f"allowed: {', '.join('@' + w for w in WORDS)}, or a block mask such as @b0101"
                )
            if kind in found:
                raise TokenError(f"token {token!r}: '@{found[kind]}' and '@{word}' both say the {kind}; give one")
            found[kind] = word
        try:
            return cls(found.get("blocks", "every"), found.get("position", ""), "shared" in found)
        except TokenError as error:
            raise TokenError(f"token {token!r}: {error}") from None

    def carriers(self, blocks: int) -> tuple[int, ...]:
        """The indices, from 0, of the blocks that carry the attention in a stage of *blocks* blocks.

        Raises:
            TokenError: A mask of another length, or no block left.
        """
        if self.blocks.startswith("b"):
            if len(self.blocks) - 1 != blocks:
                raise TokenError(
                    f"the mask '@{self.blocks}' has {len(self.blocks) - 1} digits, the stage has {blocks} blocks; give one a block"
                )
            return tuple(i for i in range(blocks) if self.blocks[i + 1] == "1")
        chosen = {"every": range(blocks), "last": range(blocks - 1, blocks), "odd": range(0, blocks, 2), "even": range(1, blocks, 2)}
        if not chosen[self.blocks]:
            raise TokenError(f"'@{self.blocks}' leaves no block in a stage of {blocks}; use @every or @last")
        return tuple(chosen[self.blocks])

    def canonical(self, blocks: int, default_position: str) -> Where:
        """The one way to say this for a stage of *blocks* blocks: words without effect are dropped, masks named."""
        chosen = self.carriers(blocks)
        return Where(
            blocks=name_blocks(chosen, blocks),
            position="" if self.position == default_position else self.position,
            shared=self.shared and len(chosen) > 1,
        )

    def reduced(self, blocks: int, kept: int) -> Where:
        """This for a proxy that keeps *kept* of the stage's *blocks* blocks.

        Each block of the proxy stands for a run of the host's, the last one for a run that ends with the stage, and
        carries the attention if any block of its run does.
        """
        chosen = self.carriers(blocks)
        ends = [-(-(i + 1) * blocks // kept) for i in range(kept)]
        runs = zip([0, *ends[:-1]], ends, strict=True)
        carrying = tuple(i for i, (start, end) in enumerate(runs) if any(start <= c < end for c in chosen))
        return replace(self, blocks=name_blocks(carrying, kept), shared=self.shared and len(carrying) > 1)

    def __str__(self) -> str:
        words = [
            *([self.blocks] if self.blocks != "every" else []),
            *([self.position] if self.position else []),
            *(["shared"] * self.shared),
        ]
        return "".join(f"@{w}" for w in words)


EVERYWHERE = Where()


def name_blocks(carriers: tuple[int, ...], blocks: int) -> str:
    """The shortest name of a set of block indices: ``every``, ``last``, ``odd``, ``even`` or a mask."""
    for name in BLOCKS:
        if (name != "even" or blocks > 1) and Where(name).carriers(blocks) == carriers:
            return name
    return "b" + "".join("1" if i in carriers else "0" for i in range(blocks))
