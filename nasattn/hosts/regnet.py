"""timm's RegNets carrying a placement. The attention sits where RegNetY has its Squeeze-and-Excitation: behind the grouped
convolution, at the bottleneck's width; ``@out`` puts it behind the last convolution, before the residual add."""

from __future__ import annotations

from typing import Any, Unpack

from timm.models import regnet as timm_regnet
from timm.models.regnet import Bottleneck, RegNet
from torch import Tensor, nn

from nasattn.hosts.block import SqueezeBlock, adopt_blocks, resized
from nasattn.hosts.family import Ends, Family, Stages
from nasattn.hosts.host import scale_channels
from nasattn.hosts.timm_models import PlainModel, register_timm_hosts


class PlacedRegNetBlock(SqueezeBlock, Bottleneck):  # type: ignore[misc]
    """timm's RegNet block with an attention; RegNetY's have a Squeeze-and-Excitation."""

    def channels_at(self, position: str) -> int:
        return int(self.conv3.conv.in_channels if position == "mid" else self.conv3.conv.out_channels)

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv2.conv, self.conv3.conv

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv1(x)
        before = x
        x = self.conv2(x)
        if self.se is not None:
            x = self.se(x)
        if self.sb is None:
            x = self.conv3(x)
        else:
            maps = self.conv2.bn.act(self.sb_bn(resized(self.sb(before), x)))
            x = self.conv3.bn(self.conv3.conv(x) + self.sb_proj(maps))
        if self.attn_out is not None:
            x = self.attn_out(x)
        if self.downsample is not None:
            x = self.drop_path(x) + self.downsample(shortcut)
        out: Tensor = self.act3(x)
        return out


class PlacementRegNet(RegNet):  # type: ignore[misc]
    """timm's RegNet whose blocks carry attentions: ``(B, in_chans, H, W) -> (B, num_classes)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adopt_blocks(self, {Bottleneck: PlacedRegNetBlock})


class ReducedRegNet(PlacementRegNet):
    """A RegNet of fewer and narrower blocks, each group of its convolutions as wide as at full width where that divides."""

    def __init__(self, cfg: timm_regnet.RegNetCfg, width: float, blocks: int, stem_stride: int, **kwargs: Any) -> None:
        self.width, self.kept = width, blocks
        super().__init__(cfg, stem_width=scale_channels(cfg.stem_width, width), zero_init_last=False, **kwargs)
        # the first stage halves the map as well: only a stem without stride reaches the smaller total strides
        self.stem.conv.stride = (1, 1) if stem_stride < 4 else (2, 2)
        if stem_stride == 1:
            self.s1.b1.conv2.conv.stride = (1, 1)
            self.s1.b1.downsample.conv.stride = (1, 1)

    def _get_stage_args(self, *args: Any, **kwargs: Any) -> Any:
        per_stage, common = super()._get_stage_args(*args, **kwargs)
        for stage in per_stage:
            stage["out_chs"] = scale_channels(stage["out_chs"], self.width)
            stage["depth"] = min(stage["depth"], self.kept)
            stage["drop_path_rates"] = [0.0] * stage["depth"]
            inner = round(stage["out_chs"] * stage["bottle_ratio"])
            stage["group_size"] = max(d for d in range(1, min(stage["group_size"], inner) + 1) if inner % d == 0)
        return per_stage, common


def regnet_stages(model: Any) -> Stages:
    """The blocks of s1 to s4."""
    return [list(getattr(model, f"s{n}").children()) for n in range(1, 5)]


def build_regnet_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced RegNet: ``(B, in_chans, H, W) -> (B, num_classes)``. *stem_stride* is that of the first stage's map."""
    return ReducedRegNet(plain.kwargs["cfg"], width, blocks=blocks, stem_stride=stem_stride, **ends)


REGNET = Family(stages=regnet_stages, proxy=build_regnet_proxy)
register_timm_hosts(timm_regnet, r"regnet[xy]_\d+", REGNET, {RegNet: PlacementRegNet})
