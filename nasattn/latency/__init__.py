"""Latency: paired measurements, the device key, and the lease that keeps training off a device being timed."""

from __future__ import annotations

from nasattn.latency.key import DeviceKey
from nasattn.latency.lease import DeviceLease
from nasattn.latency.meter import HostMeter, PairedLatency, measure_pair
from nasattn.latency.runtime import Runtime, RuntimeFailure, get_runtime, list_runtimes

__all__ = [
    "DeviceKey",
    "DeviceLease",
    "HostMeter",
    "PairedLatency",
    "Runtime",
    "RuntimeFailure",
    "get_runtime",
    "list_runtimes",
    "measure_pair",
]
