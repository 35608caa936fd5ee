"""The driver as a Ray job: submitted to a cluster's dashboard, it joins that cluster and searches."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nasattn.store import Store

STUDY = {
    "study": "job", "trials": 3, "sampler": "random", "certify": 0, "latency_seconds": 0.2, "deployment": {"resolution": 64},
    "fidelity": {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": 1, "width": 0.125},
}  # fmt: skip


@pytest.mark.slow
def test_a_search_that_is_submitted(space_file: str, tmp_path: Path) -> None:
    pytest.importorskip("opencensus", reason="a dashboard that takes jobs comes with nasattn[cluster]")
    from ray.cluster_utils import Cluster

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    study, url = tmp_path / "study.yaml", f"sqlite:///{tmp_path}/studies.db"
    study.write_text(yaml.safe_dump({**STUDY, "space": space_file}))
    node = {"num_cpus": 2, "object_store_memory": 100 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": True, "dashboard_port": port})
    try:
        ray = shutil.which("ray", path=Path(sys.executable).parent)
        assert ray is not None
        search = [sys.executable, "-m", "nasattn", "run", str(study), "--address", "auto", "--storage", url]
        submitted = [ray, "job", "submit", "--address", f"http://127.0.0.1:{port}", "--", *search]
        done = subprocess.run(submitted, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400, check=False)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stdout
    assert "the Ray cluster has room for 2 workers on 1 node" in done.stdout and "Front of job" in done.stdout
    assert [e.state for e in Store(url).evaluations("job")] == ["COMPLETE"] * 3
