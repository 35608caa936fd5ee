"""timm's ResNets carrying a placement: ``timm.create_model("nasattn_resnet50", attn="none,sge_g32,ela_l,lka_k21_d3")``.

The attention sits where SGE's authors put it: after the block's last BatchNorm, before the residual add (timm's ``se``
slot). Spatial Bias instead widens the block's spatial convolution by its maps; conv3(cat(x, maps)) is computed as
conv3(x) + sb_proj(maps), with bn2 split likewise, so conv3 and bn2 keep the plain network's shapes and its weights load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from timm.models import resnet as timm_resnet
from timm.models._registry import generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from nasattn.attention import Attention, Placement, create_attention
from nasattn.hosts.host import Host, register_host, scale_channels

ATTENTION_MODULES = ("se", "sb", "sb_bn", "sb_proj")


class Residual(nn.Module):
    """``x + branch(x)``: how a block inserts an attention that has no shortcut of its own. ``(B, C, H, W)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = x_BCHW + self.branch(x_BCHW)
        return y

    def reset_parameters(self) -> None:
        self.branch.reset_parameters()  # type: ignore[operator]


class _PlacedBlock:
    """What both block types share: how an attention is attached and initialised."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sb: nn.Module | None = None

    def attach(self, attention: Attention, norm_layer: Callable[..., nn.Module], dd: dict[str, Any]) -> None:
        """Insert *attention* into this block. Nothing is added for ``none``."""
        assert isinstance(self, (PlacedBasicBlock, PlacedBottleneck))
        if attention.form == "none":
            return
        if attention.form == "widening":
            before, after = self.widened
            self.sb = create_attention(attention, before.in_channels, **dd)
            maps: int = self.sb.maps  # type: ignore[assignment]
            self.sb_bn = norm_layer(maps, **dd)
            self.sb_proj = nn.Conv2d(maps, after.out_channels, after.kernel_size, padding=after.padding, bias=False, **dd)  # type: ignore[arg-type]
        else:
            module = create_attention(attention, self.out_channels, **dd)
            self.se = Residual(module) if attention.form == "branch" else module
        self.init_attention()

    def init_attention(self) -> None:
        """Initialise the attention's parameters; those of modules without `reset_parameters` as timm's ResNet does."""
        assert isinstance(self, nn.Module)
        if self.sb is not None:
            self.sb.reset_parameters()  # type: ignore[operator]
            self.sb_bn.reset_parameters()  # type: ignore[operator]
            _init_convolutions(self.sb_proj)
        if isinstance(self.se, nn.Module):
            reset = getattr(self.se, "reset_parameters", None)
            if reset is not None:
                reset()
            else:
                _init_convolutions(self.se)


def _init_convolutions(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


class PlacedBottleneck(_PlacedBlock, Bottleneck):  # type: ignore[misc]
    """timm's Bottleneck with an attention. Spatial Bias reads the input of conv2 and widens conv2's output."""

    @property
    def out_channels(self) -> int:
        return int(self.conv3.out_channels)

    @property
    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv2, self.conv3

    def forward(self, x: Tensor) -> Tensor:
        if self.sb is None:
            out: Tensor = super().forward(x)
            return out
        shortcut = x
        x = self.act1(self.bn1(self.conv1(x)))
        bias = self.sb(x)
        x = self.conv2(x)
        maps = _resized(bias, x)
        x = self.aa(self.act2(self.drop_block(self.bn2(x))))
        maps = _resized(self.act2(self.drop_block(self.sb_bn(maps))), x)
        x = self.bn3(self.conv3(x) + self.sb_proj(maps))
        return _finish(self, x, shortcut, self.act3)


class PlacedBasicBlock(_PlacedBlock, BasicBlock):  # type: ignore[misc]
    """timm's BasicBlock with an attention.

    Spatial Bias has no basic-block form in the paper; here it reads the input of conv1 and widens conv1's output, so
    that, as in the bottleneck, its maps enter the convolution that follows (sb_proj is 3x3 like conv2).
    """

    @property
    def out_channels(self) -> int:
        return int(self.conv2.out_channels)

    @property
    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.conv1, self.conv2

    def forward(self, x: Tensor) -> Tensor:
        if self.sb is None:
            out: Tensor = super().forward(x)
            return out
        shortcut = x
        bias = self.sb(x)
        x = self.conv1(x)
        maps = _resized(bias, x)
        x = self.aa(self.act1(self.drop_block(self.bn1(x))))
        maps = _resized(self.act1(self.drop_block(self.sb_bn(maps))), x)
        x = self.bn2(self.conv2(x) + self.sb_proj(maps))
        return _finish(self, x, shortcut, self.act2)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return nn.functional.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _finish(block: Any, x: Tensor, shortcut: Tensor, act: nn.Module) -> Tensor:
    if block.drop_path is not None:
        x = block.drop_path(x)
    if block.downsample is not None:
        shortcut = block.downsample(shortcut)
    out: Tensor = act(x + shortcut)
    return out


_PLACED = {BasicBlock: PlacedBasicBlock, Bottleneck: PlacedBottleneck}


class PlacementResNet(ResNet):  # type: ignore[misc]
    """timm's ResNet with a placement: ``(B, in_chans, H, W) -> (B, num_classes)``.

    The backbone is built first and in timm's own way, the attention after it, so that with one seed the shared layers
    start the same whatever the placement, and with ``none`` everywhere every weight equals timm's.

    Args:
        block: timm's BasicBlock or Bottleneck.
        layers: Blocks per stage.
        attn: The placement, a string or a list of tokens; one token alone goes into every stage.
        **kwargs: Those of timm's ResNet.

    Raises:
        TokenError: The placement cannot be read or does not fit.
    """

    def __init__(
        self, block: type[nn.Module], layers: tuple[int, ...], attn: str | list[str] | Placement | None = "none", **kwargs: Any
    ) -> None:
        placement = Placement.parse("none" if attn is None else attn, stages=len(layers))
        super().__init__(_PLACED[block], layers, **kwargs)
        self.place(placement, device=kwargs.get("device"), dtype=kwargs.get("dtype"))

    def place(self, placement: Placement, **dd: Any) -> None:
        """Insert each stage's attention into its blocks. *dd*: the attentions' device and dtype."""
        self.placement = str(placement)
        for stage, attention in enumerate(placement, start=1):
            for placed in getattr(self, f"layer{stage}"):
                placed.attach(attention, type(self.bn1), dd)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self, zero_init_last: bool = True) -> None:
        super().init_weights(zero_init_last=zero_init_last)
        for m in self.modules():
            if isinstance(m, _PlacedBlock):
                m.init_attention()


def keep_attention_weights(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A plain checkpoint completed by the model's own attention weights, so that loading stays strict for all else.

    A checkpoint that holds attention weights (an export) is taken as it is.
    """
    own = {k: v for k, v in model.state_dict().items() if any(part in ATTENTION_MODULES for part in k.split("."))}
    if any(k in state_dict for k in own):
        return state_dict
    return {**state_dict, **own}


