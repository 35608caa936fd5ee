"""What a shell offers behind `nasattn`: asked as bash asks, by an environment variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nasattn.store import Store, StudyRecord

CONFIG = {
    "space_name": "s",
    "space": {"host": "nasattn_resnet18"},
    "task": "digits",
    "fidelity": {},
    "recipe": {},
    "device": "cpu",
    "seed": 0,
}


def offered(*words: str, **environment: str) -> list[str]:
    asked = {"_NASATTN_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv[0] = 'nasattn'; from nasattn.cli import app; app(prog_name='nasattn')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked, **environment}, timeout=100
    )
    assert not done.stderr
    return done.stdout.split()


def test_names_are_offered() -> None:
    assert offered("nasattn", "search", "--space", "resnet1") == ["resnet101_stages", "resnet18_stages"]
    assert offered("nasattn", "search", "--sampler", "nsga") == ["nsga2", "nsga3"]
    assert offered("nasattn", "certi") == ["certify"]


def test_studies_of_the_database_are_offered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store = Store(url)
    for name in ("first", "second"):
        store.add_study(StudyRecord(name, CONFIG, versions={}, seed=0))
    assert offered("nasattn", "front", "f", NASATTN_STORAGE=url) == ["first"]
    assert offered("nasattn", "front", "--storage", url, "s") == ["second"]


@pytest.mark.parametrize("content", [None, b"junk"])
def test_a_database_that_is_none_offers_nothing(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "studies.db"
    if content is not None:
        file.write_bytes(content)
    assert offered("nasattn", "front", "", NASATTN_STORAGE=f"sqlite:///{file}") == []
    assert file.exists() == (content is not None)
