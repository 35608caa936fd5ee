"""The network of the Visual Attention Network (arXiv 2202.09741).

A block is x + ls1 * Attention(BN(x)), then x + ls2 * MLP(BN(x)), where Attention(x) = x + 1x1(LKA(GELU(1x1(x)))). A stage
begins with an overlapping patch embedding and ends with a LayerNorm over the channels. Inside a block every parameter has
the name that it has in the authors' code (Visual-Attention-Network/VAN-Classification), which is the reference.

Shapes: B batch, C channels, H, W space.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d, NormMlpClassifierHead, calculate_drop_path_rates, get_device_dtype, trunc_normal_
from timm.models._manipulate import MATCH_PREV_GROUP, checkpoint_seq
from torch import Tensor, nn

from nasattn.attention import Attention, create_attention
from nasattn.attention.lka import LargeKernelAttention
from nasattn.errors import UsageError
from nasattn.hosts.block import PlacedBlock
from nasattn.hosts.staged_network import StagedNetwork

LAYER_SCALE = 1e-2


class VanAttention(nn.Module):
    """The gated convolution with an inner shortcut: ``(B, C, H, W) -> (B, C, H, W)``. *dd*: device and dtype.

    `spatial_gating_unit` is Large Kernel Attention; any module that keeps the shape can take its place.
    """

    def __init__(self, channels: int, **dd: Any) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1, **dd)
        self.activation = nn.GELU()
        self.spatial_gating_unit = create_attention("lka_k21_d3", channels, **dd)
        self.proj_2 = nn.Conv2d(channels, channels, 1, **dd)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = x_BCHW + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x_BCHW))))
        return y


def _mlp(channels: int, hidden: int, **dd: Any) -> nn.Sequential:
    """1x1, depthwise 3x3, GELU, 1x1: ``(B, C, H, W) -> (B, C, H, W)``."""
    depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, **dd)
    layers = {
        "fc1": nn.Conv2d(channels, hidden, 1, **dd),
        "dwconv": nn.Sequential(OrderedDict(dwconv=depthwise)),  # the authors' name is dwconv.dwconv
        "act": nn.GELU(),
        "fc2": nn.Conv2d(hidden, channels, 1, **dd),
    }
    return nn.Sequential(OrderedDict(layers))


class VanBlock(PlacedBlock):
    """Attention, then MLP, each normalised, scaled per channel and added: ``(B, C, H, W) -> (B, C, H, W)``.

    As a block of a host it carries an attention in place of its gating unit; ``none`` leaves no gate.

    In training BatchNorm needs more than one value per channel: one image alone must not shrink to a 1x1 map.

    Args:
        channels: C.
        mlp_ratio: Hidden channels of the MLP over C.
        drop_path: Probability that a branch is skipped, per image, in training.
        **dd: Device and dtype of the parameters.
    """

    slots = {"mid": "attn.spatial_gating_unit"}  # noqa: RUF012
    native = "lka_k21_d3"

    def __init__(self, channels: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels, **dd)
        self.attn = VanAttention(channels, **dd)
        self.norm2 = nn.BatchNorm2d(channels, **dd)
        self.mlp = _mlp(channels, int(channels * mlp_ratio), **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), LAYER_SCALE, **dd))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), LAYER_SCALE, **dd))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x_BCHW)))
        y: Tensor = x_BCHW + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x_BCHW)))
        return y

    def channels_at(self, position: str) -> int:
        return int(self.attn.proj_1.out_channels)

    def create(self, attention: Attention, position: str, identity_start: bool) -> nn.Module:
        module = super().create(attention, position, identity_start)
        init_large_kernels(module)
        return module

    def insert(self, position: str, module: nn.Module) -> None:
        self.attn.spatial_gating_unit = module
        self.inserted = (self.slots[position],)

    def empty_slot(self, slot: str) -> None:
        self.attn.spatial_gating_unit = nn.Identity()

    def reset_attention(self) -> None:
        super().reset_attention()
        if self.inserted:
            init_large_kernels(self.attn.spatial_gating_unit)


def init_convolution(conv: nn.Conv2d) -> None:
    """As the authors do: normal by the fan-out per group, bias 0."""
    fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2.0 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def init_large_kernels(module: nn.Module) -> None:
    """Large Kernel Attention of any size starts as the network's own does."""
    for m in module.modules():
        if isinstance(m, LargeKernelAttention):
            for conv in (m.conv0, m.conv_spatial, m.conv1):
                init_convolution(conv)


