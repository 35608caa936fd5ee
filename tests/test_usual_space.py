"""The space that is made for a host: what its stages can carry, as a file that reads back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nasattn.cli import _run
from nasattn.errors import StudyError, UsageError
from nasattn.hosts import find_host, get_host
from nasattn.search.planning import check_buildable, space_line
from nasattn.search.study import make_config, read_study_file
from nasattn.space import list_spaces, load_space
from nasattn.usual_space import made_space, space_yaml, usual_space

ONE_OF_EACH = [
    *("resnet26d", "resnext50_32x4d", "regnetx_002", "regnety_016", "mobilenetv2_035", "mobilenetv3_small_050", "efficientnetv2_rw_t"),
    *("tf_mobilenetv3_small_minimal_100", "convnextv2_atto", "van_b1", "boat_swin_tiny", "boat_cswin_tiny"),
]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "boat_swin_tiny"])
def test_it_is_as_the_shipped_spaces_are(name: str) -> None:
    host = find_host(name)
    assert made_space(host).tokens == load_space(f"{name}_stages").tokens


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family(name: str, tmp_path: Path) -> None:
    """Each stage has a choice that the proxies of the usual widths can carry too, and the original form is in the space."""
    space = usual_space(name)
    assert all(len(tokens) >= 5 for tokens in space.tokens) and space.plain() in space
    assert space.native() in space
    check_buildable(make_config({"host": name}))
    file = tmp_path / f"{space.name}.yaml"
    file.write_text(space_yaml(space))
    assert load_space(file).to_dict() == space.to_dict() and load_space(file).name == space.name


def test_timms_names_are_understood() -> None:
    assert find_host("resnet26d") is find_host("nasattn_resnet26d") is get_host("nasattn_resnet26d")
    assert find_host("van_b0").name == "van_b0"
    for name, message in {
        "resnet26dd": "unknown host 'resnet26dd': Did you mean 'resnet26d'",
        "vit_base_patch16_224": "timm's vit_base_patch16_224 cannot carry attentions: `nasattn hosts` lists the",
        "resnet50.a1_in1k": "write resnet50, and the tag as `recipe: {pretrained: a1_in1k}`",
        "": "unknown host ''",
    }.items():
        with pytest.raises(UsageError) as caught:
            find_host(name)
        assert message in str(caught.value)


def test_a_study_of_a_host() -> None:
    config = make_config({"host": "resnet26d", "task": "digits"})
    assert (config.name, config.space.host) == ("resnet26d_stages-digits-s0", "nasattn_resnet26d")
    assert make_config({"host": "nasattn_resnet26d", "task": "digits"}).identity() == config.identity()
    assert "`nasattn spaces --host nasattn_resnet26d > my_space.yaml` writes it" in space_line(config)
    shipped = make_config({"host": "resnet18", "task": "digits"})
    assert shipped.identity() == make_config({"space": "resnet18_stages", "task": "digits"}).identity() and not space_line(shipped)


def test_a_study_file_names_a_space_or_a_host(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("host: resnet10t\ntask: digits\n")
    assert make_config(read_study_file(file)).space.name == "resnet10t_stages"
    for content, message in (
        ("host: a\nspace: b\n", "keys 'space' and 'host' exclude each other"),
        ("task: digits\n", "'space' is missing"),
    ):
        file.write_text(content)
        with pytest.raises(StudyError, match=message):
            read_study_file(file)


def test_the_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run(["spaces", "--host", "resnet10t"]) == 0
    file = tmp_path / "mine.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_space(file).tokens == usual_space("resnet10t").tokens and "all:" in file.read_text()
    assert _run(["spaces", "--host", "resnet10t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host"] == "nasattn_resnet10t"
    for arguments, message in (
        (["spaces", "resnet18_stages", "--host", "resnet10t"], "give a space or --host, got both"),
        (["search", "--space", "resnet18_stages", "--host", "resnet10t"], "--space and --host exclude each other"),
        (["search", "--host", "resnet10tt"], "Did you mean 'resnet10t'"),
        (["search"], "or a host by --host, such as resnet26d"),
    ):
        assert _run(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_spaces_that_are_shipped_stay_what_they_are() -> None:
    assert "resnet26d_stages" not in list_spaces()
