"""The lease between real processes: a measurement has the device alone, training steps share it, the dead hold nothing."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nasattn.latency import DeviceLease
from tests.latency.holders import obey

PATIENCE = 30.0  # seconds to wait for what must happen
MOMENT = 0.2  # seconds in which what must not happen would


class Other:
    """Another process that takes and leaves the device as told."""

    def __init__(self, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=obey, args=(theirs, str(folder)), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, order: str) -> None:
        self.pipe.send(order)

    def says(self, word: str, within: float = PATIENCE) -> bool:
        return self.pipe.poll(within) and self.pipe.recv() == word

    def silent(self) -> bool:
        return not self.pipe.poll(MOMENT)

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lease")


@pytest.fixture(scope="module")
def processes(folder: Path) -> Iterator[tuple[Other, Other]]:
    both = Other(folder), Other(folder)
    assert all(other.says("ready") for other in both)
    yield both
    for other in both:
        other.end()


@pytest.fixture
def lease(folder: Path) -> Iterator[DeviceLease]:
    lease = DeviceLease("cpu", folder)
    yield lease
    lease.close()


@pytest.mark.parametrize("order", ["turn", "alone"])
def test_a_measurement_keeps_everyone_out(lease: DeviceLease, processes: tuple[Other, Other], order: str) -> None:
    other, _ = processes
    with lease.alone():
        other.tell(order)
        assert other.silent()
    assert other.says(order)
    other.tell("leave")
    assert other.says("left")


def test_a_measurement_waits_for_the_step_under_way(lease: DeviceLease, processes: tuple[Other, Other]) -> None:
    other, _ = processes
    with lease.turn():
        other.tell("alone")
        assert other.silent()
    assert other.says("alone")
    other.tell("leave")
    assert other.says("left")


def test_no_new_step_begins_while_a_measurement_waits(lease: DeviceLease, processes: tuple[Other, Other]) -> None:
    measurer, trainer = processes
    with lease.turn():
        measurer.tell("alone")
        assert measurer.silent()
        trainer.tell("turn")
        assert trainer.silent()
    assert measurer.says("alone")
    assert trainer.silent()
    measurer.tell("leave")
    assert measurer.says("left") and trainer.says("turn")
    trainer.tell("leave")
    assert trainer.says("left")


def test_training_steps_run_together(lease: DeviceLease, processes: tuple[Other, Other]) -> None:
    for other in processes:
        other.tell("turn")
        assert other.says("turn")
    with lease.turn():
        pass
    for other in processes:
        other.tell("leave")
        assert other.says("left")


def test_a_measurement_is_not_starved_by_steps_that_never_pause(lease: DeviceLease, processes: tuple[Other, Other]) -> None:
    """This process and another take turn after turn without a pause; the measurer gets in between, again and again."""
    measurer, trainer = processes
    trainer.tell("loop")
    assert trainer.says("loop")
    for _ in range(10):
        measurer.tell("measure")
        deadline = time.monotonic() + PATIENCE
        while not measurer.pipe.poll() and time.monotonic() < deadline:
            with lease.turn():
                time.sleep(0.002)
        assert measurer.says("measure", within=0)
    trainer.tell("turn")
    assert trainer.says("turn")
    trainer.tell("leave")
    assert trainer.says("left")


def test_a_killed_process_holds_nothing(lease: DeviceLease, folder: Path) -> None:
    for other, order in [(Other(folder), "turn"), (Other(folder), "alone")]:
        assert other.says("ready")
        other.tell(order)
        assert other.says(order)
        other.process.kill()  # SIGKILL
        other.process.join()
        with lease.alone():
            pass
        other.end()


def test_devices_do_not_wait_for_each_other(lease: DeviceLease, folder: Path) -> None:
    gpu = DeviceLease("cuda:0", folder)
    with lease.alone(), gpu.alone():
        pass
    gpu.close()


def test_an_error_inside_gives_the_device_back(lease: DeviceLease, folder: Path) -> None:
    second = DeviceLease("cpu", folder)
    for take in (lease.alone, lease.turn):
        with pytest.raises(ZeroDivisionError), take():
            raise ZeroDivisionError
        with second.alone():
            pass
    second.close()
