"""CSWin Transformer whose blocks can carry a branch, and BOAT-CSWin: ``timm.create_model("boat_cswin_tiny")``.

CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows (arXiv 2107.00652). BOAT: Bilateral
Local Attention Vision Transformer (arXiv 2201.13027) adds, in every second block, x + FSLA(norm x) between the attention
and the MLP.

Shapes: B batch, C channels, H, W space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import torch
from timm.layers import ClassifierHead, calculate_drop_path_rates
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.attention.fsla import FeatureSpaceLocalAttention
from nasattn.errors import UsageError
from nasattn.hosts.branch import FEATURE_CFG, heads_of_32, init_linear
from nasattn.hosts.cswin_blocks import ConvNorm, CSWinBlock, CSWinStage
from nasattn.hosts.family import Ends, Family, blocks_of_stages, build_placed
from nasattn.hosts.host import scale_channels
from nasattn.hosts.own_models import pretrained_cfg, register_own_host, renamed, unwrapped
from nasattn.hosts.staged_network import StagedNetwork
from nasattn.hosts.timm_models import PlainModel


class CSWinTransformer(StagedNetwork):
    """CSWin Transformer with timm's interface: ``(B, in_chans, H, W) -> (B, num_classes)``, H and W at least 3.

    Args:
        in_chans: Channels of the image.
        num_classes: Size of the output; 0: the pooled features.
        global_pool: timm's name of the pooling.
        embed_dim: Channels of the first stage; each further stage has twice as many.
        depths: Blocks per stage.
        split_sizes: Width of the stripes per stage; the last stage attends to the whole map whatever its value.
        num_heads: Heads per stage.
        stem_stride: Stride of the 7x7 convolution of the stem.
        mlp_ratio: Width of the MLPs.
        qkv_bias: Whether q, k and v have a bias.
        drop_rate: Dropout before the classifier.
        proj_drop_rate: Dropout of projections and MLPs.
        attn_drop_rate: Dropout of the attention's weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 in the first.
        norm_layer: Normalises the last dimension.
        device: Where to build.
        dtype: Of the parameters.

    Raises:
        UsageError: The stages' settings differ in length, or heads do not fit their channels.
    """

    output_fmt = "NHWC"
    formats_hint = ": use 'NCHW' or 'NHWC'"

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        split_sizes: Sequence[int] = (1, 2, 7, 7),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        stem_stride: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: type[nn.Module] = nn.LayerNorm,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not len(depths) == len(split_sizes) == len(num_heads):
            raise UsageError(
                f"CSWin: depths {depths}, split_sizes {split_sizes} and num_heads {num_heads} differ in length; give one value a stage"
            )
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_chans, self.num_classes, self.global_pool = in_chans, num_classes, global_pool
        dims = [embed_dim * 2**i for i in range(len(depths))]
        self.embed_dim, self.num_features = embed_dim, dims[-1]
        self.feature_info = [{"num_chs": dim, "reduction": stem_stride * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)]
        drop_paths = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        splits: list[int | None] = [*split_sizes[:-1], None]

        def stage(i: int) -> CSWinStage:
            downsample = ConvNorm(dims[i - 1], dims[i], 3, 2, norm_layer, **dd) if i else None
            settings = (mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate)
            blocks = [CSWinBlock(dims[i], num_heads[i], splits[i], *settings, p, norm_layer, **dd) for p in drop_paths[i]]
            return CSWinStage(downsample, blocks)

        self.stem = ConvNorm(in_chans, embed_dim, 7, stem_stride, norm_layer, **dd)
        self.stages = nn.Sequential(*map(stage, range(len(depths))))
        self.norm = norm_layer(self.num_features, **dd)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate, input_fmt=self.output_fmt, **dd)
        self.head_hidden_size = self.head.num_features
        self.init_weights(needs_reset=False)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self, needs_reset: bool = True) -> None:
        """Linear layers as the authors do, all else, if *needs_reset*, as torch does."""
        for module in self.modules():  # parents first
            if isinstance(module, nn.Linear):
                init_linear(module)
            elif needs_reset and callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        for module in self.modules():
            if isinstance(module, CSWinBlock):
                module.reset_attention()

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for layer-wise learning rates."""
        fine = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else fine}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool, in_features=self.num_features)
        self.head_hidden_size = self.head.num_features
        self.global_pool = self.global_pool if global_pool is None else global_pool


