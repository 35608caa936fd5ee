"""One driver a study: the second is refused, a dead one is not waited for, and one that lost its study writes nothing more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nasattn.errors import NasattnError, StudyError
from nasattn.search import ownership
from nasattn.search.ownership import owned
from nasattn.store import Store, StudyRecord
from tests.search.fleet import Fleet, begin, configure, space_file, store

__all__ = ["space_file", "store"]  # fixtures

DRIVER = """
import sys, time
from nasattn.search.ownership import owned
from nasattn.store import Store
with owned(Store(sys.argv[1]), "s"):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def studies(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'owned.db'}")
    store.add_study(StudyRecord("s", {}, {}, 0))
    return store


def test_the_second_driver_is_refused_with_the_name_of_the_first(studies: Store) -> None:
    other = subprocess.Popen([sys.executable, "-c", DRIVER, studies.url], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    try:
        message = rf"study s is driven by process {other.pid} on {socket.gethostname()}: wait until that ends, .* free in \d+ s$"
        with pytest.raises(StudyError, match=message), owned(studies, "s"):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with owned(studies, "s"):  # it is dead, and nobody has to wait
        pass


def test_a_driver_that_ends_leaves_the_study(studies: Store) -> None:
    for _ in range(2):
        with owned(studies, "s"), pytest.raises(StudyError, match="is driven by"), owned(studies, "s"):
            pass
    with pytest.raises(ZeroDivisionError), owned(studies, "s"):
        1 / 0  # noqa: B018
    with owned(studies, "s"):
        pass


def test_a_long_search_stays_the_owner(studies: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "LEASE", 3)
    monkeypatch.setattr(ownership, "RENEWAL", 0.5)
    with owned(studies, "s"):
        left = []
        for _ in range(8):
            left.append((studies.claim_study("s", "elsewhere:1:x", 60) or ("", 0))[1])
            subprocess.run(["sleep", "0.6"], check=True)
        assert min(left) >= 1


def test_a_driver_that_was_asleep_writes_nothing_more(store: Store, space_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one took the study meanwhile."""
    search = begin(store, configure(space_file))
    with owned(store, "s") as ownership_:
        search.ledger.check = ownership_.check
        fleet = Fleet(search)
        fleet.run(most=6)
        before = store.evaluations("s")
        with store.session() as session:
            from nasattn.store.models import StudyRow

            session.query(StudyRow).update({"driver": "elsewhere:1:x", "driver_until": 2**40})
        ownership_.renew()  # as its thread does
        with pytest.raises(NasattnError, match="study s was taken over by process 1 on elsewhere"):
            fleet.run()
        with pytest.raises(NasattnError, match="taken over"):
            search.stop_all()
    assert store.evaluations("s") == before
    assert (store.claim_study("s", "third", 60) or ("",))[0] == "elsewhere:1:x"  # its lease was not given away
