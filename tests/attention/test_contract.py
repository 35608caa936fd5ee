"""The contract of every attention, ours and timm's: shapes, gradients, layouts, precision, copies, compilers and exporters."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from functools import cache

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import nasattn.attention
from nasattn.attention import Attention, create_attention, list_attention
from nasattn.attention.comparison import COMPARISON
from nasattn.errors import TokenError

CHANNELS = 64
OPTIONS = [
    *("sge_g1", "sge_g16", "ela_k3_c2_n4", "lka_k7_d2", "lka_k14_d3", "lka_k28_d4", "lka_k5_d1", "fsla_c4", "fsla_c25_o0_h4"),
    *("sb_p6", "sb_k1_m2", "sb_p1"),
]
TOKENS = [*list_attention(), *OPTIONS]
OWN = [t for t in TOKENS if t not in COMPARISON]
SIZES = [(1, 1), (1, 3), (3, 1), (2, 2), (5, 9), (7, 7), (14, 7)]

# what timm's modules cannot do, and why
NEEDS_SEVENS = {"bat": "it cuts the map into 7 x 7 blocks"}
NO_TRAINING_ON_ONE_IMAGE = dict.fromkeys(("sk", "cbam", "nl"), "they hold a batch norm, to which a pooled or 1x1 map gives a single value")
NO_EMPTY_BATCH = dict.fromkeys(("eca", "nl", "bat"), "they reshape with -1, which is ambiguous for an empty tensor")
CHANNELS_LAST_IS_LOST = {"sk": "it stacks its paths along a new dimension", "bat": "it ends in a reshape"}
QUADRATIC = {"nl": "its attention is over all pairs of positions"}

every_token = pytest.mark.parametrize("token", TOKENS)
own_token = pytest.mark.parametrize("token", OWN)
# compilers and exporters take seconds: the options are left to the slow run


def shown_but_for(*slow: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "token", [pytest.param(t, marks=pytest.mark.slow) if t in slow else t for t in (*list_attention(), *OPTIONS)]
    )


shown_token = shown_but_for(*OPTIONS)
quickly_compiled_token = shown_but_for("fsla", "bat", *OPTIONS)
own_shown_token = pytest.mark.parametrize("token", [t for t in list_attention() if t not in COMPARISON])
half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


def build(token: str, channels: int = CHANNELS, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    module = create_attention(token, channels, **kwargs)  # type: ignore[arg-type]
    with torch.no_grad():  # weights that a trained network could have: SGE's start at zero
        for parameter in module.parameters():
            if not parameter.is_meta and not parameter.any():
                parameter.normal_(std=0.5)
    return module


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def is_widening(token: str) -> bool:
    return Attention.parse(token).form == "widening"


def check_finite(module: nn.Module, x: Tensor) -> Tensor:
    """Forward and backward; everything that comes out of it is finite."""
    x = x.requires_grad_()
    y = module(x)
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(b.isfinite().all() for b in module.buffers())
    return y


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_token
def test_any_map_and_batch_is_finite(token: str, training: bool) -> None:
    for size in [(7, 7), (14, 7)] if token in NEEDS_SEVENS else SIZES:
        for batch in (1, 2, 3):
            if training and batch == 1 and token in NO_TRAINING_ON_ONE_IMAGE:
                continue
            x = image(batch, CHANNELS, *size)
            y = check_finite(build(token).train(training), x)
            assert y.dtype == torch.float32
            assert y.shape == x.shape or is_widening(token)


@pytest.mark.parametrize("token", [t for t in TOKENS if t not in NEEDS_SEVENS and t not in QUADRATIC])
def test_a_very_large_map(token: str) -> None:
    channels = next(c for c in (8, 16, 32, 64) if Attention.parse(token).problem(c) is None)
    module, x = build(token, channels).eval(), image(1, channels, 257, 511)
    with torch.no_grad():
        y, y_last = module(x), module(x.to(memory_format=torch.channels_last))
    assert y.isfinite().all()
    assert y.shape == x.shape or is_widening(token)
    near = torch.isclose(y_last, y, atol=1e-4, rtol=1e-4).float().mean()
    assert near > (0.99 if token.startswith("fsla") else 0.99999)  # among so many tokens rounding moves a few to another cluster


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("token", [t for t in TOKENS if t not in NO_EMPTY_BATCH])
def test_an_empty_batch_passes(token: str, training: bool) -> None:
    assert len(check_finite(build(token).train(training), torch.empty(0, CHANNELS, 14, 14))) == 0


@pytest.mark.parametrize("value", [0.0, 1.0, -1e4])
@own_token
def test_a_constant_map_gives_no_nan(token: str, value: float) -> None:
    for training in (True, False):
        check_finite(build(token).train(training), torch.full((2, CHANNELS, 6, 5), value))


@every_token
def test_the_memory_layout_is_kept(token: str) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 14, 7)
    expected = module(x)
    assert expected.is_contiguous() or token in COMPARISON
    for moved in (module, copy.deepcopy(module).to(memory_format=torch.channels_last)):
        y = moved(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous(memory_format=torch.channels_last) or token in CHANNELS_LAST_IS_LOST


@half
@every_token
def test_autocast_is_finite_and_near(token: str, dtype: torch.dtype) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 7, 7)
    expected = module(x)
    with torch.autocast("cpu", dtype):
        y, y_half = module(x), module(x.to(dtype))
        check_finite(module, image(2, CHANNELS, 14, 7))
    if token not in ("fsla_c4", "nl"):  # rounded queries may choose another cluster; nl's softmax is sharp
        torch.testing.assert_close(y.float(), expected, atol=0.03, rtol=0.03)
        torch.testing.assert_close(y_half.float(), expected, atol=0.03, rtol=0.03)


@half
@pytest.mark.parametrize("token", ["sge", "sge_g1", "sge_g16", *(f"ela_{v}" for v in "tbsl")])
def test_statistics_of_half_precision_are_taken_in_float32(token: str, dtype: torch.dtype) -> None:
    # far from zero, half precision keeps nothing of what the statistics are about
    module, x = build(token).eval(), (image(2, CHANNELS, 14, 7) + 64).to(dtype)
    expected = module(x.float())
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(module(x).float(), expected, atol=0, rtol=2 * torch.finfo(dtype).eps)


@own_token
def test_dtype_of_the_parameters(token: str) -> None:
    real = build(token, dtype=torch.float64)
    assert real(image(2, CHANNELS, 7, 7).double()).dtype == torch.float64
    assert all(p.dtype == torch.float64 for p in real.parameters())
    assert build(token, dtype=torch.bfloat16)(image(2, CHANNELS, 7, 7).bfloat16()).isfinite().all()


@every_token
def test_meta_device_builds_and_runs(token: str) -> None:
    meta, real = build(token, device="meta"), build(token)
    assert all(t.is_meta for t in (*meta.parameters(), *meta.buffers()))
    assert {k: v.shape for k, v in meta.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
    x = image(2, CHANNELS, 21, 7)  # 147 tokens: 3 clusters of 49, uneven for FSLA's bisection
    assert meta(x.to("meta")).shape == real(x).shape


@every_token
def test_copies_and_state_dict_give_the_same(token: str) -> None:
    module, x = build(token), image(2, CHANNELS, 14, 7)
    module(x)  # moves running statistics, where there are any
    module.eval()
    expected = module(x)
    torch.manual_seed(5)
    fresh = create_attention(token, CHANNELS).eval()
    fresh.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert torch.equal(twin(x), expected)


@own_token
def test_reset_parameters_gives_a_fresh_start(token: str) -> None:
    module = build(token)
    module(image(2, CHANNELS, 14, 7))
    torch.manual_seed(3)
    module.reset_parameters()
    torch.manual_seed(3)
    fresh = create_attention(token, CHANNELS).state_dict()
    assert module.state_dict().keys() == fresh.keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, fresh[name]), name


@every_token
def test_eval_is_a_function_of_each_image_alone(token: str) -> None:
    module, x = build(token, dtype=torch.float64).eval(), image(3, CHANNELS, 14, 7).double()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


@every_token
def test_repr_of_the_attention_can_be_pasted_back(token: str) -> None:
    attention = Attention.parse(token)
    assert eval(repr(attention), {"Attention": Attention}) == attention == Attention.parse(str(attention))


def check_compiled(token: str, backend: str, shapes: list[tuple[int, int, int]]) -> None:
    torch._dynamo.reset()
    module = build(token).eval()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for batch, height, width in shapes:
            x = image(batch, CHANNELS, height, width)
            torch.testing.assert_close(compiled(x), module(x), atol=1e-4, rtol=1e-4)


@quickly_compiled_token
def test_compiles_whole_for_any_shape(token: str) -> None:
    check_compiled(token, "aot_eager", [(2, 14, 7), (3, 7, 14), (3, 21, 7)])


@pytest.mark.slow
@own_shown_token
def test_compiles_by_inductor(token: str) -> None:
    check_compiled(token, "inductor", [(2, 14, 14), (3, 7, 28), (3, 21, 7), (2, 15, 7)])


@pytest.mark.slow
@own_shown_token
def test_trains_when_compiled(token: str) -> None:
    torch._dynamo.reset()
    eager = build(token).eval()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    x = image(2, CHANNELS, 21, 7)
    torch.testing.assert_close(check_finite(compiled, x.clone()), check_finite(eager, x.clone()))
    for parameter, expected in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


@cache
def exported(token: str) -> tuple[nn.Module, torch.export.ExportedProgram]:
    """The module, and its program for 14 x 7 maps and any batch."""
    module = build(token).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    return module, torch.export.export(module, (image(2, CHANNELS, 14, 7) + 1,), dynamic_shapes=({0: batch},))


@shown_token
def test_export_keeps_the_numbers(token: str) -> None:
    module, program = exported(token)
    for batch in (1, 2, 5):
        x = image(batch, CHANNELS, 14, 7)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore")
@shown_token
def test_onnx_runtime_gives_the_same(token: str) -> None:
    module, program = exported(token)
    file = io.BytesIO()
    torch.onnx.export(program, dynamo=True, verbose=False).save(file)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = image(batch, CHANNELS, 14, 7)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), module(x).detach(), atol=1e-4, rtol=1e-4)


@every_token
def test_torchscript(token: str) -> None:
    """Ours can be traced; timm's, as timm promises, scripted."""
    module, x = build(token).eval(), image(2, CHANNELS, 14, 7)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.script(module) if token in COMPARISON else torch.jit.trace(module, x + 1, check_trace=False)
        torch.testing.assert_close(script(x), module(x))


