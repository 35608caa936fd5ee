"""Times every attention against the memory floor, timm's SE and its own formula in plain torch.

    python benchmarks/attention.py --quick

Everything of one cell runs interleaved, round by round; times are medians over the rounds and ratios are medians of the
rounds' ratios. The last line printed is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import naive
import torch
from timm.layers import create_attn
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nasattn.attention import create_attention

SHAPES = ((8, 256, 56, 56), (8, 1024, 14, 14), (1, 256, 56, 56))
TARGET_SHAPE = SHAPES[0]
# forward on CPU at TARGET_SHAPE, contiguous, in multiples of the floor
TARGETS = {"sge": 4.0, "ela_t": 4.5, "ela_b": 4.5, "ela_s": 4.5, "ela_l": 4.5, "sb": 3.0, "lka": 20.0, "fsla": 160.0}
SWINS = 2.0  # FSLA at the same shape, in multiples of Swin's window attention
DIRECTIONS = ("forward", "forward+backward")
STREAMING = ("sge", "ela_t", "ela_b", "ela_s", "ela_l")  # their bandwidth is compared with that of a copy

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cell:
    """One attention on one kind of input: the module that owns the parameters, and the ways to run it."""

    name: str
    module: nn.Module
    ours: Call
    naive: Call | None


def cells(channels: int, names: list[str]) -> list[Cell]:
    """The attentions to time, for maps of *channels*."""
    made = []
    for name in names:
        if name == "swin":
            swin = naive.SwinWindows(channels)
            made.append(Cell(name, swin, swin, None))
            continue
        module = create_attention("fsla_c49" if name == "fsla" else name, channels)
        if name == "sge":  # its gate starts constant
            nn.init.normal_(module.weight)
        formula = getattr(naive, name.split("_")[0])
        ours: Call = partial(with_maps, module) if name == "sb" else module
        made.append(Cell(name, module, ours, partial(formula, module)))
    return made


def with_maps(module: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The map and, behind its channels, the spatial bias at its size."""
    return torch.cat([x_BCHW, module(x_BCHW, size=(x_BCHW.shape[2], x_BCHW.shape[3]))], dim=1)


def check(cell: Cell, x: Tensor) -> None:
    """Raises AssertionError when ours and the formula differ. FSLA sorts by rounded numbers, so it is compared in float64."""
    if cell.naive is None:
        return
    double = cell.name == "fsla" or x.device.type != "cpu"
    twin = copy.deepcopy(cell.module).to(torch.float64 if double else torch.float32).eval()
    formula = getattr(naive, cell.name.split("_")[0])
    ours: Call = partial(with_maps, twin) if cell.name == "sb" else twin
    x = x[:2].double() if double else x
    with torch.no_grad():
        torch.testing.assert_close(ours(x), formula(twin, x), rtol=1e-4, atol=1e-5)


def step(call: Call, x: Tensor, backward: bool) -> Callable[[], object]:
    """One run of *call*: forward without gradients, or forward and backward to the input and the parameters."""
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return call(x)

        return forward
    x = x.detach().requires_grad_()
    with torch.no_grad():
        grad = torch.ones_like(call(x))

    def both() -> None:
        call(x).backward(grad)
        x.grad = None

    return both


class Clock:
    """Milliseconds of a call. On one CPU thread the thread's own time, so that other processes do not count."""

    def __init__(self, device: str, threads: int) -> None:
        self.cuda = device == "cuda"
        self.now = time.thread_time if threads == 1 else time.perf_counter

    def __call__(self, run: Callable[[], object]) -> float:
        if not self.cuda:
            start = self.now()
            run()
            return (self.now() - start) * 1e3
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()  # type: ignore[no-untyped-call]
        run()
        last.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        return float(first.elapsed_time(last))


