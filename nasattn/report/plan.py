"""What `--dry-run` found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def describe_plan(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Names and lines for the terminal of what :func:`nasattn.search.planning.plan` gave."""
    space, task = figures["space"], figures["task"]
    images = task["images"]
    choices = " x ".join(map(str, space["choices"]))
    return {
        "study": figures["study"],
        "space": f"{space['name']}: {space['placements']:,} placements on {space['host']}, every choice can be built and was run ({choices})",
        "task": f"{task['name']}: {images['train']:,} training and {images['val']:,} validation images, {task['classes']} classes",
        "note": figures["notes"],
        "fidelity": ", ".join(f"{key} {value}" for key, value in figures["fidelity"].items()),
        "recipe": ", ".join(f"{key} {value}" for key, value in figures["recipe"].items() if value not in ("", False, 0)),
        "trials": f"{figures['trials']} by the sampler {figures['sampler']}" + (", with halving" if figures["halving"] else ""),
        "limits": figures["limits"] or None,
        "parameters": _range(figures["params"]),
        "MACs": _range(figures["macs"]),
        "latency": _latency(figures["latency"]),
        "deployment": figures["latency"]["device"],
        "device": figures["device"],
        "workers": figures["workers"] or "as many as the cluster has room for",
        "time": _time(figures["time"], figures["trials"], figures["workers"]),
        "disk": _disk(figures["disk"]),
        "seed": figures["seed"],
        "nothing": "was trained or recorded: leave --dry-run out to search",
    }


def _range(found: Mapping[str, float]) -> str:
    plain, least, most = found["plain"], found["least"], found["most"]
    return f"{amount(least)} to {amount(most)}, {least / plain:.3f}x to {most / plain:.3f}x the plain host's {amount(plain)}"


def _latency(found: Mapping[str, Any]) -> list[str]:
    return [
        f"about {found['least']:.2f}x to {found['most']:.2f}x the plain host's {found['plain_ms']:.1f} ms ({found['plain_found_by']})",
        f"{found['measured']} of {found['choices']} choices as measured before"
        + (f", {found['estimated']} estimated by {found['estimated_by']}" if found["estimated"] else ""),
    ]


def _time(found: Mapping[str, Any], trials: int, workers: int | None) -> list[str]:
    each = f"{found['training_seconds']:.1f} s a training, by {found['found_by']}"
    if found["hours"] is None:
        return [f"about {duration(found['training_hours'])} of training on all workers together", each]
    parts = f"{trials} trainings on {workers} worker{'s' if workers != 1 else ''}, and {duration(found['measuring_hours'])} for latencies"
    return [f"about {duration(found['hours'])}: {parts}", each]


def _disk(found: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name.replace('_', ' ')} {amount(value)}B" for name, value in found.items() if value and name != "all")
    return f"at most {amount(found['all'])}B: {parts}"


def amount(value: float) -> str:
    """``25.6M`` for 25,557,032."""
    for unit, letter in UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}" if value < 100 * unit else f"{value / unit:.0f}{letter}"
    return f"{value:.0f}"


def duration(hours: float) -> str:
    """``9 min`` for 0.15, ``3.2 h`` for 3.2, ``2.1 days`` for 50."""
    if hours * 3600 < 90:
        return f"{hours * 3600:.0f} s"
    if hours < 1.5:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 36 else f"{hours / 24:.1f} days"
