"""The device key is the identity of a measurement's circumstances."""

from __future__ import annotations

from dataclasses import replace

import torch

from nasattn.latency import DeviceKey

KEY = DeviceKey("A CPU", "eager-torch2.15.0", batch=1, resolution=224, dtype="float32", threads=2)


def test_text() -> None:
    assert str(KEY) == "A CPU | eager-torch2.15.0 | batch 1 | 224 px | float32 | 2 threads"


def test_every_field_counts() -> None:
    values = {"device": "B", "runtime": "onnx", "batch": 8, "resolution": 96, "dtype": "float16", "threads": 1}
    keys = {str(KEY), *(str(replace(KEY, **{name: value})) for name, value in values.items())}  # type: ignore[arg-type]
    assert len(keys) == 7


def test_here() -> None:
    key = DeviceKey.here("cpu", resolution=96, batch=4)
    assert (key.batch, key.resolution, key.dtype, key.threads) == (4, 96, "float32", torch.get_num_threads())
    assert key.device and "\n" not in key.device
    assert key.runtime.startswith("eager-torch2.") and "+" not in key.runtime
    assert DeviceKey.here("cpu", resolution=96, batch=4) == key
