"""What `nasattn doctor` finds on this machine, and on one that lacks things."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nasattn import doctor
from nasattn.doctor import Finding


def findings(check: str, *arguments: str) -> dict[str, Finding]:
    return {f.name: f for f in getattr(doctor, check)(*arguments)}


def test_this_machine_can_search(tmp_path: Path) -> None:
    """The command as a user calls it; Ray is started for it."""
    command = [sys.executable, "-m", "nasattn", "doctor", "--json", "--storage", f"sqlite:///{tmp_path}/studies.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert {"python", "torch", "optuna", "ray", "timm", "cpu", "database", "workers", "checkpoints", "decoded images"} <= found.keys()
    assert not [f for f in found.values() if f["state"] == "problem"]
    assert found["torch"]["found"] == metadata.version("torch")
    assert found["database"]["found"].endswith("not there yet, the first search makes it")
    assert not list(tmp_path.iterdir())  # nothing was written
    assert "starts and runs" in found["workers"]["found"]
    assert re.search(r"^\d+ cores for this process, proxies train in (bfloat16|float32)", found["cpu"]["found"])


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=2.15", "optuna>=5.0", "rich>=99", 'nothing-like-it>=3; extra == "odd"', "missing>=1", "rich[extra]>=99"]
    monkeypatch.setattr(doctor, "requires", lambda name: required)
    found = findings("_packages")
    assert {name: f.state for name, f in found.items()} == {
        "torch": "ok",
        "optuna": "ok",
        "rich": "problem",
        "nothing-like-it": "note",
        "missing": "problem",
    }
    assert found["rich"].remedy == "pip install 'rich>=99'" and found["missing"].found == "not installed"
    assert found["nothing-like-it"].remedy == "for what it does: pip install 'nasattn[odd]'"


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database" * 50)
    (found,) = doctor._database(f"sqlite:///{tmp_path}/text.db")
    assert found.state == "problem" and "file is not a database" in found.found
    (found,) = doctor._database("postgresql+psycopg://user:verysecret@127.0.0.1:1/studies")
    assert found.state == "problem" and "verysecret" not in found.found
    (found,) = doctor._database("postgresql+psycopg://host:port/studies")
    assert found.state == "problem" and "not a database URL" in found.found
    (found,) = doctor._database(f"sqlite:///{tmp_path}/no/folder/studies.db")
    assert found.state == "problem"


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("NASATTN_CHECKPOINTS", "nostore://bucket")
    found = findings("_folders")
    assert found["decoded images"].state == found["checkpoints"].state == "problem"
    assert "NASATTN_CACHE" in found["decoded images"].remedy and "nostore" in found["checkpoints"].found
    monkeypatch.setattr(doctor, "LEAST_DISK", 1e18)
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path))
    assert findings("_folders")["decoded images"].state == "note"
