"""Runtimes: how a built model is executed when its latency is measured.

A model ends with the callable that :meth:`Runtime.prepare` gave (torch's exporter alone keeps the last weights it saw).
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from types import FunctionType
from typing import Any
from warnings import catch_warnings
from weakref import finalize

import torch
from torch import Tensor, nn

from nasattn.errors import NasattnError, UsageError, did_you_mean

Forward = Callable[[], object]
Load = Callable[[nn.Module, Tensor], Forward]

# how far an output may be from eager's, relative to the greatest of eager's: room for folded and reordered arithmetic
TOLERANCES = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class RuntimeFailure(NasattnError):
    """A runtime cannot execute a model, or computes something else than eager torch. The message is one line."""


@dataclass(frozen=True)
class Runtime:
    """One way to execute a model.

    Attributes:
        name: As the user says it: ``eager``.
        devices: Where it runs: ``cpu``, ``cuda``.
        load: ``load(model, images)`` gives the callable, for a model in evaluation mode on the images' device and in their dtype.
        engines: Distributions whose versions decide the speed, for the device key.
        needs: Modules of the package's extra ``onnx`` without which it does not run.
    """

    name: str
    devices: tuple[str, ...]
    load: Load
    engines: tuple[str, ...] = ("torch",)
    needs: tuple[str, ...] = ()

    def version(self) -> str:
        """What the device key says of it: ``eager-torch2.15.0``, ``onnxruntime-1.31.1-torch2.15.0``."""
        numbers = {engine: version(engine).partition("+")[0] for engine in self.engines}
        return "-".join([self.name, *(n if engine == self.name else engine + n for engine, n in numbers.items())])

    def prepare(self, model: nn.Module, images: Tensor, *, channels_last: bool = False) -> Forward:
        """Make *model* ready to run on *images*; the first output is compared with eager torch's.

        Args:
            model: Gives one floating-point tensor. Moved in place to the images' device and dtype, and to evaluation mode.
            images: ``(B, C, H, W)`` in float32, on CUDA also float16 or bfloat16. The callable keeps them.
            channels_last: Keep the weights in torch's channels-last memory format; the images stay in the format they are given.
                ONNX Runtime has its own.

        Returns:
            A callable that runs one forward in inference mode and returns its output, a tensor or an array, when the work
            is done (on CUDA it synchronises). The next call may overwrite that output.

        Raises:
            UsageError: The runtime does not run on the images' device or in their dtype.
            RuntimeFailure: The model cannot be exported, compiled or run, or its output is not finite or not eager's.
        """
        self.check(images.device.type)
        self.check_dtype(images.dtype, images.device.type)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(images.device, images.dtype).to(memory_format=layout).eval()
        try:
            with torch.inference_mode():
                expected = _one_tensor(model(images)).clone()
            with redirect_stderr(io.StringIO()), catch_warnings(action="ignore"):  # an exporter prints pages before it fails
                forward = self.load(model, images)
                first = torch.as_tensor(forward(), device=images.device)
            _compare(first, expected)
        except Exception as error:
            placement = f"({model.placement})" if hasattr(model, "placement") else ""
            raise RuntimeFailure(f"runtime {self.name!r} cannot run {type(model).__name__}{placement}: {_one_line(error)}") from error
        return forward

    def check(self, device: str) -> None:
        """Raises UsageError when it does not run on *device* (``cpu``, ``cuda``, ``cuda:1``) or a package that it needs is missing."""
        if device.partition(":")[0] not in self.devices:
            refused = f"runtime {self.name!r} runs on {' and '.join(self.devices)}, not on {device!r}"
            raise UsageError(f"{refused}; runtimes of that device: {', '.join(list_runtimes(device)) or 'none'}")
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f'runtime {self.name!r} needs {", ".join(missing)}, not installed here: pip install "nasattn[onnx]"')

    def check_dtype(self, dtype: torch.dtype, device: str) -> None:
        """Raises UsageError when it does not run in *dtype* on *device* (``cpu``, ``cuda``)."""
        dtypes = list(TOLERANCES) if device == "cuda" else [torch.float32]
        if dtype not in dtypes:
            refused = f"runtime {self.name!r} on {device} takes no images in {dtype}"
            raise UsageError(f"{refused}; allowed: {', '.join(map(str, dtypes))}")


_RUNTIMES: dict[str, Runtime] = {}
_NUMBERS = count()


def get_runtime(name: str, device: str) -> Runtime:
    """The runtime called *name* (``eager``, ``compile``, ``cudagraph``, ``onnxruntime``) for *device* (``cpu``, ``cuda``, ``cuda:1``).

    Raises UsageError: an unknown name, a runtime that *device* does not have, or one whose packages are not installed.
    """
    if name not in _RUNTIMES:
        raise UsageError(f"unknown runtime {name!r}. {did_you_mean(name, _RUNTIMES)}Allowed: {', '.join(_RUNTIMES)}")
    _RUNTIMES[name].check(device)
    return _RUNTIMES[name]


def list_runtimes(device: str | None = None) -> list[str]:
    """Names of the runtimes; only of those that run on *device* when it is given."""
    return [r.name for r in _RUNTIMES.values() if device is None or device.partition(":")[0] in r.devices]


def _register(name: str, *devices: str, **facts: tuple[str, ...]) -> Callable[[Load], Load]:
    def register(load: Load) -> Load:
        _RUNTIMES[name] = Runtime(name, devices, load, **facts)
        return load

    return register


@_register("eager", "cpu", "cuda")
def _eager(model: nn.Module, images: Tensor) -> Forward:
    """The model as it is: its batch norms are operations of their own, as in any eager deployment."""
    return _finished(lambda: model(images), images)


@_register("compile", "cpu", "cuda")
def _compile(model: nn.Module, images: Tensor) -> Forward:
    """torch.compile by inductor in its default mode, for this one shape, as one graph.

    On CPU with freezing, as one deploys there: weights become constants in the order that the kernels want, batch norms are
    folded into convolutions. On CUDA without, as torch.compile is commonly used there.

    Dynamo keeps compiled code with a function's code object and after 8 versions (256 in all) goes back to eager silently.
    So each model is a code object of its own; a second version of it is an error, and so is a model of more than one graph.
    """
    from torch._dynamo.eval_frame import remove_from_cache
    from torch._inductor import config
    from torch._inductor.codecache import PyCodeCache

    known = {id(module) for module in PyCodeCache.modules}
    function = _own_code(lambda x: model(x))
    program: Any = torch.compile(function, fullgraph=True, dynamic=False, recompile_limit=1)  # type: ignore[call-overload]
    forward = _finished(lambda: program(images), images)
    finalize(forward, remove_from_cache, function).atexit = False  # frozen code refers to itself, unseen by the garbage collector
    with config.patch(freezing=not images.is_cuda):  # among torch.compile's options it does nothing: dynamo reads it before them
        forward()
    # inductor lists the modules it generates for as long as the process lives, and a frozen one holds the weights
    for module in [m for m in PyCodeCache.modules if id(m) not in known and m not in PyCodeCache.modules_no_attr.values()]:
        PyCodeCache.modules.remove(module)
        sys.modules.pop(module.__name__, None)
    return forward


@_register("cudagraph", "cuda")
def _cudagraph(model: nn.Module, images: Tensor) -> Forward:
    """Eager's kernels, captured once and replayed without Python."""
    with torch.cuda.device(images.device), torch.inference_mode():
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(3):  # as torch.cuda.make_graphed_callables does: libraries choose their kernels
                model(images)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = model(images)

    def replay(_kept: object = (model, images)) -> object:  # the graph reads both at their addresses
        graph.replay()
        return output

    return _finished(replay, images)