def interleaved(runs: dict[str, Callable[[], object]], clock: Clock, seconds: float, rounds: int) -> dict[str, list[float]]:
    """The time of each run in every round: *rounds* of them, or at least three and as many as fit into *seconds*."""
    for run in runs.values():
        clock(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    done = 0
    while done < (rounds or 3) or (not rounds and time.perf_counter() - start < seconds):
        for name, run in runs.items():
            times[name].append(clock(run))
        done += 1
    return times


def ratio(times: dict[str, list[float]], over: str, under: str) -> float | None:
    """Median over the rounds of *over* / *under*; None where one was not run."""
    if over not in times or under not in times:
        return None
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def peak_bytes(run: Callable[[], object], module: nn.Module, device: str) -> int:
    """The most memory that *run* holds beyond what was there before, temporaries inside operators included."""
    run()
    module.zero_grad()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(cell: Cell, x: Tensor, backward: bool, clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one attention, input and direction."""
    cell.module.train(backward)
    se = create_attn("se", x.shape[1]).to(x.device, x.dtype).train(backward)
    calls: dict[str, Call] = {"floor": lambda t: t * 1.0, "se": se, "ours": cell.ours}
    if cell.naive is not None:
        calls["naive"] = cell.naive
    if args.device == "cuda":
        calls["compiled"] = torch.compile(cell.ours)
    runs = {name: step(call, x, backward) for name, call in calls.items()}
    memory = None
    if backward and cell.naive is not None:
        memory = peak_bytes(runs["ours"], cell.module, args.device) / peak_bytes(runs["naive"], cell.module, args.device)
    times = interleaved(runs, clock, args.seconds, args.rounds)
    median = {name: statistics.median(t) for name, t in times.items()}
    figures: dict[str, Any] = {f"{name}_ms": round(median[name], 4) if name in median else None for name in (*runs, "naive")}
    figures["speedup"] = ratio(times, "naive", "ours")
    figures["floors"] = ratio(times, "ours", "floor")
    figures["floors_naive"] = ratio(times, "naive", "floor")
    figures["memory"] = memory
    figures["rounds"] = len(times["ours"])
    if args.device == "cuda" and not backward and cell.name in STREAMING:
        moved = 2 * x.numel() * x.element_size()
        figures["bandwidth_share"] = {n: moved / median[n] * 1e3 / args.copy_bandwidth for n in ("ours", "naive", "compiled")}
    return {k: round(v, 3) if isinstance(v, float) and not k.endswith("_ms") else v for k, v in figures.items()}


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    times = interleaved({"copy": source.clone}, Clock("cuda", 1), 0.0, 20)["copy"]
    return 2 * source.numel() / statistics.median(times) * 1e3


def keep_freed_memory() -> None:
    """Has glibc keep freed memory. Else large tensors are new pages now and then, which costs more than the arithmetic."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX
    mallopt(-1, -1)  # M_TRIM_THRESHOLD


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """Figures for people, one attention a line."""
    columns = ("floor_ms", "se_ms", "naive_ms", "ours_ms", "compiled_ms", "speedup", "floors_naive", "floors", "memory")
    columns = tuple(c for c in columns if any(r.get(c) is not None for r in rows))
    lines = [title, "  " + f"{'attention':10}" + "".join(f"{c:>13}" for c in columns)]
    for r in rows:
        lines.append("  " + f"{r['module']:10}" + "".join(f"{r[c]:13.2f}" if r.get(c) is not None else f"{'-':>13}" for c in columns))
    return "\n".join(lines)


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured, where it was."""
    found = {
        r["module"]: r["floors"] for r in rows if (r["shape"], r["layout"], r["direction"]) == (list(TARGET_SHAPE), "contiguous", "forward")
    }
    met = [{"module": n, "floors": found[n], "at_most": most, "met": found[n] <= most} for n, most in TARGETS.items() if n in found]
    if {"fsla", "swin"} <= found.keys():
        ratio = found["fsla"] / found["swin"]
        met.append({"module": "fsla", "swins": ratio, "at_most": SWINS, "met": ratio <= SWINS})
    return met


def arguments() -> argparse.Namespace:
    names = [*TARGETS, "swin"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on CPU (1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: float32; cuda: bfloat16, also compiled")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each cell, at least three rounds (1.0)")
    parser.add_argument("--rounds", type=int, default=0, help="this many rounds a cell instead of --seconds")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="B,C,H,W", help="input shapes; FSLA and Swin need 7 * 2^k maps")
    parser.add_argument("--modules", nargs="+", default=names, choices=names, help="attentions to time (all)")
    parser.add_argument("--layouts", nargs="+", default=["contiguous", "channels_last"], choices=["contiguous", "channels_last"])
    parser.add_argument("--allocator", choices=("warm", "system"), default="warm", help="warm: freed memory is kept (glibc)")
    parser.add_argument("--quick", action="store_true", help="contiguous only, two rounds a cell")
    args = parser.parse_args()
    args.shapes = [tuple(int(n) for n in s.split(",")) for s in args.shapes] or list(SHAPES)
    if args.quick:
        args.layouts, args.rounds = args.layouts[:1], args.rounds or 2
    return args


def main() -> None:
    args = arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler counts memory; its own log is no figure
    torch.set_num_threads(args.threads)
    if args.device == "cpu" and args.allocator == "warm":
        keep_freed_memory()
    args.copy_bandwidth = copy_bandwidth() if args.device == "cuda" else None
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    clock, rows = Clock(args.device, args.threads), []
    for shape in args.shapes:
        torch.manual_seed(0)
        x = torch.randn(shape, device=args.device, dtype=dtype)
        for layout in args.layouts:
            if layout == "channels_last":
                x = x.to(memory_format=torch.channels_last)
            group: dict[str, list[dict[str, Any]]] = {d: [] for d in DIRECTIONS}
            for cell in cells(shape[1], args.modules):
                cell.module.to(args.device, dtype)
                check(cell, x)
                for direction, found in group.items():
                    key = {"shape": list(shape), "layout": layout, "module": cell.name, "direction": direction}
                    found.append(key | measure(cell, x, direction != "forward", clock, args))
            for direction, found in group.items():
                print(table(f"\n{tuple(shape)} {layout}, {direction}", found), flush=True)
                rows += found
    met = targets(rows) if args.device == "cpu" else []
    for t in met:
        unit = "floors" if "floors" in t else "swins"
        print(f"{t['module']}: {t[unit]:.2f} {unit}, target {t['at_most']:g}: {'met' if t['met'] else 'MISSED'}")
    about = {
        "torch": torch.__version__,
        "threads": args.threads,
        "device": args.device,
        "dtype": str(dtype).removeprefix("torch."),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(about | {"allocator": args.allocator, "copy_bandwidth": args.copy_bandwidth, "targets": met, "cells": rows}))


if __name__ == "__main__":
    main()
