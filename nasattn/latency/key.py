"""The device key: everything besides the architecture that a latency depends on."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from nasattn.latency.runtime import get_runtime


@dataclass(frozen=True)
class DeviceKey:
    """Where and how a latency is measured; ``str(key)`` is its identity in the database.

    Attributes:
        device: Name of the CPU or GPU.
        runtime: What executes the model: ``eager-torch2.15.0``.
        batch: Images at once.
        resolution: Side of the images in pixels.
        dtype: Of weights and images.
        threads: CPU threads of one forward.
    """

    device: str
    runtime: str
    batch: int
    resolution: int
    dtype: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device} | {self.runtime} | batch {self.batch} | {self.resolution} px | {self.dtype} | {self.threads} threads"

    @classmethod
    def here(cls, device: str, resolution: int, batch: int = 1, dtype: str = "float32", runtime: str = "eager") -> DeviceKey:
        """The key of *runtime* on this machine's *device* (``cpu`` or ``cuda``) with the threads torch uses now.

        Raises:
            UsageError: Unknown runtime, or one that the device lacks.
        """
        name = torch.cuda.get_device_name() if device.startswith("cuda") else _cpu_name()
        return cls(name, get_runtime(runtime, device).version(), batch, resolution, dtype, torch.get_num_threads())


@cache
def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
