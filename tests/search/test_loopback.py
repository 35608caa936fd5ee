"""Who can reach a Ray that is started for a search: nobody from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from nasattn.search.cluster import ray_cluster

LISTENS = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, ::1, ::ffff:127.0.0.1


def listening(pids: set[int]) -> dict[str, int]:
    """The addresses on which processes listen, as the kernel writes them: ``{address:port: pid}``."""
    addresses = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS:
                addresses[f"socket:[{fields[9]}]"] = fields[1]
    found = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if (address := addresses.get(os.readlink(entry))) is not None:
                        found[address] = pid
    return found


def descendants(pid: int) -> set[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, new = {pid}, [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found |= set(new)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_a_ray_of_this_machine_listens_on_loopback_alone() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
    with ray_cluster(None, 1):
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        sockets = listening(descendants(os.getpid()))
    assert len(set(sockets.values())) >= 4  # this process, the GCS, the raylet, a worker
    assert {address.rpartition(":")[0] for address in sockets} <= LOOPBACK
