"""The contract of every attention: shapes, small maps, precision, layout, copies, initialisation, size."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from nasattn.attention import Attention, create_attention, list_attention
from nasattn.attention.comparison import COMPARISON

OPTIONS = ["sge_g1", "sge_g16", "ela_k3_c2_n4", "lka_k7_d2", "lka_k14_d3", "lka_k28_d4", "lka_k5_d1", "fsla_c4", "fsla_c25_o0_h4"]
TOKENS = [*(t for t in list_attention() if t != "sb"), *OPTIONS]
WIDENING = ["sb", "sb_p6", "sb_k1_m2", "sb_p1"]
OWN = [t for t in (*TOKENS, *WIDENING) if t not in COMPARISON]
SIZES = [(1, 1), (1, 3), (3, 1), (5, 9), (7, 7), (14, 7)]
CHANNELS = 64

every_token = pytest.mark.parametrize("token", [*TOKENS, *WIDENING])
own_token = pytest.mark.parametrize("token", OWN)


def build(token: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    module = create_attention(token, CHANNELS, **kwargs)  # type: ignore[arg-type]
    with torch.no_grad():  # weights that a trained network could have: SGE's start at zero
        for parameter in module.parameters():
            if not parameter.is_meta and not parameter.any():
                parameter.normal_(std=0.5)
    return module


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("token", TOKENS)
def test_shape_is_kept(token: str) -> None:
    y = build(token)(image(2, CHANNELS, 14, 14))
    assert y.shape == (2, CHANNELS, 14, 14)
    assert y.dtype == torch.float32


@pytest.mark.parametrize(("token", "maps", "pool"), [("sb", 3, 10), ("sb_p6", 3, 6), ("sb_k1_m2", 2, 10), ("sb_p1", 3, 1)])
def test_spatial_bias_gives_maps(token: str, maps: int, pool: int) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 9, 14)
    bias = module(x)
    assert module.maps == maps
    assert bias.shape == (2, maps, pool, pool)
    resized = module(x, size=(9, 14))
    assert resized.shape == (2, maps, 9, 14)
    torch.testing.assert_close(resized, nn.functional.interpolate(bias, size=(9, 14), mode="bilinear", align_corners=False))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@own_token
def test_any_map_and_batch_is_finite(token: str, training: bool) -> None:
    for size in SIZES:
        for batch in (1, 2):
            x = image(batch, CHANNELS, *size)
            y = check_finite(build(token).train(training), x)
            assert y.shape == x.shape or token in WIDENING


@pytest.mark.parametrize("token", COMPARISON)
def test_timms_modules_on_any_map(token: str) -> None:
    for size in [(7, 7), (14, 7)] if token == "bat" else SIZES:  # bat cuts the map into 7 x 7 blocks
        for batch in (1, 2):
            x = image(batch, CHANNELS, *size)
            assert check_finite(build(token).eval(), x).shape == x.shape


@own_token
def test_an_empty_batch_passes(token: str) -> None:
    for training in (True, False):
        module = build(token).train(training)
        y = check_finite(module, torch.empty(0, CHANNELS, 14, 14))
        assert y.shape[0] == 0


@every_token
def test_channels_last_gives_the_same(token: str) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 14, 7)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x))
    module = module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x))


@every_token
def test_bfloat16_autocast_is_finite_and_near(token: str) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 14, 7)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        y_half = module(x.bfloat16())
        check_finite(module, image(2, CHANNELS, 14, 7))
    if not token.startswith("fsla") and token not in COMPARISON:  # FSLA's queries, in bfloat16, may choose another cluster
        torch.testing.assert_close(y.float(), expected, atol=0.1, rtol=0.1)
        torch.testing.assert_close(y_half.float(), expected, atol=0.1, rtol=0.1)


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


@pytest.mark.parametrize(
    ("token", "parameters"),
    [
        ("none", 0),
        ("sge_g16", 2 * 16),
        ("sge", 2 * 64),
        ("ela_t", 7 * CHANNELS),
        ("ela_b", 9 * CHANNELS),
        ("ela_s", 42 * CHANNELS),
        ("ela_l", 58 * CHANNELS),
        ("lka", (26 + 50 + CHANNELS + 1) * CHANNELS),
        ("lka_k7_d2", (10 + 17 + CHANNELS + 1) * CHANNELS),
        ("fsla", 4 * CHANNELS**2 + 14 * CHANNELS),
        ("sb", 5 * CHANNELS + 2 * 5 + 100 * 100 * 3 + 100),
        ("sb_p6", 5 * CHANNELS + 2 * 5 + 36 * 36 * 3 + 36),
    ],
)
def test_number_of_parameters(token: str, parameters: int) -> None:
    assert sum(p.numel() for p in build(token).parameters()) == parameters


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1e4])
@pytest.mark.parametrize("token", ["sge_g8", "ela_t", "fsla_c4"])
def test_a_constant_map_gives_no_nan(token: str, value: float, training: bool) -> None:
    check_finite(build(token).train(training), torch.full((2, CHANNELS, 6, 5), value))


@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_sge_gates_a_constant_map_by_its_bias(size: tuple[int, int]) -> None:
    x = torch.full((2, 8, *size), 0.5)
    torch.testing.assert_close(create_attention("sge_g4", 8)(x), x * torch.sigmoid(torch.tensor(1.0)))


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 2), (14, 3), (21, 3), (28, 4)])
def test_lka_sees_as_far_as_its_kernel(kernel: int, dilation: int) -> None:
    module = create_attention(f"lka_k{kernel}_d{dilation}", 1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    x = torch.ones(1, 1, 65, 65, dtype=torch.float64, requires_grad=True)
    module(x)[0, 0, 32, 32].backward()
    reach = (2 * dilation - 1) + dilation * (-(-kernel // dilation) - 1)
    assert reach >= kernel
    for dim in (0, 1):
        seen = x.grad[0, 0].any(dim).nonzero().squeeze(1)
        assert len(seen) == seen.max() - seen.min() + 1 == reach


@own_token
def test_eval_is_a_function_of_each_image_alone(token: str) -> None:
    module, x = build(token, dtype=torch.float64).eval(), image(3, CHANNELS, 14, 7).double()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


@pytest.mark.parametrize("token", ["sge", "ela_l", "lka", "fsla", "sb"])
def test_export_keeps_the_numbers(token: str) -> None:
    module, x = build(token).eval(), image(2, CHANNELS, 15, 7)
    exported = torch.export.export(module, (image(2, CHANNELS, 15, 7) + 1,)).module()
    torch.testing.assert_close(exported(x), module(x))


def test_every_form_is_covered() -> None:
    assert {Attention.parse(t).form for t in (*TOKENS, *WIDENING)} == {"none", "gate", "branch", "widening"}
