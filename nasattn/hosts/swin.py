"""Swin Transformer whose blocks can carry a branch, and BOAT-Swin: ``timm.create_model("boat_swin_tiny")``.

BOAT: Bilateral Local Attention Vision Transformer (arXiv 2201.13027) on Swin (arXiv 2103.14030). A shifted block reads
x + W-MSA(norm x), then x + FSLA(norm x), then x + MLP(norm x); the branch in the middle alone has no drop-path.

The backbone is timm's own, so its weights load; here it takes images of any size. At other sizes than the one it was
built for it does what timm's does: windows that reach beyond the map are filled with zeros.

Shapes: B batch, C channels, H, W space.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

from timm.layers import PatchEmbed
from timm.models import generate_default_cfgs
from timm.models import swin_transformer as timm_swin
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.hosts.block import adopt_blocks
from nasattn.hosts.branch import FEATURE_CFG, BranchBlock, heads_of_32
from nasattn.hosts.family import Ends, Family, PlacedModel, Stages, build_placed
from nasattn.hosts.host import scale_channels
from nasattn.hosts.own_models import pretrained_cfg, register_own_host, unwrapped
from nasattn.hosts.timm_models import PlainModel


class BranchSwinBlock(BranchBlock, SwinTransformerBlock):  # type: ignore[misc]
    """timm's Swin block with a place for a branch: ``(B, H, W, C) -> (B, H, W, C)``."""

    @property
    def heads(self) -> int:
        return int(self.attn.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        if self.branch is None:
            plain: Tensor = super().forward(x)
            return plain
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        x = x + self.branch_output(x)  # without drop-path, as in the authors' code
        y: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return y


class AnySizePatchEmbed(PatchEmbed):  # type: ignore[misc]
    """timm's PatchEmbed, which pads images at the right and bottom, only where they do not fit.

    timm's own padding is unconditional arithmetic on the size, which torch.compile with dynamic shapes takes minutes over.
    """

    def forward(self, x: Tensor) -> Tensor:
        (height, width), (H, W) = self.patch_size, x.shape[-2:]
        if H % height or W % width:
            x = nn.functional.pad(x, (0, -W % width, 0, -H % height))
        y: Tensor = super().forward(x)
        return y


class BranchSwin(PlacedModel, SwinTransformer):  # type: ignore[misc]
    """timm's Swin Transformer, of any image size, whose blocks can carry a branch: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Args:
        strict_img_size: True refuses images of another size than `img_size`, as timm does.
        **kwargs: Those of timm's SwinTransformer; `img_size` matters only for stages whose map is smaller than a window.
    """

    def __init__(self, strict_img_size: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("embed_layer", PatchEmbed if strict_img_size else AnySizePatchEmbed)
        super().__init__(strict_img_size=strict_img_size, **kwargs)
        adopt_blocks(self, {SwinTransformerBlock: BranchSwinBlock})


def swin_stages(model: Any) -> Stages:
    """The blocks of each stage."""
    return [list(layer.blocks) for layer in model.layers]


def boat_swin_placement(model: Any) -> Placement:
    """FSLA where BOAT's authors have it: in the shifted blocks, every second one, of all stages but the last.

    In the last stage no block shifts: at the paper's 224 pixels its map is a single window.
    """
    depths = [len(stage) for stage in swin_stages(model)[:-1]]
    return Placement.parse([*("fsla_c49@even" if depth > 1 else "none" for depth in depths), "none"])


def build_swin_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced Swin: ``(B, in_chans, H, W) -> (B, num_classes)``. Patches of *stem_stride* pixels."""
    embed_dim = scale_channels(plain.kwargs["embed_dim"], width)
    depths = tuple(min(blocks, n) for n in plain.kwargs["depths"])
    return BranchSwin(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=tuple(heads_of_32(embed_dim * 2**i) for i in range(len(depths))),
        patch_size=stem_stride,
        window_size=plain.kwargs["window_size"],
        drop_path_rate=0.0,
        **ends,
    )


SWIN = Family(stages=swin_stages, proxy=build_swin_proxy, forms=("branch",), feature_cfg=FEATURE_CFG)


def checkpoint_filter_fn(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Weights for *model* from its own, from the authors' (mahaoyuHKU/pytorch-boat), or from a plain Swin's of timm or Microsoft."""
    weights: dict[str, Tensor] = timm_swin.checkpoint_filter_fn(unwrapped(checkpoint), model)
    return {k.replace(".attnC.", ".branch.").replace(".norm4.", ".branch_norm."): v for k, v in weights.items()}


# embed_dim, depths, heads and drop-path of the authors' configs/swin_*_patch4_window7_224.yaml
VARIANTS: dict[str, dict[str, Any]] = {
    "boat_swin_tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "boat_swin_small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.3},
    "boat_swin_base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5},
}

default_cfgs = generate_default_cfgs({name: pretrained_cfg(first_conv="patch_embed.proj") for name in VARIANTS})

for _name, _variant in VARIANTS.items():
    register_own_host(
        __name__,
        _name,
        "BOAT-Swin (arXiv 2201.13027), {embed_dim} channels, depths {depths}; `attn` places FSLA elsewhere.".format(**_variant),
        PlainModel(BranchSwin, {"patch_size": 4, "window_size": 7, **_variant}, checkpoint_filter_fn),
        SWIN,
        partial(build_placed, BranchSwin, SWIN, default=boat_swin_placement),
    )
