"""Attentions and hosts from another package: the example of the documentation, installed as a user would install it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
SPACE = """
host: tinynet
stages:
  all:
    none:
    sge: {groups: [8]}
    power: {exponent: [2, 3], blocks: [every, last]}
"""
MODEL = """
import nasattn, timm, torch
from timm.models import save_for_hf
model = timm.create_model("tinynet", attn="sge_g8,ela_b@last,power", num_classes=3).eval()
save_for_hf(model, "model", safe_serialization=True)
back = timm.create_model("local-dir:model", pretrained=True).eval()
x = torch.randn(2, 3, 64, 64)
assert torch.equal(back(x), model(x)) and back.placement == "sge_g8,ela_b@last,power_p2", back.placement
features = timm.create_model("tinynet", attn="power", features_only=True)
assert [f.shape[1] for f in features(x)] == [32, 64, 128]
plain = timm.create_model("tinynet").state_dict()
timm.create_model("tinynet", attn="power,none,sge_g8", pretrained=True, pretrained_cfg_overlay={"state_dict": plain})
"""
BARE = """
from functools import partial
from my_network import TINY, TinyNet
from nasattn.hosts import Host, build_placed, register_host
from timm.models import build_model_with_cfg, register_model

@register_model
def barenet(pretrained=False, attn=None, identity_start=False, **kwargs):
    return build_model_with_cfg(partial(build_placed, TinyNet, TINY, attn, identity_start), "barenet", pretrained, **kwargs)

register_host(Host("barenet", TINY, resolution=64))
"""
PROXY = """
from timm import create_model
import bare, torch
from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe
from nasattn.tasks import TaskRequest, load_task
torch.save(create_model("tinynet", num_classes=7).state_dict(), "plain.pth")
fidelity = Fidelity(stem_stride=1, resolution=16, samples=64, val_samples=32, epochs=1, rungs=1)
task = load_task("digits", TaskRequest(16, 64, 32))
for host in ("tinynet", "barenet"):
    for pretrained in ("", "plain.pth"):
        recipe = Recipe(batch_size=32, pretrained=pretrained)
        training = ProxyTraining(ProxyJob(host, "power,none,sge_g8", fidelity, recipe), task)
        while not training.done:
            training.step()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path that holds the page's two modules and the metadata of a package with the page's entry points."""
    folder = tmp_path_factory.mktemp("plugin")
    text = PAGE.read_text()
    for name, code in re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(code)
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    metadata = folder / "my_plugin-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 0.1\n")
    entries = toml.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    (metadata / "entry_points.txt").write_text(entries)
    (folder / "space.yaml").write_text(SPACE)
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(folder)}
    )


@pytest.mark.slow
def test_the_commands_know_the_attention_and_the_host(installed: Path) -> None:
    listed = run(installed, "-m", "nasattn", "attentions", "--json")
    assert "power_p2" in {a["token"] for a in json.loads(listed.stdout)}, listed.stderr
    hosts = run(installed, "-m", "nasattn", "hosts", "tinynet", "--json")
    assert [s["blocks"] for s in json.loads(hosts.stdout)["stages"]] == [1, 2, 1], hosts.stderr
    planned = run(installed, "-m", "nasattn", "search", "--space", "space.yaml", "--task", "digits", "--dry-run")
    assert "space: 96 placements on tinynet, every choice can be built" in planned.stdout, planned.stderr


def test_the_model_is_built_saved_and_loaded(installed: Path) -> None:
    done = run(installed, "-c", MODEL)
    assert done.returncode == 0, done.stderr


def test_its_proxy_trains(installed: Path) -> None:
    """Also that of a host of which timm keeps no configuration."""
    (installed / "bare.py").write_text(BARE)
    done = run(installed, "-c", PROXY)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_search_uses_them(installed: Path) -> None:
    fidelity = "fidelity: {samples: 200, val_samples: 100, resolution: 24, epochs: 1}"
    (installed / "study.yaml").write_text(
        f"space: {installed}/space.yaml\ntask: digits\nstudy: mine\ntrials: 2\nsampler: random\n{fidelity}\n"
    )
    done = run(installed, "-m", "nasattn", "run", "study.yaml")
    assert done.returncode == 0 and "Front of mine" in done.stdout, done.stdout + done.stderr
    exported = run(installed, "-m", "nasattn", "export", "mine", "--trial", "1", "--out", "out")
    assert exported.returncode == 0, exported.stderr


def test_a_broken_plugin_is_named_and_the_rest_goes_on(installed: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "broken-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text("[nasattn.attentions]\nbad = no_such_module\n")
    done = run(tmp_path, "-m", "nasattn", "attentions")
    assert done.returncode == 0
    assert "the plugin 'bad' (no_such_module, group nasattn.attentions) cannot be loaded: No module named 'no_such_module'" in done.stderr
