"""FSLA for any number of tokens: balanced clusters, independent images, plain attention for one cluster."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nasattn.attention import create_attention
from nasattn.attention.fsla import cluster_tokens

NUMBERS = [1, 2, 7, 48, 49, 97, 98, 99, 147, 195, 196, 197, 225, 784, 997]


def levels_of(tokens: int, cluster: int = 49) -> int:
    return max(tokens // cluster, 1).bit_length() - 1


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("tokens", NUMBERS)
def test_any_number_of_tokens_and_independent_images(tokens: int) -> None:
    module = create_attention("fsla_h2", 8, dtype=torch.float64)
    x = draw(3, tokens, 8).requires_grad_()
    y = module.forward_tokens(x, tokens, 1)
    y.square().sum().backward()
    assert y.shape == x.shape and y.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    for i in range(3):
        torch.testing.assert_close(module.forward_tokens(x[i : i + 1], tokens, 1), y[i : i + 1])


@pytest.mark.parametrize(("token", "size"), [("fsla", (1, 1)), ("fsla", (7, 7)), ("fsla", (1, 97)), ("fsla_c25_h2_o3", (7, 7))])
def test_one_cluster_is_plain_attention(token: str, size: tuple[int, int]) -> None:
    C = 64
    module = create_attention(token, C, dtype=torch.float64)
    x = draw(2, C, *size)
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = (t.unflatten(2, (2, C // 2)).transpose(1, 2) for t in module.qkv(tokens).chunk(3, dim=2))
    attention = torch.softmax(q @ k.transpose(2, 3) * (C // 2) ** -0.5, dim=3) @ v
    v_image = v.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, size)
    local = torch.nn.functional.conv2d(v_image, module.get_v.weight, module.get_v.bias, padding=1, groups=C)
    expected = module.proj(attention.transpose(1, 2).flatten(2) + local.flatten(2).transpose(1, 2))
    torch.testing.assert_close(module(x), expected.transpose(1, 2).unflatten(2, size))


@pytest.mark.parametrize("tokens", [n for n in NUMBERS if levels_of(n) > 0])
def test_every_token_has_one_slot_and_clusters_are_balanced(tokens: int) -> None:
    levels = levels_of(tokens)
    order, real = cluster_tokens(draw(2, 3, tokens, 4), levels)
    assert order.shape == (2, 3, *real.shape) and len(real) == 2**levels
    sizes = real.sum(1)
    assert sizes.max() - sizes.min() <= 1
    assert real.shape[1] == sizes.max()
    for placed in order[:, :, real].flatten(0, 1):
        assert torch.equal(placed.sort().values, torch.arange(tokens))


@pytest.mark.parametrize(("tokens", "levels"), [(3, 1), (5, 2), (11, 3), (63, 5), (64, 6)])
def test_tiny_clusters_are_balanced_too(tokens: int, levels: int) -> None:
    order, real = cluster_tokens(draw(1, 1, tokens, 4), levels)
    assert set(real.sum(1).tolist()) <= {tokens // 2**levels, -(-tokens // 2**levels)}
    assert torch.equal(order[0, 0][real].sort().values, torch.arange(tokens))


@pytest.mark.parametrize("tokens", [98, 99, 131])
def test_alike_tokens_meet(tokens: int) -> None:
    first = -(-tokens // 2)
    kind = torch.cat([torch.ones(first), -torch.ones(tokens - first)])
    kind = kind[torch.randperm(tokens, generator=torch.Generator().manual_seed(2))]
    q = kind[:, None] * torch.tensor([1.0, 2.0, -1.0]) + 0.01 * draw(tokens, 3, dtype=torch.float32)
    order, real = cluster_tokens(q[None, None], 1)
    for cluster, slots in zip(order[0, 0], real, strict=True):
        share = (kind[cluster[slots]] == kind[cluster[0]]).float().mean()
        assert share >= 1 - 1.5 / len(cluster)  # where N is odd one token may be left over


def test_half_precision_is_clustered_in_float32() -> None:
    q = draw(2, 2, 784, 32, dtype=torch.float32).bfloat16()
    expected, _ = cluster_tokens(q.float(), 4)
    assert torch.equal(cluster_tokens(q, 4)[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cluster_tokens(q, 4)[0], expected)
        assert torch.equal(cluster_tokens(q.float(), 4)[0], expected)


@pytest.mark.parametrize("tokens", [99, 9000, 33000])  # sorted as they are, filled up for a sort by radix, sorted by radix
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tokens_that_are_all_equal_keep_their_order(value: float, dtype: torch.dtype, tokens: int) -> None:
    order, real = cluster_tokens(torch.full((1, 1, tokens, 4), value, dtype=dtype), 1)
    assert torch.equal(order[0, 0][real], torch.arange(tokens))


@pytest.mark.parametrize("tokens", [98, 99, 9001, 33000])
def test_one_image_that_is_not_finite_leaves_the_others_alone(tokens: int) -> None:
    q = draw(3, 2, tokens, 4, dtype=torch.float32)
    expected, _ = cluster_tokens(q[1:2], 1)
    q[0], q[2] = torch.nan, torch.inf
    assert torch.equal(cluster_tokens(q, 1)[0][1:2], expected)


@pytest.mark.parametrize("size", [(7, 7), (14, 7), (15, 7)])
def test_a_batch_in_parts_gives_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = create_attention("fsla", 64, dtype=torch.float64), draw(5, 64, *size)
    expected = module(x)
    monkeypatch.setattr("nasattn.attention.fsla.CACHED_VALUES", 2 * 64 * 98)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = module(x.to(memory_format=layout))
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [(14, 14), (15, 7), (1, 1)])
def test_exports_for_one_batch(size: tuple[int, int]) -> None:
    module, x = create_attention("fsla", 64).eval(), draw(2, 64, *size, dtype=torch.float32)
    program = torch.export.export(module, (x + 1,))
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (32, 1), (64, 2), (96, 3), (100, 2), (256, 8)])
def test_heads_have_at_least_32_channels(channels: int, heads: int) -> None:
    module = create_attention("fsla", channels, device="meta")
    assert module.heads == heads
    assert module.scale == pytest.approx((channels / heads) ** -0.5)


@pytest.mark.parametrize(("token", "overlap"), [("fsla", 20), ("fsla_c25", 10), ("fsla_c1", 0), ("fsla_c49_o7", 7), ("fsla_c4_o4", 4)])
def test_overlap_is_the_papers_share(token: str, overlap: int) -> None:
    module = create_attention(token, 8, dtype=torch.float64)
    assert module.overlap == overlap
    x = draw(2, 8, 3, 33)
    torch.testing.assert_close(module(x)[:1], module(x[:1]))
