"""The device key is the identity of a measurement's circumstances."""

from __future__ import annotations

import json
from dataclasses import replace

from nasattn.latency import Deployment, DeviceKey, environment

KEY = DeviceKey("A CPU", "eager-torch2.15.0", batch=1, resolution=224, dtype="float32", threads=2)


def test_text() -> None:
    assert str(KEY) == "A CPU | eager-torch2.15.0 | batch 1 | 224 px | float32 | 2 threads"


def test_every_field_counts() -> None:
    values = {
        "device": "B",
        "runtime": "onnx",
        "batch": 8,
        "resolution": 96,
        "dtype": "float16",
        "threads": 1,
        "memory_format": "channels_last",
    }
    keys = {str(KEY), *(str(replace(KEY, **{name: value})) for name, value in values.items())}  # type: ignore[arg-type]
    assert len(keys) == 8


def test_one_thread_and_another_memory_format() -> None:
    key = replace(KEY, threads=1, memory_format="channels_last")
    assert str(key) == "A CPU | eager-torch2.15.0 | batch 1 | 224 px | float32 | 1 thread | channels_last"


def test_here() -> None:
    key = DeviceKey.here(Deployment(batch=4, resolution=96, threads=2))
    assert (key.batch, key.resolution, key.dtype, key.threads, key.memory_format) == (4, 96, "float32", 2, "contiguous")
    assert key.device and "\n" not in key.device
    assert key.runtime.startswith("eager-torch2.") and "+" not in key.runtime
    assert DeviceKey.here(Deployment(batch=4, resolution=96, threads=2)) == key
    assert DeviceKey.here(Deployment(batch=4, resolution=96, channels_last=True)).memory_format == "channels_last"


def test_the_environment_is_plain_data() -> None:
    found = environment("cpu")
    assert found["cores"] >= 1 and found["system"]
    assert json.loads(json.dumps(found)) == found
