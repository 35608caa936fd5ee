"""What a user would run instead: each module's formula, plainly in torch, on the module's own parameters.

Shapes: B batch, C channels, H, W space, N = H * W tokens, h heads of D channels, G groups or clusters of S tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from torch import Tensor, nn

from nasattn.attention.ela import EfficientLocalAttention
from nasattn.attention.fsla import FeatureSpaceLocalAttention
from nasattn.attention.lka import LargeKernelAttention
from nasattn.attention.sge import SpatialGroupEnhance
from nasattn.attention.spatial_bias import SpatialBias


class SwinWindows(nn.Module):
    """Swin's 7x7 window attention, as its blocks call it: ``(B, C, H, W) -> (B, C, H, W)``, H and W multiples of 7."""

    window = (7, 7)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = WindowAttention(channels, num_heads=channels // 32, window_size=self.window)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        _, C, H, W = x_BCHW.shape
        tokens = window_partition(x_BCHW.permute(0, 2, 3, 1), self.window).flatten(1, 2)
        windows = self.attention(tokens).view(-1, *self.window, C)
        y_BHWC: Tensor = window_reverse(windows, self.window, H, W)
        return y_BHWC.permute(0, 3, 1, 2)


def sge(module: SpatialGroupEnhance, x_BCHW: Tensor) -> Tensor:
    """x * sigmoid(weight * standardised similarity to the mean vector + bias), group by group."""
    B, C, H, W = x_BCHW.shape
    G = module.groups
    x = x_BCHW.reshape(B * G, C // G, H, W)
    t = (x * x.mean((2, 3), keepdim=True)).sum(1).view(B * G, H * W)
    t = t - t.mean(1, keepdim=True)
    t = t / (t.std(1, keepdim=True) + module.epsilon)
    t = t.view(B, G, H, W) * module.weight + module.bias
    return (x * torch.sigmoid(t).view(B * G, 1, H, W)).view(B, C, H, W)


def ela(module: EfficientLocalAttention, x_BCHW: Tensor) -> Tensor:
    """x * gate(mean over W) * gate(mean over H)."""

    def gate(v_BCL: Tensor) -> Tensor:
        return torch.sigmoid(module.gn(module.conv(v_BCL)))

    return x_BCHW * gate(x_BCHW.mean(3)).unsqueeze(3) * gate(x_BCHW.mean(2)).unsqueeze(2)


def lka(module: LargeKernelAttention, x_BCHW: Tensor) -> Tensor:
    """x * 1x1(dilated depthwise(depthwise(x)))."""
    attn: Tensor = module.conv1(module.conv_spatial(module.conv0(x_BCHW)))
    return x_BCHW * attn


def sb(module: SpatialBias, x_BCHW: Tensor) -> Tensor:
    """The map with the bias maps, at its own size, behind its channels."""
    size = x_BCHW.shape[2:]
    z_BRPP = F.adaptive_avg_pool2d(F.relu(module.feature_reduction(x_BCHW)), module.pool)
    bias_BPM = module.sb_conv(z_BRPP.flatten(2).transpose(1, 2))
    bias_BMPP = bias_BPM.transpose(1, 2).reshape(len(x_BCHW), -1, module.pool, module.pool)
    return torch.cat([x_BCHW, F.interpolate(bias_BMPP, size=size, mode="bilinear", align_corners=False)], dim=1)


def fsla(module: FeatureSpaceLocalAttention, x_BCHW: Tensor) -> Tensor:
    """Clusters by balanced bisection, attention in each cluster and its sibling's rim. N must be cluster * 2^levels."""
    B, C, H, W = x_BCHW.shape
    N, h, D, S = H * W, module.heads, C // module.heads, module.cluster
    q, k, v = module.qkv(x_BCHW.flatten(2).transpose(1, 2)).view(B, N, 3, h, D).permute(2, 0, 3, 1, 4)
    order_BhN1 = _clusters(q.detach(), (N // S).bit_length() - 1, module.iterations)
    qc, kc, vc = (t.gather(2, order_BhN1.expand(B, h, N, D)).view(B, h, N // S, S, D) for t in (q, k, v))
    if N > S:
        kc, vc = _with_rim(kc, module.overlap), _with_rim(vc, module.overlap)
    out = torch.softmax(qc @ kc.transpose(-1, -2) * module.scale, dim=-1) @ vc
    out_BhND = out.view(B, h, N, D).gather(2, order_BhN1.argsort(2).expand(B, h, N, D))
    local_BCN = module.get_v(v.transpose(2, 3).reshape(B, C, H, W)).flatten(2)
    y_BNC: Tensor = module.proj(out_BhND.transpose(1, 2).reshape(B, N, C) + local_BCN.transpose(1, 2))
    return y_BNC.transpose(1, 2).reshape(B, C, H, W)


@torch.no_grad()
def _clusters(q: Tensor, levels: int, iterations: int) -> Tensor:
    """The tokens' order after *levels* bisections, ``(B, h, N, 1)``."""
    B, h, N, D = q.shape
    order = torch.arange(N, device=q.device).view(1, 1, N, 1).expand(B, h, N, 1)
    for level in range(levels):
        groups = 2**level
        z = q.gather(2, order.expand(B, h, N, D)).view(B, h, groups, N // groups, D)
        centroids = F.normalize(z.view(B, h, groups, 2, N // groups // 2, D).mean(4), dim=-1)
        unit = F.normalize(z, dim=-1)
        for _ in range(iterations):
            share = torch.softmax(100 * unit @ centroids.transpose(-1, -2), dim=-1)
            centroids = F.normalize(share.transpose(-1, -2) @ z, dim=-1)
        cosine = unit @ centroids.transpose(-1, -2)
        score = (cosine[..., :1] + 1) / (cosine[..., 1:] + 1)
        within = score.argsort(dim=3, stable=True)
        order = order.reshape(B, h, groups, N // groups, 1).gather(3, within).view(B, h, N, 1)
    return order


def _with_rim(t_BhGSD: Tensor, overlap: int) -> Tensor:
    pairs = t_BhGSD.unflatten(2, (-1, 2))
    first, second = pairs[:, :, :, 0], pairs[:, :, :, 1]
    rim = torch.stack([second[..., :overlap, :], first[..., first.shape[-2] - overlap :, :]], dim=3).flatten(2, 3)
    return torch.cat([t_BhGSD, rim], dim=3)
