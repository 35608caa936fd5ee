"""Real runtimes run real placements: same outputs as eager, weights of their own, nothing kept, one line when it fails."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasattn.errors import UsageError
from nasattn.hosts import get_host
from nasattn.latency.runtime import RuntimeFailure, get_runtime, list_runtimes

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PLACEMENTS = ["sge_g64,lka,ela_b,sb", "none,none,fsla,none"]
CUDA_DTYPES = [torch.float32, torch.float16, torch.bfloat16]
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def proxy(placement: str) -> nn.Module:
    """A tiny ResNet-18 whose batch norms and attentions have work to do."""
    model = get_host("nasattn_resnet18").build_proxy(placement, width=0.125, blocks=1, stem_stride=2, num_classes=10)
    torch.manual_seed(0)
    with torch.no_grad():
        for values in [*model.parameters(), *(b for name, b in model.named_buffers() if "running" in name)]:
            if values.dim() == 1:
                values.uniform_(0.5, 1.5)
    return model


def eager(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.inference_mode():
        return model.eval()(images).clone()


class Mean(nn.Module):
    """The smallest model: logits of the images' means."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Branch(Mean):
    """Which way it goes depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.sum() > 0 else -y


class Unfaithful(Mean):
    """Computes something else when it is compiled or exported."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return 1.05 * y if torch.compiler.is_compiling() else y


class Infinite(Mean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Pair(Mean):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


def test_names() -> None:
    assert list_runtimes() == ["eager", "compile", "cudagraph", "onnxruntime"]
    assert list_runtimes("cpu") == ["eager", "compile", "onnxruntime"]
    assert list_runtimes("cuda:0") == ["eager", "compile", "cudagraph"]


def test_versions_are_those_of_the_engines() -> None:
    release = torch.__version__.partition("+")[0]
    assert get_runtime("eager", "cpu").version() == f"eager-torch{release}"
    assert get_runtime("compile", "cuda").version() == f"compile-torch{release}"
    assert get_runtime("onnxruntime", "cpu").version() == f"onnxruntime-{version('onnxruntime')}-torch{release}"


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("onxruntime", "cpu", "unknown runtime 'onxruntime'. Did you mean 'onnxruntime'? Allowed: eager, compile, cudagraph, onnxruntime"),
        ("cudagraph", "cpu", "runtime 'cudagraph' runs on cuda, not on 'cpu'; runtimes of that device: eager, compile, onnxruntime"),
        ("onnxruntime", "cuda:0", "runtime 'onnxruntime' runs on cpu, not on 'cuda:0'; runtimes of that device: eager, compile, cudagraph"),
        ("eager", "tpu", "runtime 'eager' runs on cpu and cuda, not on 'tpu'; runtimes of that device: none"),
    ],
)
def test_a_wrong_name_or_device_is_refused(name: str, device: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        get_runtime(name, device)
    assert str(error.value) == message


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as error:
        get_runtime("onnxruntime", "cpu")
    assert str(error.value) == f"runtime 'onnxruntime' needs {package}, not installed here: pip install \"nasattn[onnx]\""


def test_cpu_takes_float32_alone() -> None:
    with pytest.raises(UsageError, match="runtime 'onnxruntime' on cpu takes no images in torch.bfloat16; allowed: torch.float32"):
        get_runtime("onnxruntime", "cpu").prepare(Mean(), IMAGES.bfloat16())


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        *((name, placement) for name in ("eager", "onnxruntime") for placement in PLACEMENTS),
        *(pytest.param("compile", placement, marks=pytest.mark.slow) for placement in PLACEMENTS),
    ],
)
def test_outputs_are_those_of_eager(name: str, placement: str) -> None:
    model = proxy(placement)
    expected = eager(model)
    forward = get_runtime(name, "cpu").prepare(model.train(), IMAGES)
    for _ in range(2):
        output = torch.as_tensor(forward())
        assert output.shape == (2, 10) and output.dtype == torch.float32 and not output.requires_grad
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["eager", "compile", "onnxruntime"])
def test_channels_last(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = eager(model)
    forward = get_runtime(name, "cpu").prepare(model, IMAGES, channels_last=True)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.as_tensor(forward()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["eager", "onnxruntime"])
def test_two_models_of_a_class_keep_their_weights(name: str) -> None:
    models = [Mean(), Mean()]
    expected = [eager(m) for m in models]
    forwards = [get_runtime(name, "cpu").prepare(m, IMAGES) for m in models]
    for forward, output in zip(forwards, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(forward()), output)


def test_compiled_on_cpu_weights_are_constants() -> None:
    """Freezing worked, which torch skips without a word: what the weights become afterwards makes no difference."""
    model = Mean()
    expected = eager(model)
    forward = get_runtime("compile", "cpu").prepare(model, IMAGES)
    nn.init.zeros_(model.head.weight)
    torch.testing.assert_close(forward(), expected)


def test_many_models_of_a_class_are_all_compiled() -> None:
    """Dynamo gives up on code that it compiled too often; placements of one host are the same code."""
    from torch._dynamo.utils import counters

    models = [Mean() for _ in range(10)]
    with torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=3):  # type: ignore[no-untyped-call]
        before = counters["stats"]["unique_graphs"]
        forwards = [get_runtime("compile", "cpu").prepare(m, IMAGES) for m in models]
        assert counters["stats"]["unique_graphs"] == before + 10
        outputs = [forward() for forward in forwards]
        assert counters["stats"]["unique_graphs"] == before + 10
    for model, output in zip(models, outputs, strict=True):
        torch.testing.assert_close(output, eager(model))