class VanStage(nn.Module):
    """Patch embedding, blocks, LayerNorm: ``(B, in_chans, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chans: Channels of the input.
        channels: C.
        kernel: Of the patch embedding's convolution, odd.
        stride: Of the same.
        mlp_ratio: Of the blocks.
        drop_path: One probability a block.
        **dd: Device and dtype of the parameters.
    """

    def __init__(
        self, in_chans: int, channels: int, kernel: int, stride: int, mlp_ratio: float, drop_path: Iterable[float], **dd: Any
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        proj = nn.Conv2d(in_chans, channels, kernel, stride=stride, padding=kernel // 2, **dd)
        self.patch_embed = nn.Sequential(OrderedDict(proj=proj, norm=nn.BatchNorm2d(channels, **dd)))
        self.blocks = nn.Sequential(*(VanBlock(channels, mlp_ratio, rate, **dd) for rate in drop_path))
        self.norm = LayerNorm2d(channels, eps=1e-6, **dd)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.patch_embed(x_BCHW)
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        y: Tensor = self.norm(checkpoint_seq(self.blocks, x_BCHW) if recompute else self.blocks(x_BCHW))
        return y


class VisualAttentionNetwork(StagedNetwork):
    """VAN: ``(B, in_chans, H, W) -> (B, num_classes)`` for any H, W >= 1.

    Args:
        depths: Blocks per stage.
        widths: Channels per stage.
        mlp_ratios: Hidden channels of the MLPs over the stage's channels.
        num_classes: Size of the output; 0 gives the pooled features ``(B, C)``.
        in_chans: Channels of the image.
        global_pool: ``"avg"``, or ``""`` for an output per position, ``(B, num_classes or C, H', W')``.
        drop_rate: Dropout before the classifier, as in timm (the authors' is inside the MLPs, and 0 in their recipes).
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        stem_stride: Stride of the first patch embedding; smaller than 4 for small images.
        device: Of the parameters; ``"meta"`` builds shapes only.
        dtype: Of the parameters.

    Raises:
        UsageError: `depths`, `widths` and `mlp_ratios` do not agree on the number of stages.
    """

    output_fmt = "NCHW"
    formats_hint = " is not offered: VAN's features are NCHW"

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 5, 2),
        widths: Sequence[int] = (32, 64, 160, 256),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        stem_stride: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not len(depths) == len(widths) == len(mlp_ratios) > 0:
            raise UsageError(f"depths {depths}, widths {widths} and mlp_ratios {mlp_ratios} differ in length: give one of each per stage")
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_classes, self.in_chans = num_classes, in_chans
        rates = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        inputs = (in_chans, *widths)
        self.stem = self.norm = None  # each stage has its own
        self.stages = nn.Sequential()
        for i, (depth, ratio) in enumerate(zip(depths, mlp_ratios, strict=True)):
            kernel, stride = (3, 2) if i else (7, stem_stride)
            self.stages.append(VanStage(inputs[i], widths[i], kernel, stride, ratio, [next(rates) for _ in range(depth)], **dd))
        self.feature_info = [{"num_chs": c, "reduction": stem_stride * 2**i, "module": f"stages.{i}"} for i, c in enumerate(widths)]
        self.num_features = self.head_hidden_size = widths[-1]
        # timm's one head whose classifier also works without pooling; its norm stays empty, the last stage has one
        self.head = NormMlpClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, norm_layer=nn.Identity, **dd
        )
        self.init_weights()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self) -> None:
        """Initialise every parameter and statistic as the authors do: convolutions by their fan-out per group."""
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                init_convolution(m)
            elif isinstance(m, nn.Linear):
                trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)
            elif isinstance(m, (nn.BatchNorm2d, nn.LayerNorm)):
                m.reset_parameters()
            elif isinstance(m, VanBlock):
                nn.init.constant_(m.layer_scale_1, LAYER_SCALE)
                nn.init.constant_(m.layer_scale_2, LAYER_SCALE)
        for m in self.modules():
            if isinstance(m, VanBlock):
                m.reset_attention()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """None by name: timm spares biases, norms and layer scales by their one dimension."""
        return set()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm orders the parameters for layer-wise learning rates."""
        blocks = [
            (r"^stages\.(\d+)\.patch_embed", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.norm", MATCH_PREV_GROUP),
        ]
        return {"stem": r"^stages\.0\.patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes, self.head_hidden_size = num_classes, self.num_features
        self.head.reset(num_classes, global_pool, in_features=self.num_features, **get_device_dtype(self))
