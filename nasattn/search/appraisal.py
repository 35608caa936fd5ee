"""What is known of a placement before any training: parameters, MACs and latency on the real host."""

from __future__ import annotations

from dataclasses import dataclass

from nasattn.attention import Placement
from nasattn.hosts import get_host
from nasattn.hosts.count import count_macs, count_params
from nasattn.latency import DeviceKey, DeviceLease, HostMeter
from nasattn.store import LatencyRecord, Store


@dataclass(frozen=True)
class Appraisal:
    """A placement's costs, and the id of its latency in the store."""

    params: int
    macs: int
    latency: LatencyRecord
    latency_id: int


class Appraiser:
    """Counts and times placements of one host, each once per device key; the store remembers.

    Args:
        store: Where the results are kept and looked up.
        host: Name of the host.
        device: Where latency is measured.
        batch: Images at once.
        max_seconds: How long one measurement may go on for a narrower interval.
    """

    def __init__(self, store: Store, host: str, device: str, batch: int, max_seconds: float = 4.0) -> None:
        self.max_seconds = max_seconds
        self.store, self.host = store, get_host(host)
        self.key = DeviceKey.here(device, self.host.resolution, batch)
        self.lease = DeviceLease(device)
        self.meter = HostMeter(self.host.build, str(self.host.plain()), device, batch, self.host.resolution)

    def appraise(self, placement: Placement) -> Appraisal:
        """Count and time *placement* on the real host, or look it up. Nothing else of ours runs on the device meanwhile."""
        params, macs = self.count(placement)
        found = self.store.find_latency(str(self.key), self.host.name, str(placement))
        if found is None:
            with self.lease.alone():
                pair = self.meter.measure(str(placement), max_seconds=self.max_seconds)
            record = LatencyRecord(
                pair.ms, pair.baseline_ms, pair.ratio, pair.ratio_low, pair.ratio_high, pair.rounds, pair.settled, exclusive=True
            )
            found = self.store.add_latency(str(self.key), self.host.name, str(placement), record), record
        return Appraisal(params, macs, latency=found[1], latency_id=found[0])

    def count(self, placement: Placement) -> tuple[int, int]:
        """``(params, macs)`` of the real host, counted on the meta device."""
        counted = self.store.find_architecture(self.host.name, str(placement))
        if counted is None:
            model = self.host.build(placement, device="meta")
            counted = count_params(model), count_macs(model, self.host.resolution)
            self.store.add_architecture(self.host.name, str(placement), *counted)
        return counted
