"""Latency: paired measurements, the device key, and the lease that keeps training off a device being timed."""

from __future__ import annotations

from nasattn.latency.key import DeviceKey
from nasattn.latency.lease import DeviceLease
from nasattn.latency.meter import HostMeter, PairedLatency, measure_pair

__all__ = ["DeviceKey", "DeviceLease", "HostMeter", "PairedLatency", "measure_pair"]