def test_compiled_code_never_gives_way_to_another() -> None:
    forward = get_runtime("compile", "cpu").prepare(Mean(), IMAGES)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit), torch.autocast("cpu", torch.bfloat16):
        forward()


@pytest.mark.parametrize("name", ["eager", "compile", "onnxruntime"])
def test_a_dropped_callable_keeps_nothing(name: str) -> None:
    """The weights themselves: compiled code that froze them and exported programs have copies and views."""
    kept = []
    for _ in range(2):
        model = Mean()
        forward = get_runtime(name, "cpu").prepare(model, IMAGES)
        forward()
        kept.append([weakref.ref(model), weakref.ref(forward), *map(weakref.ref, model.parameters())])
        del model, forward
        gc.collect()
    assert not any(ref() is not None for refs in kept[:-1] for ref in refs)


def test_frozen_weights_leave_with_the_callable() -> None:
    def tensors() -> int:
        gc.collect()
        found = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        return sum(t.layout == torch._mkldnn or t.shape == (7, 3, 5, 5) for t in found)

    def compile_one() -> Callable[[], object]:
        model = nn.Sequential(nn.Conv2d(3, 7, 5), nn.BatchNorm2d(7), nn.Flatten())
        return get_runtime("compile", "cpu").prepare(model, IMAGES)

    before = tensors()
    forward = compile_one()
    assert tensors() > before
    del forward
    assert tensors() == before


@pytest.mark.parametrize("name", ["compile", "onnxruntime"])
@pytest.mark.parametrize(
    ("model", "message"),
    [(Branch, "[Dd]ata-dependent"), (Unfaithful, "its output differs from eager torch's by 0.05 of the greatest value, more than 0.01")],
)
def test_what_a_runtime_cannot_run_is_said_in_one_line(
    name: str, model: type[nn.Module], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    get_runtime("eager", "cpu").prepare(model(), IMAGES)
    with pytest.raises(RuntimeFailure, match=message) as error:
        get_runtime(name, "cpu").prepare(model(), IMAGES)
    assert str(error.value).startswith(f"runtime '{name}' cannot run {model.__name__}: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("model", "message"),
    [(Infinite, "eager torch's output is not finite"), (Pair, "the model gives tuple, not one floating-point tensor")],
)
def test_a_model_that_eager_cannot_vouch_for_is_refused(model: type[nn.Module], message: str) -> None:
    with pytest.raises(RuntimeFailure) as error:
        get_runtime("eager", "cpu").prepare(model(), IMAGES)
    assert str(error.value) == f"runtime 'eager' cannot run {model.__name__}: {message}"


def test_a_failure_names_the_placement() -> None:
    model = proxy("none,sge_g64,none,none")
    nn.init.constant_(model.get_submodule("fc").weight, np.inf)  # type: ignore[arg-type]
    with pytest.raises(RuntimeFailure, match=rf"runtime 'eager' cannot run PlacementResNet\({model.placement}\): eager torch's output"):
        get_runtime("eager", "cpu").prepare(model, IMAGES)


@on_cuda
@pytest.mark.parametrize("dtype", CUDA_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["eager", "cudagraph", "compile"])
def test_outputs_on_cuda(name: str, dtype: torch.dtype, channels_last: bool) -> None:
    images = IMAGES.to("cuda", dtype)
    for placement in PLACEMENTS:
        model = proxy(placement)
        expected = eager(model.to("cuda", dtype), images)
        forward = get_runtime(name, "cuda").prepare(model.cpu().float(), images, channels_last=channels_last)
        torch.testing.assert_close(forward(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@on_cuda
def test_a_graph_reads_the_images_anew() -> None:
    images, model = IMAGES.cuda(), Mean().cuda()
    forward = get_runtime("cudagraph", "cuda").prepare(model, images)
    images.mul_(2)
    torch.testing.assert_close(forward(), eager(model, images))


@on_cuda
def test_a_model_that_asks_the_device_cannot_be_captured() -> None:
    with pytest.raises(RuntimeFailure, match="runtime 'cudagraph' cannot run Branch"):
        get_runtime("cudagraph", "cuda").prepare(Branch(), IMAGES.cuda())
