"""Visual Attention Network (arXiv 2202.09741) as timm models: ``timm.create_model("van_b0")`` to ``"van_b6"``.

As hosts they carry a placement (`attn`): in each stage an attention that gates in place of LKA 21, dilation 3.

timm has no VAN of its own. The authors' checkpoints load: as ``pretrained_cfg_overlay={"file": "van_b0.pth"}`` with
``pretrained=True``, or through `checkpoint_filter_fn`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

from timm.models import generate_default_cfgs
from torch import Tensor, nn

from nasattn.hosts.family import Ends, Family, blocks_of_stages, build_placed
from nasattn.hosts.host import scale_channels
from nasattn.hosts.own_models import pretrained_cfg, register_own_host, renamed, unwrapped
from nasattn.hosts.timm_models import PlainModel
from nasattn.hosts.van_network import VanAttention, VanBlock, VanStage, VisualAttentionNetwork

__all__ = ["VARIANTS", "VanAttention", "VanBlock", "VanStage", "VisualAttentionNetwork", "checkpoint_filter_fn", "default_cfgs"]

# names in the authors' checkpoints (Visual-Attention-Network/VAN-Classification) and ours
RENAMED: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^patch_embed(\d+)\.": lambda m: f"stages.{int(m[1]) - 1}.patch_embed.",
    r"^block(\d+)\.(\d+)\.": lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.",
    r"^norm(\d+)\.": lambda m: f"stages.{int(m[1]) - 1}.norm.",
    r"^head\.(weight|bias)$": r"head.fc.\1",
}


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The authors' checkpoint under this network's names; a checkpoint of this network keeps its names.

    Args:
        state_dict: The tensors by name, or a training checkpoint that holds them (see :func:`unwrapped`).
        model: As timm's interface has it; not looked at.
    """
    return renamed(unwrapped(state_dict), RENAMED)


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


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": pretrained_cfg(
            first_conv="stages.0.patch_embed.proj",
            license="apache-2.0",
            paper_name="Visual Attention Network",
            paper_ids="arXiv:2202.09741",
            origin_url="https://github.com/Visual-Attention-Network/VAN-Classification",
        )
        for name in VARIANTS
    }
)


def build_van_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced VAN: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Layer scale starts at 1: the few steps of a proxy do not lift it from 0.01.
    """
    model = VisualAttentionNetwork(
        depths=[min(blocks, n) for n in plain.kwargs["depths"]],
        widths=[scale_channels(c, width) for c in plain.kwargs["widths"]],
        stem_stride=stem_stride,
        **ends,
    )
    for block in (b for stage in blocks_of_stages(model) for b in stage):
        nn.init.ones_(block.layer_scale_1)
        nn.init.ones_(block.layer_scale_2)
    return model


VAN = Family(stages=blocks_of_stages, proxy=build_van_proxy, feature_cfg={"feature_cls": "getter"})

for _name, (_depths, _widths, _drop_path_rate) in VARIANTS.items():
    register_own_host(
        __name__,
        _name,
        f"{_name.upper().replace('_', '-')} with a placement (`attn`); *kwargs* are those of :class:`VisualAttentionNetwork`.",
        PlainModel(VisualAttentionNetwork, {"depths": _depths, "widths": _widths, "drop_path_rate": _drop_path_rate}, checkpoint_filter_fn),
        VAN,
        partial(build_placed, VisualAttentionNetwork, VAN),
    )
