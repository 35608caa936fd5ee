"""What docs/cluster.md and its files say: commands that our command line takes, and files that Ray and KubeRay take."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.command_lines import commands, parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/cluster.md").read_text()
RAYJOB = yaml.safe_load((ROOT / "docs/cluster/rayjob.yaml").read_text())
CLUSTER = yaml.safe_load((ROOT / "docs/cluster/cluster.yaml").read_text())


def test_the_page_has_its_commands() -> None:
    found = commands(PAGE)
    assert len(found) == 11 and sum("--address auto" in c for c in found) == 4
    assert parse("nasattn search --space resnet50_stages --address ray://10.0.0.5:10001")["address"] == "ray://10.0.0.5:10001"
    with pytest.raises(Exception, match="--nodes"):
        parse("nasattn search --nodes 3")


@pytest.mark.parametrize("command", commands(PAGE))
def test_every_command_of_the_page_is_one(command: str) -> None:
    parse(command)


def test_the_pages_files_exist() -> None:
    linked = re.findall(r"\]\((cluster/[^)]+)\)", PAGE)
    named = re.findall(r"docs/cluster/\S+\.yaml", PAGE)
    assert linked and named
    assert all((ROOT / "docs" / file).is_file() for file in linked) and all((ROOT / file).is_file() for file in named)


def lower_bound(package: str) -> Version:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = [r for r in map(Requirement, project["dependencies"]) if r.name == package]
    (least,) = [Version(s.version) for s in found.specifier if s.operator == ">="]
    return least


def test_the_extra_has_the_same_ray() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extra,) = map(Requirement, extras["cluster"])
    assert extra.name == "ray" and extra.extras == {"client", "default"} and extra.specifier == f">={lower_bound('ray').public}"


def test_the_rayjob_starts_a_search_on_the_cluster_that_it_makes() -> None:
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", RAYJOB["metadata"]["name"])
    spec = RAYJOB["spec"]
    arguments = parse(spec["entrypoint"])
    assert arguments["address"] == "auto" and arguments["space"] and arguments["storage"] is None
    assert spec["shutdownAfterJobFinishes"] is True
    assert Version(spec["rayClusterSpec"]["rayVersion"]) == lower_bound("ray")
    image = re.search(r"^\s*FROM rayproject/ray:([0-9.]+)-py(\d)(\d+)$", PAGE, re.MULTILINE)
    assert image is not None and Version(image[1]) == lower_bound("ray") and (image[2], int(image[3])) >= ("3", 11)


def test_the_rayjobs_nodes_are_whole() -> None:
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0" and workers
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay takes no numbers
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == head["template"]["spec"]["containers"][0]["image"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys() & container["resources"]["requests"].keys()
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        (mount,) = container["volumeMounts"]
        assert mount["name"] in volumes
        env = {variable["name"]: variable for variable in container["env"]}
        assert env["NASATTN_CHECKPOINTS"]["value"].startswith(f"{mount['mountPath']}/")
        assert "secretKeyRef" in env["NASATTN_STORAGE"]["valueFrom"]
    names = [worker["groupName"] for worker in workers]
    assert len(names) == len(set(names))
    for worker in workers:
        assert 1 <= worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]


def test_the_cluster_file_fits_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(CLUSTER, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**CLUSTER, "worker_nodes": 4}, schema)


def test_the_cluster_files_nodes_are_there() -> None:
    types = dict(CLUSTER["available_node_types"])
    head = types.pop(CLUSTER["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert types and all(worker["min_workers"] >= 1 and worker["resources"]["CPU"] >= 1 for worker in types.values())
    assert sum(worker["max_workers"] for worker in types.values()) <= CLUSTER["max_workers"]
    assert CLUSTER["docker"]["image"] == RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert any("--head" in command and "--num-cpus=0" in command for command in CLUSTER["head_start_ray_commands"])