def test_every_form_is_covered() -> None:
    assert {Attention.parse(t).form for t in TOKENS} == {"none", "gate", "branch", "widening"}


@own_token
def test_repr_builds_the_same_module_again(token: str) -> None:
    module = build(token)
    twin = eval(repr(module), vars(nasattn.attention))
    assert repr(twin) == repr(module) and "\n" not in repr(module)
    twin.load_state_dict(module.state_dict())
    x = image(2, CHANNELS, 14, 7)
    assert torch.equal(twin.eval()(x), module.eval()(x))


@own_token
def test_identity_start(token: str) -> None:
    """Nothing changes until it is trained, and training finds the way out."""
    if is_widening(token):
        with pytest.raises(TokenError, match="widens its block: only a host can let it start as the identity"):
            create_attention(token, CHANNELS, identity_start=True)
        return
    torch.manual_seed(0)
    module, x = create_attention(token, CHANNELS, identity_start=True), image(2, CHANNELS, 14, 7)
    assert torch.equal(module(x), x)
    if token == "none":
        return
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (module(x) * image(2, CHANNELS, 14, 7).flip(0)).sum().backward()
        assert module.strength.grad if hasattr(module, "strength") else module.branch.strength.grad
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for n, p in module.named_parameters() if not n.endswith("qkv.bias"))
    assert not torch.equal(module(x), x)
    module.reset_parameters()
    assert torch.equal(module(x), x)
