"""Search spaces: the shipped files, drawing placements with Optuna, and what a wrong file is told."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest

from nasattn.attention import Attention, Placement
from nasattn.errors import NasattnError, SpaceError
from nasattn.space import Choice, SearchSpace, list_spaces, load_space

optuna.logging.set_verbosity(optuna.logging.WARNING)

SMALL = """
host: nasattn_resnet18
description: a small one
stages:
  1: {none: , sge: {groups: [8, 16]}}
  "3": {ela_t: , ela_b: {kernel: [5, 9]}}
  all: {none: }
"""


def write(folder: Path, text: str | bytes, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def small(tmp_path: Path) -> SearchSpace:
    return load_space(write(tmp_path, SMALL))


@pytest.mark.parametrize(
    ("name", "host", "groups"),
    [("resnet18_stages", "nasattn_resnet18", (8, 16, 32)), ("resnet50_stages", "nasattn_resnet50", (16, 32, 64))],
)
def test_shipped_spaces(name: str, host: str, groups: tuple[int, ...]) -> None:
    assert name in list_spaces()
    space = load_space(name)
    assert (space.name, space.host) == (name, host)
    assert space.description
    assert space.size == 17**4
    expected = ["none", "sb", *(f"sge_g{g}" for g in groups), "ela_t", "ela_b", "ela_s", "ela_l"]
    expected += [f"lka_k{k}_d{d}" for k in (7, 14, 21) for d in (2, 3)] + ["fsla_c25", "fsla_c49"]
    for stage in space.tokens:
        assert [str(a) for a in stage] == expected
    assert space.plain() in space
    assert Placement.parse(f"none,sge_g{groups[0]},ela_l,lka_k21_d3") in space
    assert Placement.parse("none,sge_g4,ela_l,lka_k21_d3") not in space
    assert Placement.parse("none,none") not in space


def test_a_file_of_ones_own(small: SearchSpace) -> None:
    assert (small.name, small.host, small.description) == ("mine", "nasattn_resnet18", "a small one")
    assert [[str(a) for a in stage] for stage in small.tokens] == [
        ["none", "sge_g8", "sge_g16"],
        ["none"],
        ["ela_t", "ela_k5_c1_n16", "ela_k9_c1_n16"],
        ["none"],
    ]
    assert small.size == 9
    assert small.plain() not in small  # the baseline need not be listed
    assert str(small.plain()) == "none,none,none,none"


def test_to_dict_reads_back(small: SearchSpace) -> None:
    for space in (small, load_space("resnet50_stages")):
        back = SearchSpace.from_dict(space.name, space.to_dict())
        assert (back.host, back.stages, back.size) == (space.host, space.stages, space.size)


def test_one_attention_in_two_spellings_counts_once() -> None:
    choices = (Choice("ela_t"), Choice("ela_b", (("kernel", (5, 7)), ("norm_groups", (16, 32)))))
    space = SearchSpace("double", "nasattn_resnet18", (choices,) * 4)
    assert [str(a) for a in space.tokens[0]] == ["ela_t", "ela_k5_c1_n16", "ela_b", "ela_k7_c1_n32"]
    assert space.size == 4**4


def ask(space: SearchSpace, params: dict[str, object], flat: bool) -> tuple[Placement, dict[str, object]]:
    study = optuna.create_study()
    study.enqueue_trial(params)
    trial = study.ask()
    return space.suggest(trial, flat=flat), trial.params


@pytest.mark.parametrize("flat", [False, True], ids=["conditional", "flat"])
def test_params_are_those_under_which_a_placement_is_drawn(small: SearchSpace, flat: bool) -> None:
    rng = random.Random(0)
    for space in (small, load_space("resnet18_stages"), load_space("resnet50_stages")):
        for _ in range(20):
            placement = Placement(tuple(rng.choice(stage) for stage in space.tokens))
            params = space.params(placement, flat=flat)
            assert ask(space, params, flat) == (placement, params)


@pytest.mark.parametrize("flat", [False, True], ids=["conditional", "flat"])
def test_suggestions_lie_in_the_space_and_reach_all_of_it(small: SearchSpace, flat: bool) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = set()
    for _ in range(150):
        trial = study.ask()
        placement = small.suggest(trial, flat=flat)
        assert placement in small
        assert small.params(placement, flat=flat) == trial.params
        study.tell(trial, 0.0)
        drawn.add(placement)
    assert len(drawn) == small.size


def test_names_of_the_parameters(small: SearchSpace) -> None:
    placement = Placement.parse("sge_g16,none,ela_t,none")
    conditional = {"stage1": "sge", "stage1.sge.groups": 16, "stage2": "none", "stage3": "ela_t", "stage4": "none"}
    assert small.params(placement) == conditional
    flat = {"stage1.token": "sge_g16", "stage2.token": "none", "stage3.token": "ela_t", "stage4.token": "none"}
    assert small.params(placement, flat=True) == flat


def test_a_placement_outside_has_no_params(small: SearchSpace) -> None:
    with pytest.raises(SpaceError, match=r"mine\.yaml: stages: placement 'sb,sb,sb,sb' is not in this space"):
        small.params(Placement.parse("sb", stages=4))


HOST = "host: nasattn_resnet18\n"
WRONG = {
    # text: what the message says after the file's name
    "a: [1": ": line 1: not valid YAML: expected ',' or ']'",
    "host: x\n\tstages: 1": ": line 2: not valid YAML: found character '\\t'",
    "host: \x00": ": not valid YAML: unacceptable character #x0000",
    "host: 2024-13-01": ": not valid YAML: month must be in 1..12",
    "host: !!python/name:os.system": ": line 1: not valid YAML: could not determine a constructor for the tag",
    "[1, 2]": ": must hold a mapping of keys to values, got list",
    "": ": must hold a mapping of keys to values, got NoneType",
    HOST + "stage: {all: {none: }}": ": unknown key 'stage'; Did you mean 'stages'? allowed: host, description, stages",
    HOST: ": key 'stages' is missing; add it",
    HOST + "stages: {}": ": key 'stages' is missing; add it",
    "stages: {all: {none: }}": ": key 'host' is missing; add it",
    HOST + "stages: [none]": ": `host` must be a name and `stages` a mapping of 1, 2, ... or `all`",
    "host: [a]\nstages: {all: {none: }}": ": `host` must be a name",
    "host: resnet18\nstages: {all: {none: }}": ": host: unknown host 'resnet18': Did you mean 'nasattn_resnet18'",
    HOST + "stages: {5: {none: }, all: {none: }}": ": stages.5: unknown stage; nasattn_resnet18 has stages 1, 2, 3, 4, and `all`",
    HOST + "stages: {1: {none: }, 2: {none: }, 4: {none: }}": ": stages: stage 3 of nasattn_resnet18 is missing; add `3:` or `all:`",
    HOST + "stages: {all: [none]}": ": stages.all: must map attentions to their options, such as",
    HOST + "stages: {1: , all: {none: }}": ": stages.1: must map attentions to their options, such as",
    HOST + "stages: {2: {}, all: {none: }}": ": stages.2: no attention to choose from; list at least `none:`",
    HOST + "stages: {all: {sgee: }}": ": stages.all.sgee: unknown attention; Did you mean 'sge'",
    HOST + "stages: {all: {ela: }}": ": stages.all.ela: unknown attention; Did you mean 'ela_",
    HOST + "stages: {all: {null: }}": ": stages.all.None: unknown attention; Did you mean 'none'",
    HOST + "stages: {all: {1: }}": ": stages.all.1: unknown attention; allowed: ",
    HOST + "stages: {2: {sge: 8}, all: {none: }}": ": stages.2.sge: must map options to lists, such as `{groups: [1, 2]}`, got 8",
    HOST + "stages: {all: {sge: {group: [8]}}}": ": stages.all.sge.group: unknown option; Did you mean 'groups'? allowed: groups",
    HOST + "stages: {all: {none: {groups: [8]}}}": ": stages.all.none.groups: unknown option; allowed: none",
    HOST + "stages: {all: {sge: {groups: 8}}}": ": stages.all.sge.groups: must be a list of integers, such as [16, 32], got 8",
    HOST + "stages: {all: {sge: {groups: []}}}": ": stages.all.sge.groups: must be a list of integers, such as [16, 32], got []",
    HOST + "stages: {all: {sge: {groups: [8, true]}}}": ": stages.all.sge.groups: must be a list of integers",
    HOST + "stages: {all: {sge: {groups: ['8']}}}": ": stages.all.sge.groups: must be a list of integers",
    HOST + "stages: {all: {sge: {groups: [8, 8]}}}": ": stages.all.sge.groups: [8, 8] names a value twice; name it once",
    HOST
    + "stages: {all: {sge: {groups: [0]}}}": ": stages.1.sge: attention 'sge': option 'groups' must be an integer >= 1, got 0; remove or",
    HOST + "stages: {all: {lka: {kernel: [3]}}}": ": stages.1.lka: attention lka_k3_d3: dilation 3 must be smaller than the kernel 3",
    HOST
    + "stages: {4: {sge: {groups: [8, 48]}}, all: {none: }}": ": stages.4.sge: sge_g48 does not fit stage 4 of nasattn_resnet18: 48 groups"
    " do not divide 512 channels; allowed: 1, 2, 4, 8, 16, 32, 64, 128, 256, 512; remove that value from stage 4",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_a_wrong_file_is_told_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NasattnError) and isinstance(caught.value, ValueError)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = write(tmp_path, "description: caf\xe9".encode("latin-1"))
    with pytest.raises(SpaceError, match=r"mine\.yaml: cannot be read: .*utf-8"):
        load_space(latin)
    for missing in (tmp_path / "other.yaml", tmp_path / "folder.yml"):
        (tmp_path / "folder.yml").mkdir(exist_ok=True)
        with pytest.raises(
            SpaceError, match=rf"no file .*{missing.name}: give the path of a YAML file, or .* resnet18_stages, .*resnet50_stages"
        ):
            load_space(missing)
    with pytest.raises(
        SpaceError, match=r"unknown name 'resnet5_stages' in search_spaces: Did you mean 'resnet50_stages'.*or the path of a \.yaml file"
    ):
        load_space("resnet5_stages")
    with pytest.raises(SpaceError, match="unknown name '' in search_spaces: allowed: "):
        load_space("")


@pytest.mark.parametrize(
    ("host", "stages", "message"),
    [
        ("resnet", 4, "mine: host: unknown host 'resnet'"),
        ("nasattn_resnet18", 3, "mine: stages: 3 stages, but nasattn_resnet18 has 4; give 1 to 4"),
    ],
)
def test_a_space_made_in_python_is_checked_too(host: str, stages: int, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SearchSpace("mine", host, ((Choice("none"),),) * stages)


def test_choices_come_in_the_files_order() -> None:
    choice = Choice("lka", (("kernel", (21, 7)), ("dilation", (3, 2))))
    assert [str(a) for _, a in choice.combinations()] == ["lka_k21_d3", "lka_k21_d2", "lka_k7_d3", "lka_k7_d2"]
    assert list(Choice("sb").combinations()) == [({}, Attention.parse("sb"))]


WHERE = """
host: nasattn_resnet18
stages:
  1: {none: , sge: {groups: [8], blocks: [every, last, even, b10], position: [out, mid], shared: [false, true]}}
  2: {se: {blocks: any}}
  all: {none: }