def boat_cswin_placement(model: Any) -> Placement:
    """FSLA where BOAT's authors have it: in the first, third, ... block of every stage."""
    return Placement.parse(["fsla_c49@odd" for _ in model.stages])


def build_cswin_proxy(plain: PlainModel, width: float, blocks: int, stem_stride: int, **ends: Unpack[Ends]) -> nn.Module:
    """A reduced CSWin: ``(B, in_chans, H, W) -> (B, num_classes)``, at least two heads a stage, one for each half."""
    embed_dim = scale_channels(plain.kwargs["embed_dim"], width)
    depths = tuple(min(blocks, n) for n in plain.kwargs["depths"])
    return CSWinTransformer(
        embed_dim=embed_dim,
        depths=depths,
        split_sizes=plain.kwargs["split_sizes"],
        num_heads=tuple(max(2, heads_of_32(embed_dim * 2**i) // 2 * 2) for i in range(len(depths))),
        stem_stride=stem_stride,
        **ends,
    )


CSWIN = Family(stages=blocks_of_stages, proxy=build_cswin_proxy, forms=("branch",), feature_cfg=FEATURE_CFG)


def build_boat_cswin(unit_scale: bool = False, **kwargs: Any) -> nn.Module:
    """BOAT-CSWin: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Args:
        unit_scale: FSLA multiplies its logits by 1, as the authors' code does and their weights expect, not by D^-0.5.
        **kwargs: `attn` and `identity_start` (see :func:`build_placed`), and those of :class:`CSWinTransformer`.

    Raises:
        TokenError: The placement cannot be read or does not fit.
        UsageError: The settings of :class:`CSWinTransformer` do not fit.
    """
    model = build_placed(CSWinTransformer, CSWIN, default=boat_cswin_placement, **kwargs)
    for module in model.modules():
        if unit_scale and isinstance(module, FeatureSpaceLocalAttention):
            module.scale = 1.0
    return model


# names in the authors' checkpoints (mahaoyuHKU/pytorch-boat and microsoft/CSWin-Transformer) and ours
RENAMED: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^stage1_conv_embed\.0\.": "stem.conv.",
    r"^stage1_conv_embed\.2\.": "stem.norm.",
    r"^stage(\d+)\.(\d+)\.": lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.",
    r"^merge(\d+)\.": r"stages.\1.downsample.",
    r"\.content_attn\.": ".branch.",
    r"\.norm3\.": ".branch_norm.",
    r"^head\.(weight|bias)$": r"head.fc.\1",
}


def checkpoint_filter_fn(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Weights for *model* from its own, from the authors' (mahaoyuHKU/pytorch-boat), or from a plain CSWin's of either kind."""
    weights = unwrapped(checkpoint)
    if any(k.startswith(("stage1_conv_embed.", "merge1.", "stage1.")) for k in weights):
        weights = renamed(weights, RENAMED)
    return weights


# embed_dim, depths, split sizes and heads of the authors' cswin_boat.py, drop-path of their commands
VARIANTS: dict[str, dict[str, Any]] = {
    "boat_cswin_tiny": {"embed_dim": 64, "depths": (1, 2, 21, 1), "num_heads": (2, 4, 8, 16), "drop_path_rate": 0.2},
    "boat_cswin_small": {"embed_dim": 64, "depths": (2, 4, 32, 2), "num_heads": (2, 4, 8, 16), "drop_path_rate": 0.4},
    "boat_cswin_base": {"embed_dim": 96, "depths": (2, 4, 32, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5},
}

default_cfgs = generate_default_cfgs({name: pretrained_cfg(first_conv="stem.conv") for name in VARIANTS})

for _name, _variant in VARIANTS.items():
    register_own_host(
        __name__,
        _name,
        "BOAT-CSWin (arXiv 2201.13027), {embed_dim} channels, depths {depths}; `attn` places FSLA elsewhere.".format(**_variant),
        PlainModel(CSWinTransformer, {"split_sizes": (1, 2, 7, 7), **_variant}, checkpoint_filter_fn),
        CSWIN,
        build_boat_cswin,
    )
