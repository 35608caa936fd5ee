"""timm's EfficientNets and MobileNets carrying a placement.

A stage is a resolution level: EfficientNet-B0's seven groups of blocks make five. The attention sits where these networks
have their Squeeze-and-Excitation, and where ELA's authors put theirs: on the expanded channels, behind the depthwise
convolution; ``@out`` puts it behind the projection, before the residual add.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from timm.models import efficientnet as timm_efficientnet
from timm.models import mobilenetv3 as timm_mobilenetv3
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, EdgeResidual, InvertedResidual
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn

from nasattn.hosts.block import PlacedBlock, SqueezeBlock, adopt_blocks, resized
from nasattn.hosts.family import Ends, Family, Stages
from nasattn.hosts.host import scale_channels
from nasattn.hosts.timm_models import PlainModel, register_timm_hosts


class _PlacedConv(SqueezeBlock):
    """What the block types share."""

    def channels_at(self, position: str) -> int:
        projection = self.widened()[1]
        return int(projection.in_channels if position == "mid" else projection.out_channels)

    def _added(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """The end of the block, from its last norm's output on."""
        if self.attn_out is not None:
            x = self.attn_out(x)
        if self.has_skip:
            x = self.drop_path(x) + shortcut
        return x


class PlacedInvertedResidual(_PlacedConv, InvertedResidual):  # type: ignore[misc]
    """timm's InvertedResidual (MBConv) with an attention."""

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv_dw, self.conv_pwl

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        before = self.bn1(self.conv_pw(x))
        x = self.aa(self.bn2(self.conv_dw(before)))
        if self.se is not None:
            x = self.se(x)
        out = self.conv_pwl(x)
        if self.sb is not None:
            out = out + self.sb_proj(self.bn2.act(self.sb_bn(resized(self.sb(before), x))))
        return self._added(self.bn3(out), shortcut)


class PlacedDepthwiseSeparable(_PlacedConv, DepthwiseSeparableConv):  # type: ignore[misc]
    """timm's DepthwiseSeparableConv with an attention."""

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv_dw, self.conv_pw

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        before = x
        x = self.aa(self.bn1(self.conv_dw(x)))
        if self.se is not None:
            x = self.se(x)
        out = self.conv_pw(x)
        if self.sb is not None:
            out = out + self.sb_proj(self.bn1.act(self.sb_bn(resized(self.sb(before), x))))
        return self._added(self.bn2(out), shortcut)


class PlacedEdgeResidual(_PlacedConv, EdgeResidual):  # type: ignore[misc]
    """timm's EdgeResidual (fused MBConv) with an attention."""

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv_exp, self.conv_pwl

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.aa(self.bn1(self.conv_exp(x)))
        if self.se is not None:
            x = self.se(x)
        out = self.conv_pwl(x)
        if self.sb is not None:
            out = out + self.sb_proj(self.bn1.act(self.sb_bn(resized(self.sb(shortcut), x))))
        return self._added(self.bn2(out), shortcut)


PLACED: dict[type, type[PlacedBlock]] = {
    InvertedResidual: PlacedInvertedResidual,
    DepthwiseSeparableConv: PlacedDepthwiseSeparable,
    EdgeResidual: PlacedEdgeResidual,
}


class PlacementEfficientNet(EfficientNet):  # type: ignore[misc]
    """timm's EfficientNet whose blocks carry attentions: ``(B, in_chans, H, W) -> (B, num_classes)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adopt_blocks(self, PLACED)


class PlacementMobileNetV3(MobileNetV3):  # type: ignore[misc]
    """timm's MobileNetV3 whose blocks carry attentions: ``(B, in_chans, H, W) -> (B, num_classes)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adopt_blocks(self, PLACED)


def efficientnet_stages(model: Any) -> Stages:
    """The blocks of each resolution level, cut where timm's feature_info says that a level ends."""
    ends = [f["stage"] for f in model.feature_info if f["module"].startswith("blocks.")]
    levels = [[b for group in model.blocks[start:end] for b in group] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    carrying = [[b for b in level if isinstance(b, PlacedBlock)] for level in levels]
    return [level for level in carrying if level]


def build_efficientnet_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced EfficientNet or MobileNet: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Every group of blocks keeps its first *blocks* blocks, so a level that timm cuts into two groups keeps twice as many.
    *stem_stride* is that of the first level's map; where the first block has a stride of its own (MobileNetV3-small), the
    smallest is 2.
    """
    kwargs = {k: v for k, v in plain.kwargs.items() if k not in ("drop_path_rate", "drop_rate")}
    full = kwargs["round_chs_fn"]
    kwargs.update(
        block_args=[group[:blocks] for group in kwargs["block_args"]],
        round_chs_fn=partial(_narrow, full, width),
        num_features=_narrow(lambda c: c, width, kwargs["num_features"]),
        fix_stem=False,
        **ends,
    )
    model: Any = CLASSES[plain.cls](**kwargs)  # type: ignore[index]
    within = next(f["reduction"] for f in model.feature_info if f["module"].startswith("blocks.")) // 2
    if stem_stride <= within:
        model.conv_stem.stride = (1, 1)
    elif stem_stride == 4 * within:
        model.bn1 = nn.Sequential(model.bn1, nn.MaxPool2d(3, 2, 1))
    return model  # type: ignore[no-any-return]


def _narrow(full: Any, width: float, channels: int) -> int:
    return scale_channels(full(channels), width)


CLASSES: dict[type, type[nn.Module]] = {EfficientNet: PlacementEfficientNet, MobileNetV3: PlacementMobileNetV3}
EFFICIENTNET = Family(stages=efficientnet_stages, proxy=build_efficientnet_proxy, feature_cfg={"feature_cls": "getter"})
register_timm_hosts(
    timm_efficientnet,
    r"(tf_)?efficientnet_(b[0-8]|lite[0-4])|(tf_)?efficientnetv2_(b[0-3]|s|m|l|xl|rw_[stm])|mobilenetv2_\d+d?",
    EFFICIENTNET,
    CLASSES,
)
register_timm_hosts(timm_mobilenetv3, r"(tf_)?mobilenetv3_(large|small)(_minimal)?_\d+d?", EFFICIENTNET, CLASSES)