@_register("onnxruntime", "cpu", engines=("onnxruntime", "torch"), needs=("onnx", "onnxruntime", "onnxscript"))
def _onnxruntime(model: nn.Module, images: Tensor) -> Forward:
    """ONNX Runtime on CPU with torch's number of threads and all its graph optimisations, which fold batch norms."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    with torch.no_grad():
        program: Any = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    program.save(file := io.BytesIO())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.contiguous().numpy()}
    return lambda: session.run(None, feed)[0]


def _finished(run: Forward, images: Tensor) -> Forward:
    """*run* in inference mode, to the end of the work on the images' device."""

    @torch.inference_mode()
    def forward() -> object:
        output = run()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return output

    return forward


def _own_code(function: Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    """*function* with a code object that equals no other."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"forward_{next(_NUMBERS)}")
    return FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)


def _one_tensor(output: object) -> Tensor:
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    raise RuntimeFailure(f"the model gives {getattr(output, 'dtype', type(output).__name__)}, not one floating-point tensor")


def _compare(output: Tensor, expected: Tensor) -> None:
    """Raises RuntimeFailure when *output* is not what eager torch gives."""
    if output.shape != expected.shape:
        raise RuntimeFailure(f"its output has shape {tuple(output.shape)}, eager torch's {tuple(expected.shape)}")
    for whose, values in (("eager torch's", expected), ("its", output)):
        if not values.isfinite().all():
            raise RuntimeFailure(f"{whose} output is not finite")
    allowed = TOLERANCES[expected.dtype]
    far = float((output.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30))
    if far > allowed:
        raise RuntimeFailure(f"its output differs from eager torch's by {far:.2g} of the greatest value, more than {allowed:g}")


def _one_line(error: BaseException) -> str:
    """Kind and first line of the first cause: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind = "" if isinstance(error, RuntimeFailure) else f"{type(error).__name__}: "
    return kind + next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), "no message")
