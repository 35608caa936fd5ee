"""The parts of a CSWin Transformer (arXiv 2107.00652): attention within stripes, its block, and the stages.

Half of the channels attend within vertical stripes, the other half within horizontal ones; in the last stage all attend
to the whole map. A depthwise 3x3 convolution of the values within each stripe is the position encoding (LePE).

Shapes: B batch, C channels, H, W space; P stripes of an image, of S tokens; h heads of D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, use_fused_attn
from timm.models import checkpoint_seq
from torch import Tensor, nn

from nasattn.errors import UsageError
from nasattn.hosts.branch import BranchBlock


class StripeAttention(nn.Module):
    """Attention within stripes, with LePE: ``(3, B, H, W, C) -> (B, H, W, C)``, the first axis being q, k and v.

    Args:
        channels: C.
        heads: Number of heads, a divisor of C.
        stripe: Height and width of a stripe; None: all of the map's.
        attn_drop: Dropout of the attention's weights.
        **dd: Device and dtype.

    A map that stripes do not fill exactly is padded; what is padded is never attended to.
    """

    def __init__(self, channels: int, heads: int, stripe: tuple[int | None, int | None], attn_drop: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.heads, self.stripe = heads, stripe
        self.fused_attn = use_fused_attn()
        self.get_v = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, **dd)
        self.attn_drop = nn.Dropout(attn_drop)

    def forward(self, qkv_3BHWC: Tensor) -> Tensor:
        B, H, W, C = qkv_3BHWC.shape[1:]
        (height, rows, bottom), (width, columns, right) = _cut(H, self.stripe[0]), _cut(W, self.stripe[1])
        mask = None
        if bottom or right:
            mask = _real_keys(H, W, height, width, qkv_3BHWC.device).repeat(B, 1)[:, None, None, :]
            qkv_3BHWC = F.pad(qkv_3BHWC, (0, 0, 0, right, 0, bottom))
        grid = qkv_3BHWC.reshape(3, B, rows, height, columns, width, C).transpose(3, 4)
        stripes_3PhwC = grid.reshape(3, -1, height, width, C)
        y_PhwC: Tensor = self._attend(stripes_3PhwC, mask) + self.get_v(stripes_3PhwC[2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y_BHWC = y_PhwC.reshape(B, rows, columns, height, width, C).transpose(2, 3).reshape(B, H + bottom, W + right, C)
        return y_BHWC[:, :H, :W]

    def _attend(self, stripes_3PhwC: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = stripes_3PhwC.flatten(2, 3).unflatten(3, (self.heads, -1)).transpose(2, 3).unbind(0)  # (P, h, S, D)
        if self.fused_attn:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            if mask is not None:
                logits = logits.masked_fill(~mask, -torch.inf)
            out = self.attn_drop(logits.softmax(-1)) @ v
        return out.transpose(1, 2).reshape(stripes_3PhwC.shape[1:])

    def extra_repr(self) -> str:
        return f"heads={self.heads}, stripe={self.stripe}"


def _cut(size: int, stripe: int | None) -> tuple[int, int, int]:
    """How *size* positions are cut into stripes: their size, their number, and the padding that the last one needs.

    Branches, not one formula: with dynamic shapes torch.compile then sees plain sizes, where it would reason for minutes
    about remainders.
    """
    if stripe is None or size <= stripe:
        return size, 1, 0
    if size % stripe == 0:
        return stripe, size // stripe, 0
    return stripe, size // stripe + 1, stripe - size % stripe


def _real_keys(H: int, W: int, height: int, width: int, device: torch.device) -> Tensor:
    """Which tokens of each stripe of a padded map lie in the ``(H, W)`` map: ``(P, S)``, bool."""
    rows = (torch.arange(H + -H % height, device=device) < H).view(-1, 1, height, 1)
    columns = (torch.arange(W + -W % width, device=device) < W).view(1, -1, 1, width)
    return (rows & columns).flatten(2).flatten(0, 1)


class CSWinBlock(BranchBlock):
    """A CSWin block with a place for a branch: ``(B, H, W, C) -> (B, H, W, C)``.

    Args:
        dim: C.
        num_heads: Number of heads; two halves of the channels take half of them each, at least one.
        split_size: Width of the stripes; None: the whole map, for all channels.
        mlp_ratio: Width of the MLP in C.
        qkv_bias: Whether q, k and v have a bias.
        proj_drop: Dropout of the projection and the MLP.
        attn_drop: Dropout of the attention's weights.
        drop_path: Stochastic depth of each residual, the branch's too.
        norm_layer: Normalises the last dimension.
        **dd: Device and dtype.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        split_size: int | None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: type[nn.Module] = nn.LayerNorm,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.branch = self.branch_norm = None
        self.dim, self.num_heads = dim, num_heads
        stripes = [(None, None)] if split_size is None else [(None, split_size), (split_size, None)]
        share, heads = dim // len(stripes), max(num_heads // len(stripes), 1)
        if share * len(stripes) != dim or share % heads:
            raise UsageError(f"CSWin: {num_heads} heads do not fit {dim} channels; give heads that divide the channels, both even")
        self.norm1 = norm_layer(dim, **dd)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.attns = nn.ModuleList(StripeAttention(share, heads, stripe, attn_drop, **dd) for stripe in stripes)
        self.proj = nn.Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)
        self.norm2 = norm_layer(dim, **dd)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        qkv_3BHWC = self.qkv(self.norm1(x)).unflatten(3, (3, -1)).permute(3, 0, 1, 2, 4)
        shares = qkv_3BHWC.chunk(len(self.attns), dim=4)
        attended = torch.cat([attend(share) for attend, share in zip(self.attns, shares, strict=True)], dim=3)
        x = x + self.drop_path(self.proj_drop(self.proj(attended)))
        if self.branch is not None:
            x = x + self.drop_path(self.branch_output(x))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class ConvNorm(nn.Module):
    """A strided convolution, then a norm over the channels: ``(B, C, H, W) -> (B, H', W', C')``."""

    def __init__(self, in_chans: int, out_chans: int, kernel: int, stride: int, norm_layer: type[nn.Module], **dd: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel, stride, padding=(kernel + 1 - stride) // 2, **dd)
        self.norm = norm_layer(out_chans, **dd)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BHWC: Tensor = self.norm(self.conv(x_BCHW).permute(0, 2, 3, 1))
        return y_BHWC


class CSWinStage(nn.Module):
    """Blocks at one resolution, after the convolution that halves the map (none in the first stage): ``(B, H, W, C)``."""

    def __init__(self, downsample: ConvNorm | None, blocks: Sequence[CSWinBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x.permute(0, 3, 1, 2))
        y: Tensor = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return y
