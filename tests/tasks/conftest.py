"""What the tests of tasks share: a cache of their own, so that none of theirs is left in the user's."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NASATTN_CACHE", str(folder))
    monkeypatch.delenv("NASATTN_TASK_MEMORY", raising=False)
    return folder