"""


def test_a_space_says_where_in_a_stage(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, WHERE))
    assert {str(a) for a in space.tokens[0]} == {  # `even` of two blocks is `last`, one block shares nothing
        "none", "sge_g8", "sge_g8@shared", "sge_g8@mid", "sge_g8@mid@shared", "sge_g8@last", "sge_g8@last@mid", "sge_g8@odd", "sge_g8@odd@mid",
    }  # fmt: skip
    assert len(set(space.tokens[0])) == len(space.tokens[0])
    assert {str(a) for a in space.tokens[1]} == {"se", "se@last", "se@odd"}
    assert SearchSpace.from_dict("mine", space.to_dict()) == SearchSpace("mine", space.host, space.stages, source="mine")


@pytest.mark.parametrize("flat", [False, True])
def test_a_placement_with_places_is_drawn_and_found_again(tmp_path: Path, flat: bool) -> None:
    space = load_space(write(tmp_path, WHERE))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        placement = space.suggest(study.ask(), flat)
        assert placement in space
        seen.add(str(placement))
        again = optuna.trial.FixedTrial(space.params(placement, flat))
        assert space.suggest(again, flat) == placement
    assert len(seen) > 10
    assert Placement.parse("sge_g8@b01@out,se@every,none,none") in space
    assert space.params(Placement.parse("sge_g8@even,se@b01,none,none"))["stage1.sge.blocks"] in ("last", "even")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sge: {blocks: [first]}", r"stages.1.sge: blocks 'first': allowed: every, last, odd, even, or a mask"),
        (
            "sge: {blocks: last}",
            r"stages.1.sge.blocks: must be a list of words, such as \[every, last, b0101\], or `any` for every mask, got 'last'",
        ),
        ("sge: {blocks: [b101]}", r"sge_g64@b101 does not fit stage 1 .*the mask '@b101' has 3 digits, the stage has 2 blocks"),
        ("sge: {shared: [1]}", r"stages.1.sge.shared: must be a list of true or false"),
        ("sge: {position: [middle]}", r"position 'middle': Did you mean 'mid'"),
        ("sb: {position: [mid]}", r"it widens the block's spatial convolution, so it takes no position"),
        ("none: {blocks: [last]}", r"stages.1.none.blocks: unknown option; allowed: none"),
    ],
)
def test_a_wrong_place_names_the_key(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space(write(tmp_path, f"host: nasattn_resnet18\nstages: {{1: {{{line}}}, all: {{none: }}}}"))


def test_every_mask_of_a_long_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"stages.3.sge.blocks: `any` stands for 2\^23 - 1 masks here; list those that matter"):
        load_space(write(tmp_path, "host: nasattn_resnet101\nstages: {3: {sge: {blocks: any}}, all: {none: }}"))


@pytest.mark.parametrize("name", list_spaces())
def test_every_shipped_space_holds_the_plain_and_the_original_form(name: str) -> None:
    space = load_space(name)
    assert space.plain() in space
    assert space.native() in space
    assert load_space(name.removesuffix("_stages")) == space


def test_the_setting_of_ean() -> None:
    """One shared module per stage, plugged into each of ResNet-50's 16 blocks or not: 2^16 placements."""
    for name in ("resnet50_ean_sge", "resnet50_ean_se"):
        space = load_space(name)
        assert space.size == 2**16
        assert [len(t) for t in space.tokens] == [2**3, 2**4, 2**6, 2**3]
        assert all(a.where.shared or len(a.where.carriers(n)) == 1 for t, n in zip(space.tokens, (3, 4, 6, 3), strict=True) for a in t[1:])
