"""timm's ResNets carrying a placement: ``timm.create_model("nasattn_resnet50", attn="none,sge_g32,ela_l,lka_k21_d3")``.

The attention sits where SGE's authors put it: after the block's last BatchNorm, before the residual add (timm's ``se``
slot); ``@mid`` puts it behind the spatial convolution's activation, where ELA's authors have it, at the bottleneck's width.
Spatial Bias instead widens the block's spatial convolution by its maps.
"""

from __future__ import annotations

from typing import Any, Unpack

from timm.models import resnet as timm_resnet
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from nasattn.hosts.block import PlacedBlock, adopt_blocks, reset_convolution, resized
from nasattn.hosts.family import Ends, Family, PlacedModel, Stages
from nasattn.hosts.host import scale_channels
from nasattn.hosts.timm_models import PlainModel, register_timm_hosts


class _PlacedResidual(PlacedBlock):
    """What both block types share."""

    slots = {"out": "se", "mid": "attn_mid"}  # noqa: RUF012  (a class constant)

    def _added(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """The end of the block, up to its last activation."""
        if self.se is not None:
            x = self.se(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        return x + shortcut


class PlacedBottleneck(_PlacedResidual, Bottleneck):  # type: ignore[misc]
    """timm's Bottleneck with an attention. Spatial Bias reads the input of conv2 and widens conv2's output."""

    def channels_at(self, position: str) -> int:
        return int(self.conv3.out_channels if position == "out" else self.conv3.in_channels)

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv2, self.conv3

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.act1(self.bn1(self.conv1(x)))
        before = x
        spatial = self.conv2(x)
        x = self.aa(self.act2(self.drop_block(self.bn2(spatial))))
        if self.attn_mid is not None:
            x = self.attn_mid(x)
        out = self.conv3(x)
        if self.sb is not None:
            maps = self.act2(self.drop_block(self.sb_bn(resized(self.sb(before), spatial))))
            out = out + self.sb_proj(resized(maps, x))
        y: Tensor = self.act3(self._added(self.bn3(out), shortcut))
        return y


class PlacedBasicBlock(_PlacedResidual, BasicBlock):  # type: ignore[misc]
    """timm's BasicBlock with an attention.

    Spatial Bias has no basic-block form in the paper; here it reads the input of conv1 and widens conv1's output, so
    that, as in the bottleneck, its maps enter the convolution that follows (sb_proj is 3x3 like conv2). ``@mid`` is
    between the two convolutions.
    """

    def channels_at(self, position: str) -> int:
        return int(self.conv2.out_channels if position == "out" else self.conv2.in_channels)

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv1, self.conv2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        spatial = self.conv1(x)
        x = self.aa(self.act1(self.drop_block(self.bn1(spatial))))
        if self.attn_mid is not None:
            x = self.attn_mid(x)
        out = self.conv2(x)
        if self.sb is not None:
            maps = self.act1(self.drop_block(self.sb_bn(resized(self.sb(shortcut), spatial))))
            out = out + self.sb_proj(resized(maps, x))
        y: Tensor = self.act2(self._added(self.bn2(out), shortcut))
        return y


class PlacementResNet(PlacedModel, ResNet):  # type: ignore[misc]
    """timm's ResNet whose blocks carry attentions: ``(B, in_chans, H, W) -> (B, num_classes)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adopt_blocks(self, {BasicBlock: PlacedBasicBlock, Bottleneck: PlacedBottleneck})


def resnet_stages(model: Any) -> Stages:
    """The blocks of layer1 to layer4."""
    return [list(getattr(model, f"layer{n}")) for n in range(1, 5)]


def build_resnet_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced ResNet of the same stages and block type: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Residual branches start alive (no zero-initialised last BatchNorm): in the few epochs of a proxy a gate behind a branch
    that starts at zero learns nothing (cued_digits, SGE in stage 2, the default fidelity: accuracy 0.95 instead of 0.27).

    Args:
        plain: How timm builds the network to reduce.
        width: Factor on the channels.
        blocks: Blocks per stage, at most the network's own.
        stem_stride: 1 or 2: one 3x3 convolution of that stride. 4: of stride 2, then the max pool.
        **ends: What the first and the last layer are built for.
    """
    stem = scale_channels(64, width)
    kwargs = {k: v for k, v in plain.kwargs.items() if k not in ("stem_type", "stem_width", "replace_stem_pool")}
    channels = tuple(scale_channels(c, width) for c in kwargs.pop("channels", (64, 128, 256, 512)))
    model = PlacementResNet(
        **{
            **kwargs,
            **_reduced_groups(kwargs, channels[0], width),
            "layers": tuple(min(blocks, n) for n in kwargs["layers"]),
            "channels": channels,
            "stem_type": "deep",
            "stem_width": stem // 2,
            "zero_init_last": False,
            **ends,
        }
    )
    model.conv1 = nn.Conv2d(ends["in_chans"], stem, 3, stride=min(stem_stride, 2), padding=1, bias=False, device=ends["device"])
    reset_convolution(model.conv1)
    if stem_stride < 4:
        model.maxpool = nn.Identity()
    return model


def _reduced_groups(kwargs: dict[str, Any], channels: int, width: float) -> dict[str, int]:
    """ResNeXt's groups for narrower blocks: as many channels a group as at full width, or near it."""
    groups, base_width = kwargs.get("cardinality", 1), kwargs.get("base_width", 64)
    if groups == 1:
        return {}
    spatial = channels * base_width * groups // 64  # width of the grouped convolution in the first stage
    reduced = min((g for g in range(1, spatial + 1) if spatial % g == 0), key=lambda g: abs(g - groups * width))
    return {"cardinality": reduced, "base_width": 64 * spatial // channels // reduced}


RESNET = Family(stages=resnet_stages, proxy=build_resnet_proxy)
NAMES = r"resnet\d+[cdst]?|resnet(aa|blur)\d+d?|resnext\d+d?_\d+x\d+d|wide_resnet\d+_2"
register_timm_hosts(timm_resnet, NAMES, RESNET, {ResNet: PlacementResNet})
