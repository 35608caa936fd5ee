"""What is known of a placement before any training: parameters, MACs, memory and latency on the real host, and the limits on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from nasattn.attention import Attention, Placement
from nasattn.errors import NasattnError, UsageError
from nasattn.hosts import get_host
from nasattn.hosts.count import count_memory
from nasattn.latency import DTYPES, Deployment, RuntimeFailure
from nasattn.search.latencies import HostLatencies, alone
from nasattn.search.limits import Cost, Limit, evaluate, violations
from nasattn.space import SearchSpace
from nasattn.store import LatencyRecord, Store


@dataclass(frozen=True)
class Appraisal:
    """A placement's costs, the id of its latency in the store, and what the limits say.

    Attributes:
        params: Of the real host.
        macs: Multiply-accumulates of one image at the host's resolution.
        latency: In the deployment.
        latency_id: In the store.
        constraints: By the name of each limit what it was found to be (see :func:`evaluate`).
        violations: A phrase for each limit that is exceeded.
    """

    params: int
    macs: int
    latency: LatencyRecord
    latency_id: int
    constraints: dict[str, dict[str, Any]]
    violations: list[str]


class Appraiser:
    """Counts and times placements of one host, each once per device key; the store remembers.

    Args:
        store: Where the results are kept and looked up.
        host: Name of the host.
        deployment: How its models are run.
        limits: Upper limits by cost: ``latency``, ``params``, ``macs``, ``memory``.
        max_seconds: How long one measurement may go on for a narrower interval.
    """

    def __init__(
        self, store: Store, host: str, deployment: Deployment, limits: Mapping[str, Limit] | None = None, max_seconds: float = 5.0
    ) -> None:
        self.host, self.limits = get_host(host), limits or {}
        self.latencies = HostLatencies(store, self.host, deployment, max_seconds, entry_seconds=min(1.5, max_seconds))
        self._memory = cache(self._count_memory)

    def appraise(self, placement: Placement) -> Appraisal:
        """Count and time *placement* on the real host, or look it up. Nothing else of ours runs on the device meanwhile.

        Raises:
            RuntimeFailure: The runtime cannot execute it.
        """
        params, macs = self.count(placement)
        latency_id, latency = self.latencies.latency(placement)
        costs = self.costs(placement, latency)
        return Appraisal(params, macs, latency, latency_id, evaluate(self.limits, costs), violations(self.limits, costs))

    def costs(self, placement: Placement, latency: LatencyRecord) -> dict[str, Cost]:
        """The limited costs of *placement*, whose *latency* is known."""
        return self._counted_costs(placement) | {"latency": Cost(latency.ms, latency.ratio)}

    def count(self, placement: Placement) -> tuple[int, int]:
        """``(params, macs)`` of the real host."""
        return self.latencies.count(placement)

    def is_ruled_out(self, placement: Placement) -> bool:
        """Whether *placement* exceeds a limit, as far as that can be said at once, without measuring or building it.

        Parameters and MACs are sums over the stages; the latency is asked of the table; memory is not said.
        """
        plain = self.host.plain()
        costs = {}
        for number, cost in enumerate(("params", "macs")):
            if cost in self.limits:
                base = self.count(plain)[number]
                amount = base + sum(self.count(alone(plain, i, a))[number] - base for i, a in enumerate(placement))
                costs[cost] = Cost(amount, amount / base)
        if "latency" in self.limits and (predicted := self.latencies.predicted(placement)) is not None:
            costs["latency"] = Cost(predicted.ms, predicted.ratio)
        return bool(violations({c: limit for c, limit in self.limits.items() if c in costs}, costs))

    def known_ratio(self, placement: Placement) -> float | None:
        """The latency ratio of *placement* as far as it is known without measuring; None where it is not, inf above a limit."""
        if self.limits and self.is_ruled_out(placement):
            return math.inf
        predicted = self.latencies.predicted(placement)
        return None if predicted is None else predicted.ratio

    def check_feasible(self, space: SearchSpace) -> None:
        """Raises UsageError, naming the cheapest placement of *space* and what it costs, when not even that is within a limit.

        The plain host is the cheapest in every respect. Where a stage of the space does not offer ``none``, the cheapest of
        its attentions counts, each put into the plain host alone.
        """
        for cost, limit in self.limits.items():
            cheapest = self._cheapest(space, cost)
            found = self._cost(cheapest, cost)
            if limit.excess(found.amount, found.ratio) > 0:
                raise UsageError(
                    f"{limit.flag} {limit} cannot be met: the cheapest of the {space.size:,} placements of {space.name} is {cheapest} with "
                    f"{limit.describe(found.amount, found.ratio)}; raise the limit"
                )

    def _cheapest(self, space: SearchSpace, cost: str) -> Placement:
        def price(stage: int, token: Attention) -> float:
            single = alone(space.plain(), stage, token)
            if len(space.tokens[stage]) == 1 or token.form == "none":
                return 0.0
            return self._added_latency(single) if cost == "latency" else self._counted_costs(single, cost)[cost].ratio

        return Placement(tuple(min(tokens, key=partial(price, stage)) for stage, tokens in enumerate(space.tokens)))

    def _added_latency(self, placement: Placement) -> float:
        try:
            return self.latencies.stages_ratio(placement)
        except RuntimeFailure:
            return math.inf
        except NasattnError:  # a host that has no table
            return self.latencies.latency(placement)[1].ratio

    def _cost(self, placement: Placement, cost: str) -> Cost:
        if cost != "latency":
            return self._counted_costs(placement, cost)[cost]
        if placement.is_plain and self.limits[cost].unit == "x":
            return Cost(math.nan, 1.0)  # by definition
        _, latency = self.latencies.latency(placement)
        return Cost(latency.ms, latency.ratio)

    def _counted_costs(self, placement: Placement, *costs: str) -> dict[str, Cost]:
        """Those of the limited costs (or of *costs*) that are counted."""
        wanted = costs or tuple(self.limits)
        plain = self.host.plain()
        found = {}
        for number, cost in enumerate(("params", "macs")):
            if cost in wanted:
                amount = self.count(placement)[number]
                found[cost] = Cost(amount, amount / self.count(plain)[number])
        if "memory" in wanted:
            amount = self._memory(placement)
            found["memory"] = Cost(amount, amount / self._memory(plain))
        return found

    def _count_memory(self, placement: Placement) -> int:
        deployment = self.latencies.deployment
        assert deployment.resolution is not None
        model = self.host.build(placement, device="meta")
        return count_memory(model, deployment.resolution, deployment.batch, dtype=DTYPES[deployment.dtype])
