"""Where inside a stage an attention sits: what tokens say of it, its one canonical form, and what a proxy keeps of it."""

from __future__ import annotations

import pickle

import pytest

from nasattn.attention import Attention, Where, create_attention
from nasattn.errors import TokenError

CANONICAL = {
    "sge@last": "sge_g64@last",
    "ela_l@mid": "ela_l@mid",
    "sge_g64@shared": "sge_g64@shared",
    "fsla_c49@every": "fsla_c49",
    "sge_g32@shared@mid@even": "sge_g32@even@mid@shared",
    "sge_g32@out@b0110": "sge_g32@b0110@out",
    "sge_g32@0110": "sge_g32@b0110",
    "se@odd": "se@odd",
}


@pytest.mark.parametrize(("token", "canonical"), CANONICAL.items())
def test_tokens_with_a_place_read_back(token: str, canonical: str) -> None:
    attention = Attention.parse(token)
    assert str(attention) == canonical
    assert Attention.parse(canonical) == attention
    assert eval(repr(attention), {"Attention": Attention}) == attention
    assert pickle.loads(pickle.dumps(attention)) == attention
    assert attention.module_token == canonical.partition("@")[0]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("sge@first", r"unknown place '@first'.*allowed: @every, @last, @odd, @even, @out, @mid, @shared, or a block mask such as @b0101"),
        ("sge@lst", r"unknown place '@lst': Did you mean 'last'"),
        ("sge@", "unknown place '@'"),
        ("sge@last@even", "'@last' and '@even' both say the blocks; give one"),
        ("sge@mid@out", "'@mid' and '@out' both say the position"),
        ("sge@shared@shared", "both say the shared"),
        ("sge@b000", "no block carries the attention; write `none`"),
        ("none@last", "'none' inserts nothing, so it takes no place"),
    ],
)
def test_a_wrong_place_is_refused(token: str, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        Attention.parse(token)


def test_a_single_module_has_no_place() -> None:
    with pytest.raises(TokenError, match=r"sge_g64@last: a single module has no place in a stage; write 'sge_g64'"):
        create_attention("sge@last", 64)


@pytest.mark.parametrize(
    ("blocks", "stage", "carriers", "name"),
    [
        ("every", 3, (0, 1, 2), "every"),
        ("last", 3, (2,), "last"),
        ("odd", 3, (0, 2), "odd"),
        ("even", 3, (1,), "even"),
        ("b101", 3, (0, 2), "odd"),
        ("b001", 3, (2,), "last"),
        ("b111", 3, (0, 1, 2), "every"),
        ("b110", 3, (0, 1), "b110"),
        ("last", 1, (0,), "every"),
        ("even", 2, (1,), "last"),
    ],
)
def test_each_set_of_blocks_has_one_name(blocks: str, stage: int, carriers: tuple[int, ...], name: str) -> None:
    where = Where(blocks)
    assert where.carriers(stage) == carriers
    assert where.canonical(stage, "out").blocks == name


def test_words_without_effect_are_dropped() -> None:
    assert Where("last", "out", shared=True).canonical(4, "out") == Where("last")
    assert Where("even", "mid", shared=True).canonical(4, "out") == Where("even", "mid", shared=True)
    assert Where("even", "mid").canonical(4, "mid") == Where("even")


def test_blocks_that_a_stage_lacks_are_refused() -> None:
    with pytest.raises(TokenError, match=r"mask '@b0101' has 4 digits, the stage has 3 blocks; give one a block"):
        Where("b0101").carriers(3)
    with pytest.raises(TokenError, match=r"'@even' leaves no block in a stage of 1; use @every or @last"):
        Where("even").carriers(1)


@pytest.mark.parametrize(
    ("blocks", "stage", "kept", "reduced"),
    [
        ("last", 6, 1, "every"),
        ("last", 6, 2, "last"),
        ("even", 6, 2, "every"),
        ("b110000", 6, 2, "odd"),
        ("b110000", 6, 3, "b100"),
        ("b000100", 6, 3, "even"),
        ("every", 6, 4, "every"),
        ("b10110", 5, 5, "b10110"),
    ],
)
def test_a_proxys_block_stands_for_a_run_of_blocks(blocks: str, stage: int, kept: int, reduced: str) -> None:
    where = Where(blocks).reduced(stage, kept)
    assert where.carriers(kept) == Where(reduced).carriers(kept)