def build_resnet_proxy(
    name: str,
    placement: Placement,
    width: float,
    blocks: tuple[int, ...],
    stem_stride: int,
    num_classes: int,
    in_chans: int = 3,
    device: torch.device | str | None = None,
) -> nn.Module:
    """A reduced ResNet of the same stages and block type: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Args:
        name: The timm model to reduce, ``resnet50``.
        placement: Already scaled to the width.
        width: Factor on the channels.
        blocks: Blocks per stage.
        stem_stride: 1 or 2: one 3x3 convolution of that stride. 4: of stride 2, then the max pool.
        num_classes: Size of the output.
        in_chans: Channels of the image.
        device: Where to build.
    """
    placement = Placement.parse(placement, stages=len(blocks))
    block, _ = VARIANTS[name]
    stem = scale_channels(64, width)
    model = PlacementResNet(
        block,
        blocks,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_type="deep",
        stem_width=stem // 2,
        channels=tuple(scale_channels(c, width) for c in (64, 128, 256, 512)),
        device=device,
    )
    model.conv1 = nn.Conv2d(in_chans, stem, 3, stride=min(stem_stride, 2), padding=1, bias=False, device=device)
    _init_convolutions(model.conv1)
    if stem_stride < 4:
        model.maxpool = nn.Identity()
    model.place(placement, device=device)  # last: with one seed the layers above start the same whatever the placement
    return model


VARIANTS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet26": (Bottleneck, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}

# the plain model's pretrained tags, pointing at the plain model's weights
default_cfgs = generate_default_cfgs(
    {
        f"nasattn_{name}.{tag}": replace(cfg, hf_hub_id=f"timm/{name}.{tag}" if cfg.hf_hub_id == "timm/" else cfg.hf_hub_id)
        for name in VARIANTS
        for tag, cfg in timm_resnet.default_cfgs[name].cfgs.items()
    }
)


def _register(name: str) -> None:
    block, layers = VARIANTS[name]

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> PlacementResNet:
        kwargs = {"block": block, "layers": layers, **kwargs}
        if kwargs.get("attn") is not None:  # a string, so that timm can write it into a config.json
            kwargs["attn"] = str(Placement.parse(kwargs["attn"], stages=len(layers)))
        model: PlacementResNet = build_model_with_cfg(
            PlacementResNet, f"nasattn_{name}", pretrained, pretrained_filter_fn=keep_attention_weights, **kwargs
        )
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = f"nasattn_{name}"
    entrypoint.__doc__ = f"timm's {name} with a placement (`attn`)."
    globals()[entrypoint.__name__] = register_model(entrypoint)

    def proxy(placement: Placement, **kwargs: Any) -> nn.Module:
        return build_resnet_proxy(name, placement, **kwargs)

    register_host(
        Host(
            name=f"nasattn_{name}",
            stages=("layer1", "layer2", "layer3", "layer4"),
            channels=tuple(c * block.expansion for c in (64, 128, 256, 512)),  # type: ignore[attr-defined]
            blocks=layers,
            resolution=224,
            proxy=proxy,
            expansion=block.expansion,  # type: ignore[attr-defined]
        )
    )


for _name in VARIANTS:
    _register(_name)
