"""Visual Attention Network (arXiv 2202.09741) as timm models: ``timm.create_model("van_b0")`` to ``"van_b6"``.

As hosts they carry a placement (`attn`): in each stage an attention that gates in place of LKA 21, dilation 3.

timm has no VAN of its own. The authors' checkpoints load: as ``pretrained_cfg_overlay={"file": "van_b0.pth"}`` with
``pretrained=True``, or through `checkpoint_filter_fn`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from timm.models._pretrained import PretrainedCfg
from timm.models._registry import generate_default_cfgs
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.hosts.family import Family, Stages, build_placed
from nasattn.hosts.host import Host, register_host, scale_channels
from nasattn.hosts.timm_models import PlainModel, fit_checkpoint
from nasattn.hosts.van_network import VanAttention, VanBlock, VanStage, VisualAttentionNetwork

__all__ = ["VARIANTS", "VanAttention", "VanBlock", "VanStage", "VisualAttentionNetwork", "checkpoint_filter_fn", "default_cfgs"]

_RENAMED = (
    (re.compile(r"^patch_embed(\d+)\."), lambda m: f"stages.{int(m[1]) - 1}.patch_embed."),
    (re.compile(r"^block(\d+)\.(\d+)\."), lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}."),
    (re.compile(r"^norm(\d+)\."), lambda m: f"stages.{int(m[1]) - 1}.norm."),
    (re.compile(r"^head\.(weight|bias)$"), lambda m: f"head.fc.{m[1]}"),
)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The authors' checkpoint under this network's names; a checkpoint of this network keeps its names.

    Args:
        state_dict: The tensors by name, or a training checkpoint that holds them as ``state_dict`` or ``model``.
        model: As timm's interface has it; not looked at.
    """
    for wrapper in ("state_dict", "model"):
        state_dict = state_dict.get(wrapper, state_dict)
    renamed = {}
    for name, value in state_dict.items():
        name = name.removeprefix("module.")
        for pattern, new in _RENAMED:
            name = pattern.sub(new, name)
        renamed[name] = value
    return renamed


# depths, widths, stochastic depth (that of the authors' training recipe; none is given for b4 to b6)
VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], float]] = {
    "van_b0": ((3, 3, 5, 2), (32, 64, 160, 256), 0.1),
    "van_b1": ((2, 2, 4, 2), (64, 128, 320, 512), 0.1),
    "van_b2": ((3, 3, 12, 3), (64, 128, 320, 512), 0.1),
    "van_b3": ((3, 5, 27, 3), (64, 128, 320, 512), 0.2),
    "van_b4": ((3, 6, 40, 3), (64, 128, 320, 512), 0.0),
    "van_b5": ((3, 3, 24, 3), (96, 192, 480, 768), 0.0),
    "van_b6": ((6, 6, 90, 6), (96, 192, 384, 768), 0.0),
}


def _cfg(**kwargs: Any) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=0.9,
        interpolation="bicubic",
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv="stages.0.patch_embed.proj",
        classifier="head.fc",
        license="apache-2.0",
        paper_name="Visual Attention Network",
        paper_ids="arXiv:2202.09741",
        origin_url="https://github.com/Visual-Attention-Network/VAN-Classification",
        **kwargs,
    )


default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in VARIANTS})


def van_stages(model: Any) -> Stages:
    """The blocks of each stage."""
    return [list(stage.blocks) for stage in model.stages]


def build_van_proxy(
    plain: PlainModel,
    width: float,
    blocks: int,
    stem_stride: int,
    num_classes: int,
    in_chans: int = 3,
    device: torch.device | str | None = None,
) -> nn.Module:
    """A reduced VAN: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Layer scale starts at 1: the few steps of a proxy do not lift it from 0.01.
    """
    model = VisualAttentionNetwork(
        depths=[min(blocks, n) for n in plain.kwargs["depths"]],
        widths=[scale_channels(c, width) for c in plain.kwargs["widths"]],
        num_classes=num_classes,
        in_chans=in_chans,
        stem_stride=stem_stride,
        device=device,
    )
    for block in (b for stage in van_stages(model) for b in stage):
        nn.init.ones_(block.layer_scale_1)
        nn.init.ones_(block.layer_scale_2)
    return model


VAN = Family(stages=van_stages, proxy=build_van_proxy)


def plain_van(variant: str) -> PlainModel:
    """How the network is built."""
    depths, widths, drop_path_rate = VARIANTS[variant]
    return PlainModel(VisualAttentionNetwork, {"depths": depths, "widths": widths, "drop_path_rate": drop_path_rate})


def _create_van(
    variant: str,
    pretrained: bool = False,
    attn: str | list[str] | Placement | None = None,
    identity_start: bool = False,
    **kwargs: Any,
) -> VisualAttentionNetwork:
    model: VisualAttentionNetwork = build_model_with_cfg(
        partial(build_placed, VisualAttentionNetwork, VAN, attn, identity_start),
        variant,
        pretrained,
        pretrained_filter_fn=partial(fit_checkpoint, checkpoint_filter_fn),
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**plain_van(variant).kwargs, **kwargs},
    )
    return model


def _register(name: str) -> None:
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> VisualAttentionNetwork:
        return _create_van(name, pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = (
        f"{name.upper().replace('_', '-')} with a placement (`attn`); *kwargs* are those of :class:`VisualAttentionNetwork`."
    )
    globals()[name] = register_model(entrypoint)
    register_host(Host(name, VAN, partial(plain_van, name)))


for _name in VARIANTS:
    _register(_name)
