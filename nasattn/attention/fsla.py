"""BOAT: Bilateral Local Attention Vision Transformer, its feature-space local attention (arXiv 2201.13027).

Per image and head, tokens are clustered by balanced bisection of their queries; each cluster attends to itself and to
an overlap with its sibling: softmax(q k^T * scale) v, plus a depthwise 3x3 of v, then a linear projection.

Shapes: B batch, C channels, N = H * W tokens, h heads of D channels, G clusters of S slots.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.module import AttentionModule
from nasattn.attention.precision import CACHED_VALUES, is_eager, without_autocast
from nasattn.attention.token import Option, register_attention
from nasattn.errors import TokenError

RADIX = 2**15  # keys from which torch sorts integers by radix on CPU (at::internal::GRAIN_SIZE)
TEMPERATURE = 100.0  # of the soft assignment, in the authors' code
HEAD_CHANNELS = 32  # in every configuration of the paper


def _default_overlap(options: Mapping[str, int | None]) -> int:
    """The paper's share, 20 slots of 49."""
    return round((options["cluster"] or 0) * 20 / 49)


def _check(channels: int, options: Mapping[str, int | None]) -> str | None:
    overlap, cluster = options["overlap"], options["cluster"]
    if overlap is not None and cluster is not None and overlap > cluster:
        return f"overlap {overlap} is larger than the cluster of {cluster}; use at most {cluster}"
    return divides(channels, options["heads"], "heads") if channels else None


