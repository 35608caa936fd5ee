"""The command that measures latency: of a placement, or of every attention of a space in every stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nasattn import console, options
from nasattn.errors import UsageError


def latency(
    host: options.HostArgument = None,
    placement: options.PlacementArgument = None,
    space: options.InsteadSpaceOption = None,
    device: options.LatencyDeviceOption = "cpu",
    runtime: options.RuntimesOption = None,
    batch: options.BatchOption = 1,
    resolution: options.ResolutionOption = None,
    dtype: options.DtypeOption = "float32",
    threads: options.ThreadsOption = 1,
    channels_last: options.ChannelsLastOption = False,
    held_out: options.HeldOutOption = 8,
    plot: options.PlotOption = None,
    storage: options.LatencyStorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure a placement against its plain host, in pairs, or every attention of a space in every stage.

    Examples: nasattn latency nasattn_resnet50 none,sge_g32,none,none
              nasattn latency --space resnet50_stages --runtime eager --runtime onnxruntime --plot costs.png
    """
    deployments: list[dict[str, Any]] = [
        {"device": device, "runtime": name, "batch": batch, "resolution": resolution, "dtype": dtype, "threads": threads, "channels_last": channels_last}
        for name in dict.fromkeys(runtime or ["eager"])
    ]  # fmt: skip
    if space is not None:
        if host is not None:
            raise UsageError(f"give either --space or a host and a placement, got both --space {space} and {host}")
        _latency_of_space(space, deployments, held_out, plot, storage, as_json)
        return
    if host is None or placement is None:
        raise UsageError("give a host and a placement, such as `nasattn latency nasattn_resnet50 none,sge_g32,none,none`, or --space NAME")
    if plot is not None:
        raise UsageError("--plot draws a space: give --space NAME instead of a host and a placement")
    from nasattn.api import measure_latency

    _check_deployments(deployments)
    figures = [measure_latency(host, placement, storage=storage, **deployed) for deployed in deployments]
    if as_json:
        print(json.dumps(figures[0] if len(figures) == 1 else figures, indent=2))
        return
    from nasattn.report.latency import describe_measurement

    for each in figures:
        console.print_pairs(describe_measurement(each))


def _latency_of_space(
    space: str, deployments: list[dict[str, Any]], held_out: int, plot: Path | None, storage: str | None, as_json: bool
) -> None:
    from nasattn.api import measure_table
    from nasattn.report.latency import check_picture, latency_summary, latency_table, plot_latencies
    from nasattn.report.progress import measuring

    if plot is not None:
        check_picture(plot)
    _check_deployments(deployments)
    found = []
    for deployed in deployments:
        with measuring(console.err(), deployed["runtime"]) as listener:
            found.append(measure_table(space, storage=storage, held_out=held_out, listener=listener, **deployed))
        if not as_json:
            printer = console.out()
            printer.print(latency_table(found[-1], printer.width))
    if as_json:
        print(json.dumps([latency_summary(each) for each in found] if len(found) > 1 else latency_summary(found[0]), indent=2))
    if plot is not None:
        plot_latencies(found, plot)
        print(f"Drawn: {plot}", file=sys.stderr)


def _check_deployments(deployments: list[dict[str, Any]]) -> None:
    """A mistake in the last one is found before the first is measured."""
    from nasattn.latency import Deployment

    for deployed in deployments:
        Deployment(**deployed)
