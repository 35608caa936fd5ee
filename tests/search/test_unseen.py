"""Placements that a study has not seen: every one of them, none twice, and the plain ones first where little is allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nasattn.attention import Placement
from nasattn.search.unseen import draw_unseen
from nasattn.space import SearchSpace, load_space

SPACE = SearchSpace.from_dict(
    "small", {"host": "nasattn_resnet18", "stages": {1: {"none": None, "se": None, "eca": None}, 2: {"none": None, "gc": None}, "all": {"none": None, "ela_t": None}}}
)  # fmt: skip
ALL = {str(p) for p in SPACE.placements()}
PLAIN = "none,none,none,none"


def anything(_placement: Placement) -> bool:
    return False


def draw_all(
    space: SearchSpace, is_ruled_out: Callable[[Placement], bool] = anything, thrift: float = 0.0, seed: tuple[int, ...] = (0,)
) -> list[str]:
    """Draw until nothing is left."""
    seen: list[str] = []
    while (placement := draw_unseen(space, seen, is_ruled_out, (*seed, len(seen)), thrift)) is not None:
        assert str(placement) not in seen and placement in space and not is_ruled_out(placement)
        seen.append(str(placement))
        assert len(seen) <= space.size
    return seen


@pytest.mark.parametrize("thrift", [0.0, 0.5, 1.0])
def test_a_small_space_is_gone_through_whole(thrift: float) -> None:
    assert len(ALL) == SPACE.size == 24
    assert set(draw_all(SPACE, thrift=thrift)) == ALL


@pytest.mark.parametrize("thrift", [0.0, 1.0])
def test_what_is_ruled_out_is_never_given(thrift: float) -> None:
    def is_ruled_out(placement: Placement) -> bool:
        return "gc" in str(placement) or str(placement).endswith("none")

    assert set(draw_all(SPACE, is_ruled_out, thrift)) == {p for p in ALL if "gc" not in p and not p.endswith("none")}


def test_the_only_one_that_is_allowed_is_found() -> None:
    """One of 83,521."""
    space = load_space("resnet50_stages")
    only = Placement(tuple(offered[-1] for offered in space.tokens))
    asked: list[Placement] = []

    def is_ruled_out(placement: Placement) -> bool:
        asked.append(placement)
        return placement != only

    assert draw_unseen(space, [], is_ruled_out, (0,)) == only
    assert len(asked) <= space.size + 200


@pytest.mark.parametrize("seen", [ALL, sorted(ALL)])
def test_an_exhausted_space_gives_none(seen: list[str]) -> None:
    assert draw_unseen(SPACE, seen, anything, (0,)) is None
    assert draw_unseen(SPACE, [], lambda _: True, (0,)) is None


def test_one_seed_gives_one_draw() -> None:
    draws = [str(draw_unseen(SPACE, {PLAIN}, anything, (3, number))) for number in range(30)]
    assert draws == [str(draw_unseen(SPACE, {PLAIN}, anything, (3, number))) for number in range(30)]
    assert len(set(draws)) > 5  # and others give others
    assert draw_all(SPACE, seed=(1,)) == draw_all(SPACE, seed=(1,)) != draw_all(SPACE, seed=(2,))


def test_without_thrift_every_attention_is_as_likely_as_another() -> None:
    draws = [draw_unseen(SPACE, [], anything, (number,)) for number in range(600)]
    first = [str(p).split(",")[0] for p in draws]
    assert all(150 < first.count(token) < 250 for token in ("none", "se", "eca"))


def test_thrift_gives_the_plainest_first() -> None:
    assert str(draw_unseen(SPACE, [], anything, (0,), thrift=1.0)) == PLAIN

    def attentions(thrift: float) -> int:
        drawn = [draw_unseen(SPACE, {PLAIN}, anything, (number,), thrift) for number in range(200)]
        return sum(str(p).count(",") + 1 - str(p).split(",").count("none") for p in drawn)

    assert attentions(1.0) < attentions(0.8) < attentions(0.4) < attentions(0.0)


def test_thrift_where_a_stage_does_not_offer_none() -> None:
    space = SearchSpace.from_dict(
        "full", {"host": "nasattn_resnet18", "stages": {1: {"se": None, "eca": None}, "all": {"none": None, "gc": None}}}
    )
    drawn = {str(draw_unseen(space, [], anything, (number,), thrift=1.0)) for number in range(40)}
    assert drawn == {"se,none,none,none", "eca,none,none,none"}
    assert len(draw_all(space, thrift=1.0)) == space.size == 16