@register_attention(
    "fsla",
    options=(
        Option("c", "cluster", 49, shown=True),
        Option("o", "overlap", None, minimum=0, derived=_default_overlap),
        Option("i", "iterations", 2),
        Option("h", "heads", None, counts_groups=True),
    ),
    form="branch",
    paper="BOAT, feature-space local attention (arXiv 2201.13027)",
    check=_check,
)
class FeatureSpaceLocalAttention(AttentionModule):
    """Attention among tokens that are alike, wherever they lie: ``(B, C, H, W) -> (B, C, H, W)``.

    It has no residual of its own; hosts add one. ``overlap`` defaults to 20/49 of the cluster (the paper's 20 of 49),
    ``heads`` to the largest divisor of C that leaves at least 32 channels a head, ``scale`` to D^-0.5 (the authors'
    BOAT-CSWin code passes 1). Parameters: 4 C^2 + 14 C, initialised as torch's Linear and Conv2d.

    Unlike the authors' code any N >= 1 works: clusters hold S or S-1 tokens, S = ceil(N / 2^levels) with levels =
    floor(log2(N // cluster)), and one cluster is plain attention within the image. Clustering and sorting (stable)
    run in float32 for half-precision inputs, and no gradient passes through the assignment.

    Raises:
        TokenError: ``heads`` does not divide C, or the overlap is larger than the cluster.
    """

    def __init__(
        self,
        channels: int,
        cluster: int = 49,
        overlap: int | None = None,
        iterations: int = 2,
        heads: int | None = None,
        scale: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if wrong := _check(channels, {"heads": heads, "overlap": overlap, "cluster": cluster}):
            raise TokenError(f"fsla_c{cluster}: {wrong}")
        self.channels, self.cluster, self.iterations = channels, cluster, iterations
        self.overlap = _default_overlap({"cluster": cluster}) if overlap is None else overlap
        self.heads = heads or max(h for h in range(1, channels + 1) if channels % h == 0 and (channels // h >= HEAD_CHANNELS or h == 1))
        self.scale = scale if scale is not None else (channels // self.heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels, device=device, dtype=dtype)
        self.proj = nn.Linear(channels, channels, device=device, dtype=dtype)
        self.get_v = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        for layer in (self.qkv, self.proj, self.get_v):
            layer.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)
        if x_BCHW.is_contiguous():
            return self._by_parts(x_BNC, H, W, channels_first=True).view(B, C, H, W)
        return self._by_parts(x_BNC, H, W).transpose(1, 2).view(B, C, H, W)

    def forward_tokens(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """The same on row-major tokens, ``(B, H * W, C) -> (B, H * W, C)``."""
        return self._by_parts(x_BNC, height, width)

    def _by_parts(self, x_BNC: Tensor, height: int, width: int, channels_first: bool = False) -> Tensor:
        """``(B, N, C)``, or ``(B, C, N)`` with *channels_first*. A CPU takes a few images at a time, to stay in its cache."""
        B, N, C = x_BNC.shape
        parts = min(-(-B * N * C // CACHED_VALUES), B) if _eager_on_cpu(x_BNC) else 1
        if parts <= 1:
            y_BNC = self._attention(x_BNC, height, width)
            return y_BNC.transpose(1, 2).contiguous() if channels_first else y_BNC
        if torch.is_grad_enabled():
            return torch.cat([self._by_parts(part, height, width, channels_first) for part in x_BNC.chunk(parts)])
        images = x_BNC.chunk(parts)
        first = self._attention(images[0], height, width)
        out = first.new_empty((B, C, N) if channels_first else (B, N, C))
        places = (out.transpose(1, 2) if channels_first else out).chunk(parts)
        places[0].copy_(first)
        for place, part in zip(places[1:], images[1:], strict=True):
            place.copy_(self._attention(part, height, width))
        return out

    def _attention(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        B, N, C = x_BNC.shape
        levels = 0
        while self.cluster << (levels + 1) <= N:
            levels += 1
        qkv_BNC = self.qkv(x_BNC.reshape(B * N, C)).view(B, N, 3 * C)  # two dimensions: torch then adds the bias within the product
        out_BNC = self._clustered(qkv_BNC, levels) if levels else self._plain(qkv_BNC)
        v_BHWC = qkv_BNC[:, :, 2 * C :].unflatten(1, (height, width))
        local_BHWC = self.get_v(v_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = self.proj((out_BNC + local_BHWC.reshape(B, N, C)).view(B * N, C))
        return y.view(B, N, C)

    def _plain(self, qkv_BNC: Tensor) -> Tensor:
        q, k, v = qkv_BNC.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return _attend(q, k, v, self.scale).transpose(1, 2).flatten(2)

    def _clustered(self, qkv_BNC: Tensor, levels: int) -> Tensor:
        B, N, C = qkv_BNC.shape[0], qkv_BNC.shape[1], qkv_BNC.shape[2] // 3
        h, D = self.heads, C // self.heads
        order_BhGS, real_GS = cluster_tokens(qkv_BNC.unflatten(2, (3, h, D))[:, :, 0].transpose(1, 2), levels, self.iterations)
        G, S = real_GS.shape
        P, overlap = G // 2, min(self.overlap, S)

        # rows of D channels: q of a token and head, k h rows behind it, v 2 h behind it
        row = _index(order_BhGS.flatten(2), N * 3, h, step=3)
        rows = torch.stack([row, row + h, row + 2 * h]).flatten()
        q, k, v = qkv_BNC.reshape(B * N * 3 * h, D).index_select(0, rows).view(3, B * h, P, 2 * S, D)
        bias_P1K = None
        if N < G * S:
            real_P1K = real_GS.view(P, 1, 2 * S)
            bias_P1K = torch.zeros_like(real_P1K, dtype=q.dtype).masked_fill(~real_P1K, -torch.inf)

        # a pair of clusters is a run of 2 S slots: the first cluster's keys are its first S + overlap, the second's its last
        outs = []
        for queries, keys in ((slice(S), slice(S + overlap)), (slice(S, None), slice(S - overlap, None))):
            bias = None if bias_P1K is None else bias_P1K[..., keys]
            outs.append(_attend(q[:, :, queries], k[:, :, keys], v[:, :, keys], self.scale, bias))
        out = torch.stack(outs).view(2 * B * h * P * S, D)
        return out.index_select(0, _places(order_BhGS, real_GS, N).flatten()).view(B, N, C)

    def extra_repr(self) -> str:
        options = f"cluster={self.cluster}, overlap={self.overlap}, iterations={self.iterations}, heads={self.heads}"
        return f"{self.channels}, {options}, scale={self.scale}"


@torch.no_grad()
def cluster_tokens(q_BhND: Tensor, levels: int, iterations: int = 2) -> tuple[Tensor, Tensor]:
    """Cluster each head's tokens into 2^levels balanced groups by bisecting their queries.

    Args:
        q_BhND: Queries. Half precision is computed in float32.
        levels: Number of bisections, >= 1.
        iterations: Soft k-means steps of each bisection (2 in the paper).

    Returns:
        ``(order, real)``: the token index in each slot, ``(B, h, G, S)``, and which slots hold a token, ``(G, S)``;
        the other slots, at most one a cluster, repeat an arbitrary token and are to be masked.
    """
    B, h, N, D = q_BhND.shape
    device = q_BhND.device
    S = -(-N // 2**levels)
    M = S * 2**levels
    z, token = q_BhND if q_BhND.dtype == torch.float64 else q_BhND.float(), torch.arange(N, device=device)
    if M > N:  # the empty slots hold zeros, which add nothing to a centroid
        z, token = F.pad(z, (0, 0, 0, M - N)), F.pad(token, (0, M - N))
    z, token = z.reshape(B * h * M, D), token.expand(B, h, M).flatten()
    count_G = torch.full((1,), N, device=device)
    with without_autocast(device):
        inverse_length = 1 / torch.linalg.vector_norm(z, dim=1).clamp_min(1e-12)
        for level in range(levels):
            G, n = 2**level, S * 2 ** (levels - level)
            score_BhGn = _bisection_score(z.view(B * h * G, n, D), inverse_length.view(B * h * G, 1, n), iterations).view(B, h, G, n)
            if M > N:
                score_BhGn = score_BhGn.masked_fill(~_real(count_G, n), torch.inf)
            index = _sorting(score_BhGn)
            if M > N:
                index = index.view(B, h, G, n).gather(3, _spread(count_G, n).expand(B, h, G, n)).flatten()
            token = token.index_select(0, index)
            if level < levels - 1:
                z, inverse_length = z.index_select(0, index), inverse_length.index_select(0, index)
            count_G = torch.stack([count_G - count_G // 2, count_G // 2], 1).flatten()
    return token.view(B, h, 2**levels, S), _real(count_G, S)


def _bisection_score(z_RnD: Tensor, inverse_length_R1n: Tensor, iterations: int) -> Tensor:
    """How near each token of a group lies to the first of two centroids, relative to the second: ``(R, n)``."""
    R, n, D = z_RnD.shape
    z_RDn = z_RnD.transpose(1, 2)
    centroids_R2D = F.normalize(z_RnD.view(R, 2, n // 2, D).sum(2), dim=2)
    for _ in range(iterations):
        # the softmax over two is the sigmoid of their difference
        share_R2n = torch.sigmoid(TEMPERATURE * (centroids_R2D - centroids_R2D.flip(1)) @ z_RDn * inverse_length_R1n)
        centroids_R2D = F.normalize(share_R2n @ z_RnD, dim=2)
    first, second = (centroids_R2D @ z_RDn * inverse_length_R1n + 1).clamp_min(torch.finfo(z_RnD.dtype).eps).unbind(1)
    return first / second


def _sorting(score_BhGn: Tensor) -> Tensor:
    """The places of all scores, each group's in ascending order (stable): ``(B * h * G * n)``."""
    B, h, G, n = score_BhGn.shape
    groups = B * h * G
    group = torch.arange(groups, device=score_BhGn.device).view(groups, 1)
    score = score_BhGn.view(groups, n)
    if (
        torch.compiler.is_exporting()
    ):  # to ONNX too, which has no stable sort: its TopK keeps the order of equals, as torch's sort does on CPU
        return (score.sort(dim=1).indices + group * n).flatten()
    if score.dtype != torch.float32 or not _eager_on_cpu(score):
        return (score.argsort(dim=1, stable=True) + group * n).flatten()
    # positive floats are ordered as their bits are: integers sort faster, and a long row of them by radix
    key = ((score.view(torch.int32) & 0x7FFFFFFF) + (group << 32)).flatten()
    if RADIX // 4 <= len(key) < RADIX:
        key = F.pad(key, (0, RADIX - len(key)), value=groups << 32)
    return key.argsort(stable=True)[: groups * n]


def _real(count_G: Tensor, n: int) -> Tensor:
    """Which of the n slots of each group hold a token: the first ``count_G[g]``. ``(G, n)``, bool."""
    return torch.arange(n, device=count_G.device) < count_G[:, None]


def _spread(count_G: Tensor, n: int) -> Tensor:
    """Slots that put the first half of each group's tokens, and its share of the empty slots, into the first n/2: ``(G, n)``."""
    count = count_G[:, None]
    slot, first = torch.arange(n, device=count_G.device), count - count // 2
    left = torch.where(slot < first, slot, slot + count - first)
    right = torch.where(slot < n // 2 + count - first, slot - n // 2 + first, slot)
    return torch.where(slot < n // 2, left, right)


def _index(slots_BhM: Tensor, tokens: int, heads: int, step: int = 1) -> Tensor:
    """Where ``(b, slots[b, i] * step, i)`` lies in a flat ``(B, tokens, heads)``."""
    image = torch.arange(slots_BhM.shape[0], device=slots_BhM.device).view(-1, 1, 1)
    head = torch.arange(heads, device=slots_BhM.device).view(heads, 1)
    return (image * tokens + slots_BhM * step) * heads + head


def _places(order_BhGS: Tensor, real_GS: Tensor, tokens: int) -> Tensor:
    """Where each token and head stands among the outputs, all first clusters before all second ones: ``(B, N, h)``."""
    B, h, G, S = order_BhGS.shape
    place = torch.arange(B * h * G * S, device=order_BhGS.device).view(2, B, h, G // 2, S).permute(1, 2, 3, 0, 4).flatten()
    slots, T = order_BhGS.flatten(2), tokens
    if tokens < G * S:  # the empty slots share one entry, which is cut off
        slots, T = slots.masked_fill(~real_GS.flatten(), tokens), tokens + 1
    places = torch.zeros(B * T * h, dtype=torch.long, device=place.device).scatter_(0, _index(slots, T, h).flatten(), place)
    return places.view(B, T, h)[:, :tokens]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T * scale + bias) v over four-dimensional tensors.

    On CPU the plain formula: torch's fused one approximates exp there, which costs the reference's accuracy in float32
    and saves no time at these sizes.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    shape = q.shape
    if bias is not None:
        bias = bias.expand(*q.shape[:2], 1, k.shape[2]).flatten(0, 1)
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    logits = torch.baddbmm(q.new_zeros(()) if bias is None else bias, q, k.transpose(1, 2), beta=int(bias is not None), alpha=scale)
    return (torch.softmax(logits, dim=2) @ v).view(shape)


def _eager_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and is_eager(x)
