"""What all tests share: one thread, a temporary folder a process, caches of their own, and an attention that cannot run."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasattn.attention import register_attention, token

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # a folder of its own for the lease of the device: else tests beside each other would wait for each other's measurements
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=f"{worker}-")
    os.chmod(os.environ["TMPDIR"], 0o755)  # PostgreSQL, which does not run as root, keeps its socket there
    tempfile.tempdir = None
    atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)

# small tensors gain nothing from a second thread, and on a busy machine waiting for it costs most of the time
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither decoded images nor checkpoints nor logs of a user are read or written; Ray's workers inherit this."""
    for name in ("NASATTN_CACHE", "NASATTN_CHECKPOINTS", "NASATTN_LOGS"):
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, by playwright; the test is skipped where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *quiet.split()])
        yield opened
        opened.close()


@pytest.fixture
def broken_attention() -> Iterator[str]:
    """An attention that can be built and counted, but not run."""

    @register_attention("broken")
    class Broken(nn.Module):
        def __init__(self, channels: int, device: Any = None, dtype: Any = None) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            if x.device.type != "meta":
                raise RuntimeError("no kernel for this")
            return x

    yield "broken"
    del token._REGISTRY["broken"]
