"""The device key: what a latency depends on besides the architecture, as its identity in the database."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nasattn.latency.deployment import Deployment
from nasattn.latency.runtime import get_runtime


@dataclass(frozen=True)
class DeviceKey:
    """Where and how a latency is measured; ``str(key)`` is its identity in the database.

    Attributes:
        device: Name of the CPU or GPU, of a GPU with its driver's version.
        runtime: What executes the model, with versions: ``eager-torch2.15.0``.
        batch: Images at once.
        resolution: Side of the images in pixels.
        dtype: Of weights and images.
        threads: CPU threads of one forward.
        memory_format: ``contiguous`` or ``channels_last``.
    """

    device: str
    runtime: str
    batch: int
    resolution: int
    dtype: str
    threads: int
    memory_format: str = "contiguous"

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        parts = [self.device, self.runtime, f"batch {self.batch}", f"{self.resolution} px", self.dtype, threads]
        return " | ".join([*parts, *([self.memory_format] if self.memory_format != "contiguous" else [])])

    @classmethod
    def here(cls, deployment: Deployment) -> DeviceKey:
        """The key of *deployment*, whose resolution is given, on this machine.

        Raises:
            UsageError: Unknown runtime, or one that the device lacks.
        """
        assert deployment.resolution is not None
        device = deployment.device
        driver = read_gpu("driver_version") if device == "cuda" else {}
        name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
        return cls(
            f"{name} (driver {driver['driver_version']})" if driver else name,
            get_runtime(deployment.runtime, device).version(),
            deployment.batch,
            deployment.resolution,
            deployment.dtype,
            deployment.threads,
            "channels_last" if deployment.channels_last else "contiguous",
        )


def environment(device: str) -> dict[str, Any]:
    """What can be read of the machine beside the key, recorded with a measurement: cores, clocks in MHz, governor, system."""
    found: dict[str, Any] = {"system": platform.platform(), "cores": os.cpu_count()}
    cpuinfo = Path("/proc/cpuinfo")
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo.read_text(), re.M)] if cpuinfo.exists() else []
    if clocks:
        found["cpu_mhz"] = max(clocks)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        found["governor"] = governor.read_text().strip()
    return found | (read_gpu("clocks.sm", "clocks.mem", "clocks.max.sm", "persistence_mode") if device == "cuda" else {})


def read_gpu(*names: str) -> dict[str, str]:
    """What nvidia-smi says of torch's current GPU; empty where there is no nvidia-smi or it does not know one of *names*."""
    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    command = ["nvidia-smi", f"--query-gpu=uuid,{','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    row = next((r for r in rows if r[0].removeprefix("GPU-") == uuid.removeprefix("GPU-")), [])
    return dict(zip(names, row[1:], strict=True)) if row else {}


def physical_device(device: str) -> str:
    """The name of the physical device behind ``cpu`` or ``cuda``, whatever CUDA_VISIBLE_DEVICES calls it."""
    if device != "cuda":
        return device
    return f"gpu-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


@cache
def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
