"""Tokens and placements: what they read, how they print, and what their errors tell."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nasattn.attention import Attention, Placement, create_attention, list_attention, parse
from nasattn.attention import token as token_module
from nasattn.attention.token import Option, register_attention
from nasattn.errors import NasattnError, TokenError

CANONICAL = {
    "none": "none",
    "sb": "sb",
    "sb_p10_k3_m3": "sb",
    "sb_p6": "sb_p6",
    "sb_m2_p6": "sb_p6_m2",
    "sge": "sge_g64",
    "sge_g32": "sge_g32",
    "ela_t": "ela_t",
    "ela_k5_c1_n32": "ela_t",
    "ela_n16_c1_k7": "ela_b",
    "ela_k5_c8_n16": "ela_s",
    "ela_k7": "ela_l",
    "ela_t_n16": "ela_k5_c1_n16",
    "lka": "lka_k21_d3",
    "lka_d2_k7": "lka_k7_d2",
    "fsla": "fsla_c49",
    "fsla_h4_c25": "fsla_c25_h4",
    "fsla_i3_o0": "fsla_c49_o0_i3",
    "se": "se",
    "cbam": "cbam",
}


@pytest.mark.parametrize(("token", "canonical"), CANONICAL.items())
def test_canonical_form_parses_back(token: str, canonical: str) -> None:
    attention = Attention.parse(token)
    assert str(attention) == canonical
    assert Attention.parse(canonical) == attention
    assert hash(Attention.parse(canonical)) == hash(attention)
    assert Attention.parse(attention) is attention


@pytest.mark.parametrize("token", list_attention())
def test_every_listed_name_is_a_token(token: str) -> None:
    attention = Attention.parse(token)
    assert Attention.parse(str(attention)) == attention
    assert eval(repr(attention), {"Attention": Attention}) == attention
    assert pickle.loads(pickle.dumps(attention)) == attention
    assert attention.form in ("gate", "branch", "widening", "none")
    assert attention.definition.paper


def test_make_takes_keywords() -> None:
    assert str(Attention.make("sge", groups=16)) == "sge_g16"
    assert str(Attention.make("ela_t", kernel=7)) == "ela_k7_c1_n32"
    assert Attention.make("lka") == Attention.parse("lka_k21_d3")


def test_bare_ela_is_refused_and_timms_is_named() -> None:
    with pytest.raises(TokenError, match=r"ela_t, ela_b, ela_s and ela_l.*timm's own `ela` is another module"):
        Attention.parse("ela")


@pytest.mark.parametrize(
    ("token", "suggestion"), [("sgee_g32", "'sge'"), ("elaa", "'ela'"), ("lkaa_k7", "'lka'"), ("fslaa", "'fsla'"), ("coordd", "'coord'")]
)
def test_unknown_names_suggest_the_closest(token: str, suggestion: str) -> None:
    with pytest.raises(TokenError, match=f"unknown attention '{token}': Did you mean {suggestion}.*allowed: .*sge"):
        Attention.parse(token)


BAD = {
    "sge_g0": "'groups' must be an integer >= 1, got 0",
    "sge_x3": "'x3' is not an option of 'sge'; allowed: g<integer> (groups)",
    "sge_g32_g32": "'g' is given twice",
    "sge_g": "'g' is not an option",
    "sge_32": "'32' is not an option",
    "sge_": "'' is not an option",
    "sge_g-1": "'g-1' is not an option",
    "sge_g032": "'g032' is not an option",
    "sge_g3.5": "'g3.5' is not an option",
    "sge_g32 ": "'g32 ' is not an option",
    "sge_g\u0663": "is not an option",
    "sge_g32\n": "is not an option",
    "none_g1": "allowed: no options",
    "se_r4": "allowed: no options",
    "lka_k2_d3": "dilation 3 must be smaller than the kernel 2",
    "lka_k3_d3": "dilation 3 must be smaller than the kernel 3",
    "lka_k1": "'kernel' must be an integer >= 2, got 1",
    "ela_k4": "kernel 4 is even; use an odd kernel",
    "ela_x": "allowed: t, b, s, l, k<integer> (kernel)",
    "ela_t_b": "'b' is not an option",
    "fsla_c10_o11": "overlap 11 is larger than the cluster of 10",
    "": "unknown attention ''",
    "_": "unknown attention '_'",
    "SGE": "unknown attention 'SGE'",
}


@pytest.mark.parametrize(("token", "message"), BAD.items())
def test_bad_tokens_are_refused_in_one_line(token: str, message: str) -> None:
    with pytest.raises(TokenError) as caught:
        Attention.parse(token)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NasattnError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("token", [None, 3, 3.5, True, b"sge", ["sge"], ("sge", 32), {"name": "sge"}, object()])
def test_non_strings_are_refused(token: object) -> None:
    with pytest.raises(TokenError, match="a token is a string such as 'sge_g32', got"):
        Attention.parse(token)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sge", {"group": 3}, "no option 'group': Did you mean 'groups'"),
        ("sge", {"groups": True}, "must be an integer >= 1, got True"),
        ("sge", {"groups": 2.0}, "must be an integer >= 1, got 2.0"),
        ("none", {"groups": 2}, "allowed: none"),
        ("ela_q", {}, "'q' is not an option of 'ela'"),
    ],
)
def test_make_refuses_bad_options(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(TokenError, match=message):
        Attention.make(name, **options)


@pytest.mark.parametrize(
    ("token", "channels", "message"),
    [
        ("sge_g48", 64, "48 groups do not divide 64 channels; allowed: 1, 2, 4, 8, 16, 32, 64"),
        ("sge", 2520, r"allowed: 1, 2, 3, 4, 5, 6, \.\.\., 840, 1260, 2520"),
        ("ela_t", 48, "32 norm groups do not divide 48 channels"),
        ("ela_l_n4", 20, "20 channels cannot be cut into convolution groups of 8; use a multiple of 8"),
        ("fsla_h5", 64, "5 heads do not divide 64 channels"),
        ("sge_g1", 0, "channels must be an integer >= 1, got 0"),
        ("none", True, "channels must be an integer >= 1, got True"),
        ("sb", 1.5, "channels must be an integer >= 1, got 1.5"),
    ],
)
def test_attentions_that_do_not_fit_the_channels(token: str, channels: int, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        create_attention(token, channels)


@pytest.mark.parametrize(
    ("token", "width", "channels", "scaled"),
    [
        ("sge_g64", 0.125, 32, "sge_g8"),
        ("sge_g64", 1.0, 256, "sge_g64"),
        ("sge_g64", 0.1, 24, "sge_g6"),  # 6.4: the nearest divisor of 24
        ("sge_g6", 0.5, 8, "sge_g2"),  # 3 lies between the divisors 2 and 4
        ("sge_g8", 0.0625, 4, "sge_g1"),  # never less than one
        ("ela_t", 0.25, 64, "ela_k5_c1_n8"),
        ("ela_l", 0.125, 32, "ela_k7_c8_n2"),
        ("fsla_c25_h4", 0.25, 16, "fsla_c25_h1"),
        ("fsla", 0.25, 16, "fsla_c49"),
        ("lka_k7_d2", 0.25, 16, "lka_k7_d2"),
        ("sb_p6", 0.25, 16, "sb_p6"),
        ("none", 0.25, 16, "none"),
    ],
)
def test_only_numbers_of_groups_scale_with_the_width(token: str, width: float, channels: int, scaled: str) -> None:
    attention = Attention.parse(token).scaled(width, channels)
    assert str(attention) == scaled
    assert attention.problem(channels) is None


def test_placement_reads_strings_lists_and_single_tokens() -> None:
    placement = Placement.parse("none, sge,ela_k5_c1_n32 ,lka", stages=4)
    assert str(placement) == "none,sge_g64,ela_t,lka_k21_d3"
    assert Placement.parse(["none", "sge", Attention.parse("ela_t"), "lka"], stages=4) == placement
    assert Placement.parse(str(placement)) == placement
    assert Placement.parse(placement, stages=4) is placement
    assert eval(repr(placement), {"Placement": Placement}) == placement
    assert len(placement) == 4 and [a.name for a in placement] == ["none", "sge", "ela", "lka"]
    assert str(Placement.parse("sb", stages=3)) == "sb,sb,sb"
    assert str(Placement.parse("sb")) == "sb"
    assert Placement.parse("none", stages=4).is_plain and not placement.is_plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none,none,none", "'none,none,none' has 3 tokens, the host has 4 stages; give one token a stage"),
        ("none,none,none,none,sge_g8", "has 5 tokens, the host has 4 stages"),
        (["none", "sge"], "has 2 tokens"),
        ("none,,none,none", "unknown attention ''"),
        ("", "unknown attention ''"),
        ("none,sgee,none,none", "Did you mean 'sge'"),
        (["none", 3, "none", "none"], "a token is a string"),
        ([], r"a placement is a string such as .* got \[\]"),
        (None, "a placement is a string such as .* got None"),
        (7, "got 7"),
    ],
)
def test_placement_errors(text: object, message: str) -> None:
    with pytest.raises(TokenError, match=message) as caught:
        Placement.parse(text, stages=4)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.fixture
def own_name() -> Iterator[str]:
    name = "scaletest"
    yield name
    token_module._REGISTRY.pop(name, None)
    token_module._parse.cache_clear()


def test_an_own_attention_is_registered_by_the_decorator(own_name: str) -> None:
    @register_attention(own_name, options=(Option("s", "scale", 2, shown=True),), paper="a test")
    class Scale(nn.Module):
        def __init__(self, channels: int, scale: int = 2, device: object = None, dtype: object = None) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x

    assert own_name in list_attention()
    assert str(Attention.parse(own_name)) == f"{own_name}_s2"
    x = torch.ones(1, 4, 2, 2)
    assert torch.equal(create_attention(f"{own_name}_s3", 4)(x), 3 * x)
    with pytest.raises(TokenError, match=f"'{own_name}' is registered already: choose another name"):
        register_attention(own_name)(Scale)


@pytest.mark.parametrize("name", ["", "Sge", "my_gate", "2d", "a-b", "sge\n", "é"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(TokenError, match="use lower-case letters and digits, starting with a letter"):
        register_attention(name)(nn.Identity)
    assert name not in list_attention()


def test_taken_names_are_refused() -> None:
    with pytest.raises(TokenError, match="'sge' is registered already"):
        register_attention("sge")(nn.Identity)
    assert isinstance(create_attention("sge_g2", 4), nn.Module) and not isinstance(create_attention("sge_g2", 4), nn.Identity)


def test_parse_is_the_short_form() -> None:
    assert str(parse("lka")) == "lka_k21_d3"
    assert parse(str(parse("ela_k5_c1_n32"))) == Attention.parse("ela_t")
