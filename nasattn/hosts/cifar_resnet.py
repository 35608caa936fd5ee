"""ResNets for images of 32 pixels: ``timm.create_model("cifar_resnet38", attn="sb_p6,sb_p6,none")``.

Deep Residual Learning for Image Recognition (arXiv 1512.03385, section 4.2) with bottlenecks, as the papers on attention
use it on CIFAR: a 3x3 stem, three stages of 16, 32 and 64 channels (times 4 at their ends) and (depth - 2) / 9 blocks each.

timm has no such network; the blocks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import torch
from timm.layers import ClassifierHead, get_device_dtype
from timm.models import checkpoint_seq, generate_default_cfgs
from timm.models.resnet import Bottleneck, make_blocks
from torch import Tensor, nn

from nasattn.hosts.block import PlacedBlock, adopt_blocks, reset_convolution
from nasattn.hosts.family import Ends, Family, blocks_of_stages, build_placed
from nasattn.hosts.host import scale_channels
from nasattn.hosts.own_models import pretrained_cfg, register_own_host
from nasattn.hosts.resnet import PlacedBottleneck
from nasattn.hosts.staged_network import StagedNetwork
from nasattn.hosts.timm_models import PlainModel

RESOLUTION = 32


class CifarStage(nn.Module):
    """The blocks of a resolution level: ``(B, in_chans, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))``."""

    def __init__(self, blocks: nn.Sequential) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = blocks

    def forward(self, x_BCHW: Tensor) -> Tensor:
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        y: Tensor = checkpoint_seq(self.blocks, x_BCHW) if recompute else self.blocks(x_BCHW)
        return y


class CifarResNet(StagedNetwork):
    """A ResNet of bottlenecks for small images: ``(B, in_chans, H, W) -> (B, num_classes)`` for any H, W >= 1.

    Args:
        depths: Blocks per stage.
        widths: Channels of each stage's 3x3 convolutions, a quarter of those at its end.
        num_classes: Size of the output; 0 gives the pooled features ``(B, C)``.
        in_chans: Channels of the image.
        global_pool: ``"avg"``, or ``""`` for the map itself.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        stem_stride: 1 or 2: of the stem's convolution; 4: of stride 2, then a max pool. Larger than 1 for larger images.
        device: Of the parameters; ``"meta"`` builds shapes only.
        dtype: Of the parameters.
    """

    output_fmt = "NCHW"
    formats_hint = " is not offered: a ResNet's features are NCHW"

    def __init__(
        self,
        depths: Sequence[int] = (4, 4, 4),
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        stem_stride: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_classes, self.in_chans = num_classes, in_chans
        conv = nn.Conv2d(in_chans, widths[0], 3, stride=min(stem_stride, 2), padding=1, bias=False, **dd)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(widths[0], **dd), nn.ReLU(inplace=True))
        if stem_stride == 4:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        blocks, _ = make_blocks(
            (Bottleneck,) * len(depths),
            tuple(widths),
            tuple(depths),
            widths[0],
            act_layer=nn.ReLU,
            norm_layer=nn.BatchNorm2d,
            drop_path_rate=drop_path_rate,
            **dd,
        )
        self.stages = nn.Sequential(*(CifarStage(stage) for _, stage in blocks))
        self.norm = None
        self.feature_info = [{"num_chs": 4 * c, "reduction": stem_stride * 2**i, "module": f"stages.{i}"} for i, c in enumerate(widths)]
        self.num_features = self.head_hidden_size = 4 * widths[-1]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd)
        adopt_blocks(self, {Bottleneck: PlacedBottleneck})
        self.init_weights()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self) -> None:
        """As the paper: convolutions by their fan-out, residual branches alive from the start."""
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                reset_convolution(m)
        for m in self.modules():
            if isinstance(m, PlacedBlock):
                m.reset_attention()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm orders the parameters for layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.blocks\.(\d+)"}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes, self.head_hidden_size = num_classes, self.num_features
        self.head = ClassifierHead(
            self.num_features,
            num_classes,
            pool_type=self.head.global_pool.pool_type if global_pool is None else global_pool,
            drop_rate=self.head.drop.p,
            **get_device_dtype(self),
        ).train(self.training)


def build_cifar_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced network: ``(B, in_chans, H, W) -> (B, num_classes)``; at width 1, with all blocks and stride 1 the host itself."""
    depths = tuple(min(blocks, n) for n in plain.kwargs["depths"])
    return CifarResNet(depths, tuple(scale_channels(c, width) for c in plain.kwargs["widths"]), stem_stride=stem_stride, **ends)


CIFAR_RESNET = Family(stages=blocks_of_stages, proxy=build_cifar_proxy, feature_cfg={"feature_cls": "getter"})
VARIANTS = {f"cifar_resnet{9 * blocks + 2}": (blocks,) * 3 for blocks in (4, 7)}

default_cfgs = generate_default_cfgs(
    {
        name: pretrained_cfg(
            num_classes=100,
            input_size=(3, RESOLUTION, RESOLUTION),
            pool_size=(8, 8),
            crop_pct=1.0,
            first_conv="stem.0",
            paper_ids="arXiv:1512.03385",
        )
        for name in VARIANTS
    }
)

for _name, _depths in VARIANTS.items():
    register_own_host(
        __name__,
        _name,
        f"ResNet-{_name.removeprefix('cifar_resnet')} for images of 32 pixels, with a placement (`attn`).",
        PlainModel(CifarResNet, {"depths": _depths, "widths": (16, 32, 64)}),
        CIFAR_RESNET,
        partial(build_placed, CifarResNet, CIFAR_RESNET),
        RESOLUTION,
    )
