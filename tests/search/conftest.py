"""A space of cheap attentions, and a Ray that lives through a test module."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from nasattn.search.cluster import quiet_libraries

SPACE = """
host: nasattn_resnet18
stages:
  1: {none: , se: , eca: , gc: }
  2: {none: , sge: {groups: [16, 32]}}
  3: {none: }
  4: {none: , ela_t: }
"""


@pytest.fixture(autouse=True, scope="session")
def quiet() -> None:
    quiet_libraries()


@pytest.fixture
def space_file(tmp_path: Path) -> str:
    path = tmp_path / "cheap.yaml"
    path.write_text(SPACE)
    return str(path)


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    quiet_libraries()
    import ray

    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 1024 * 1024,
    )
    yield
    ray.shutdown()
