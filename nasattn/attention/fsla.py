"""BOAT: Bilateral Local Attention Vision Transformer, its feature-space local attention (arXiv 2201.13027).

Per image and head, tokens are clustered by balanced bisection of their queries; each cluster attends to itself and to
an overlap with its sibling: softmax(q k^T * scale) v, plus a depthwise 3x3 of v, then a linear projection.

Shapes: B batch, C channels, N = H * W tokens, h heads of D channels, G clusters of S slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.precision import without_autocast
from nasattn.attention.token import Option, register_attention
from nasattn.errors import TokenError

TEMPERATURE = 100.0  # of the soft assignment, in the authors' code
HEAD_CHANNELS = 32  # in every configuration of the paper


def _check(channels: int, options: Mapping[str, int | None]) -> str | None:
    overlap, cluster = options["overlap"], options["cluster"]
    if overlap is not None and cluster is not None and overlap > cluster:
        return f"overlap {overlap} is larger than the cluster of {cluster}; use at most {cluster}"
    return divides(channels, options["heads"], "heads") if channels else None


@register_attention(
    "fsla",
    options=(
        Option("c", "cluster", 49, shown=True),
        Option("o", "overlap", None, minimum=0),
        Option("i", "iterations", 2),
        Option("h", "heads", None, counts_groups=True),
    ),
    form="branch",
    paper="BOAT, feature-space local attention (arXiv 2201.13027)",
    check=_check,
)
class FeatureSpaceLocalAttention(nn.Module):
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
        self.cluster, self.iterations = cluster, iterations
        self.overlap = round(cluster * 20 / 49) if overlap is None else overlap
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
        y_BNC = self.forward_tokens(x_BCHW.flatten(2).transpose(1, 2), H, W)
        return y_BNC.transpose(1, 2).reshape(B, C, H, W)

    def forward_tokens(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """The same on row-major tokens, ``(B, H * W, C) -> (B, H * W, C)``."""
        B, N, C = x_BNC.shape
        q, k, v = self.qkv(x_BNC).unflatten(2, (3, self.heads, C // self.heads)).permute(2, 0, 3, 1, 4)
        levels = max(N // self.cluster, 1).bit_length() - 1
        out_BhND = _attend(q, k, v, self.scale) if levels == 0 else self._clustered(q, k, v, levels)
        local_BCN = self.get_v(v.transpose(2, 3).reshape(B, C, height, width)).flatten(2)
        out_BNC: Tensor = self.proj(out_BhND.transpose(1, 2).reshape(B, N, C) + local_BCN.transpose(1, 2))
        return out_BNC

    def _clustered(self, q: Tensor, k: Tensor, v: Tensor, levels: int) -> Tensor:
        B, h, N, D = q.shape
        order_BhGS, real_GS = cluster_tokens(q, levels, self.iterations)
        G, S = real_GS.shape
        slots = order_BhGS.flatten(2)
        qc, kc, vc = (_take(t, slots).unflatten(2, (G, S)) for t in (q, k, v))
        kc, vc = _with_sibling(kc, self.overlap), _with_sibling(vc, self.overlap)
        mask = None
        if N < G * S:
            keys_GK = _with_sibling(real_GS[None, None, :, :, None], self.overlap)[0, 0, :, :, 0]
            mask = keys_GK[:, None, :]
        qc, kc, vc = (t.flatten(0, 1) for t in (qc, kc, vc))
        out = _attend(qc, kc, vc, self.scale, mask).reshape(B, h, G * S, D)
        if mask is not None:
            slots = slots.masked_fill(~real_GS.flatten(), N)  # the empty slots share one entry, which is cut off
        inverse = slots.new_empty(B, h, N + 1).scatter_(2, slots, torch.arange(G * S, device=q.device).expand(B, h, G * S))
        return _take(out, inverse[:, :, :N])

    def extra_repr(self) -> str:
        return f"cluster={self.cluster}, overlap={self.overlap}, iterations={self.iterations}, heads={self.heads}, scale={self.scale:g}"


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
    B, h, N, _ = q_BhND.shape
    q = q_BhND if q_BhND.dtype == torch.float64 else q_BhND.float()
    clusters = 2**levels
    M = -(-N // clusters) * clusters
    counts = [N]
    order = F.pad(torch.arange(N, device=q.device), (0, M - N)).expand(B, h, 1, M)
    for _ in range(levels):
        n = order.shape[3]
        real_GN = _real(counts, n, q.device)
        z = _take(q, order.flatten(2)).unflatten(2, order.shape[2:])
        with without_autocast(q.device):
            score = _bisection_score(z, real_GN if M > N else None, iterations)
        if M > N:
            score = score.masked_fill(~real_GN, torch.inf)
        order = order.gather(3, score.argsort(dim=3, stable=True))
        if M > N:  # the empty slots are at the end now: share them out between the halves
            spread = torch.tensor([_spread(count, n) for count in counts], device=q.device)
            order = order.gather(3, spread.expand_as(order))
        counts = list(chain.from_iterable((count - count // 2, count // 2) for count in counts))
        order = order.unflatten(3, (2, n // 2)).flatten(2, 3)
    return order, _real(counts, M // clusters, q.device)


def _bisection_score(z: Tensor, real_GN: Tensor | None, iterations: int) -> Tensor:
    """How near each token of a group lies to the first of two centroids, relative to the second: ``(B, h, G, n)``."""
    halves = z.unflatten(3, (2, z.shape[3] // 2))
    if real_GN is None:
        weight = None
        centroids = halves.mean(4)
    else:
        weight = real_GN[..., None].to(z.dtype)
        kept = weight.unflatten(1, (2, z.shape[3] // 2))
        centroids = (halves * kept).sum(4) / kept.sum(2).clamp_min(1)
    centroids = F.normalize(centroids, dim=-1)
    unit = F.normalize(z, dim=-1)
    cosine = unit @ centroids.transpose(-1, -2)
    for _ in range(iterations):
        share = torch.softmax(TEMPERATURE * cosine, dim=-1)
        if weight is not None:
            share = share * weight
        centroids = F.normalize(share.transpose(-1, -2) @ z, dim=-1)
        cosine = unit @ centroids.transpose(-1, -2)
    first, second = (cosine + 1).clamp_min(torch.finfo(cosine.dtype).eps).unbind(-1)
    return first / second


def _real(counts: list[int], n: int, device: torch.device) -> Tensor:
    """Which of the n slots of each group hold a token: the first ``counts[g]``. ``(G, n)``, bool."""
    return torch.arange(n, device=device) < torch.tensor(counts, device=device)[:, None]


def _spread(count: int, n: int) -> list[int]:
    """Slots that put the first half of *count* tokens, and its share of the empty slots, into the first n/2."""
    first = count - count // 2
    empty = count + n // 2 - first
    return [*range(first), *range(count, empty), *range(first, count), *range(empty, n)]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T * scale) v over four-dimensional tensors; *mask* is True where a key counts.

    On CPU the plain formula: torch's fused one approximates exp there, which costs the reference's accuracy in float32
    and saves no time at these sizes.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    logits = (q * scale) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return torch.softmax(logits, dim=-1) @ v


def _take(t_BhND: Tensor, index_BhM: Tensor) -> Tensor:
    """Rows of each head: ``(B, h, M, D)``. Whole rows are copied, which is several times faster than a gather by element."""
    B, h, N, D = t_BhND.shape
    first_row = torch.arange(B * h, device=t_BhND.device).view(B, h, 1) * N
    return t_BhND.reshape(-1, D).index_select(0, (index_BhM + first_row).flatten()).view(*index_BhM.shape, D)


def _with_sibling(t_BhGSD: Tensor, overlap: int) -> Tensor:
    """Append to each first of a pair of clusters the sibling's first *overlap* slots, to each second the sibling's last."""
    overlap = min(overlap, t_BhGSD.shape[3])
    first, second = t_BhGSD.unflatten(2, (-1, 2)).unbind(3)
    gained_first = second[..., :overlap, :]
    gained_second = first[..., first.shape[3] - overlap :, :]
    pair = torch.stack([torch.cat([first, gained_first], 3), torch.cat([second, gained_second], 3)], 3)
    return pair.flatten(2, 3)
