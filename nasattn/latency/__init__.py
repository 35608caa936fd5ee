"""Latency: paired measurements, the additive table, the device key, and the lease that keeps training off a device being timed."""

from __future__ import annotations

from nasattn.latency.deployment import DTYPES, Deployment, check_device
from nasattn.latency.host_meter import HostMeter
from nasattn.latency.key import DeviceKey, environment, physical_device
from nasattn.latency.lease import DeviceLease
from nasattn.latency.meter import PairedLatency, measure_pair
from nasattn.latency.runtime import Runtime, RuntimeFailure, get_runtime, list_runtimes
from nasattn.latency.table import LatencyTable, Prediction, Ratio, TableError

__all__ = [
    "DTYPES",
    "Deployment",
    "DeviceKey",
    "DeviceLease",
    "HostMeter",
    "LatencyTable",
    "PairedLatency",
    "Prediction",
    "Ratio",
    "Runtime",
    "RuntimeFailure",
    "TableError",
    "check_device",
    "environment",
    "get_runtime",
    "list_runtimes",
    "measure_pair",
    "physical_device",
]
