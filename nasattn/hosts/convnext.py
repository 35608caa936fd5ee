"""timm's ConvNeXts carrying a placement: behind the block's MLP, before layer scale and the residual add; ``@mid`` puts the
attention behind the depthwise convolution."""

from __future__ import annotations

from typing import Any, Unpack

from timm.models import convnext as timm_convnext
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import Tensor, nn

from nasattn.hosts.block import PlacedBlock, adopt_blocks
from nasattn.hosts.family import Ends, Family, blocks_of_stages
from nasattn.hosts.host import scale_channels
from nasattn.hosts.timm_models import PlainModel, register_timm_hosts


class PlacedConvNeXtBlock(PlacedBlock, ConvNeXtBlock):  # type: ignore[misc]
    """timm's ConvNeXtBlock with an attention.

    Spatial Bias has no place here: a LayerNorm over the widened channels cannot be split into a plain part and the maps'.
    """

    slots = {"out": "attn_out", "mid": "attn_mid"}  # noqa: RUF012

    def channels_at(self, position: str) -> int:
        return int(self.conv_dw.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv_dw(x)
        if self.attn_mid is not None:
            x = self.attn_mid(x)
        x = self.mlp(self.norm(x)) if self.use_conv_mlp else self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if self.attn_out is not None:
            x = self.attn_out(x)
        if self.gamma is not None:
            x = x.mul(self.gamma.reshape(1, -1, 1, 1))
        out: Tensor = self.drop_path(x) + self.shortcut(shortcut)
        return out


class PlacementConvNeXt(ConvNeXt):  # type: ignore[misc]
    """timm's ConvNeXt whose blocks carry attentions: ``(B, in_chans, H, W) -> (B, num_classes)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adopt_blocks(self, {ConvNeXtBlock: PlacedConvNeXtBlock})


def build_convnext_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced ConvNeXt: ``(B, in_chans, H, W) -> (B, num_classes)``.

    The stem is one 3x3 convolution of *stem_stride*. Layer scale starts at 1: the few steps of a proxy do not lift it from
    1e-6, and a branch that is closed teaches nothing about the attention in it.
    """
    kwargs = {k: v for k, v in plain.kwargs.items() if k not in ("stem_type", "patch_size", "drop_path_rate", "drop_rate")}
    dims = tuple(scale_channels(c, width) for c in kwargs.get("dims", (96, 192, 384, 768)))
    kwargs.update(
        depths=tuple(min(blocks, n) for n in kwargs.get("depths", (3, 3, 9, 3))),
        dims=dims,
        **ends,
    )
    if kwargs.get("ls_init_value", 1e-6) is not None:
        kwargs["ls_init_value"] = 1.0
    model: Any = PlacementConvNeXt(**kwargs)
    model.stem[0] = nn.Conv2d(ends["in_chans"], dims[0], 3, stride=stem_stride, padding=1, device=ends["device"])
    return model  # type: ignore[no-any-return]


CONVNEXT = Family(stages=blocks_of_stages, proxy=build_convnext_proxy)
register_timm_hosts(
    timm_convnext, r"convnext(v2)?_(atto|femto|pico|nano|tiny|small|base|large|xlarge|huge)", CONVNEXT, {ConvNeXt: PlacementConvNeXt}
)
