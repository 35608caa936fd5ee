"""The attentions: their tokens, their registry, and how to build one."""

from __future__ import annotations

import torch
from torch import nn

from nasattn.attention import comparison, ela, fsla, lka, none, sge, spatial_bias  # noqa: F401  (they register themselves)
from nasattn.attention.ela import EfficientLocalAttention
from nasattn.attention.fsla import FeatureSpaceLocalAttention
from nasattn.attention.insertion import IdentityStart, Residual, ZeroStart
from nasattn.attention.lka import LargeKernelAttention
from nasattn.attention.none import NoAttention
from nasattn.attention.placement import Placement
from nasattn.attention.sge import SpatialGroupEnhance
from nasattn.attention.spatial_bias import SpatialBias
from nasattn.attention.token import Attention, Definition, Option, definitions, register_attention
from nasattn.attention.where import Where
from nasattn.errors import TokenError
from nasattn.plugins import load_plugins

__all__ = [
    "Attention",
    "Definition",
    "EfficientLocalAttention",
    "FeatureSpaceLocalAttention",
    "IdentityStart",
    "LargeKernelAttention",
    "NoAttention",
    "Option",
    "Placement",
    "Residual",
    "SpatialBias",
    "SpatialGroupEnhance",
    "Where",
    "ZeroStart",
    "create_attention",
    "list_attention",
    "parse",
    "register_attention",
]


def parse(token: str | Attention) -> Attention:
    """Read a token; ``str(parse(token))`` is its canonical form. Raises TokenError (see :meth:`Attention.parse`)."""
    return Attention.parse(token)


OURS = ("none", "sb", "sge", "ela", "lka", "fsla")


def list_attention() -> list[str]:
    """The names that tokens begin with, variants written out: ``none, sb, sge, ela_t, ...``, ours first."""
    known = definitions()
    ours = [name for name in OURS if name in known]
    ordered = {name: known[name] for name in [*ours, *(n for n in known if n not in ours)]}
    return [
        token
        for name, definition in ordered.items()
        for token in ([f"{name}_{v}" for v in definition.variants] if definition.needs_variant else [name])
    ]


def create_attention(
    token: str | Attention,
    channels: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    identity_start: bool = False,
) -> nn.Module:
    """Build the module that *token* names.

    Args:
        token: Such as ``sge_g32``; options left out take the paper's values.
        channels: C of the feature map, ``(B, C, H, W)``.
        device: Where to put the parameters; ``"meta"`` builds shapes only.
        dtype: Of the parameters.
        identity_start: Give a module that returns its input unchanged until it is trained, to put into
            a pretrained network. An attention that is a branch, such as ``fsla``, then has its shortcut within.

    Returns:
        A module ``(B, C, H, W) -> (B, C, H, W)``; for ``sb``, ``(B, C, H, W) -> (B, maps, P, P)`` (see SpatialBias).

    Raises:
        TokenError: The token cannot be read, does not fit *channels*, says where in a stage it sits (only a host can place
            it), or widens its block, so that only a host can let it start as the identity.
    """
    attention = Attention.parse(token)
    if attention.where != Where():
        raise TokenError(f"attention {attention}: a single module has no place in a stage; write {attention.module_token!r}")
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise TokenError(f"attention {attention}: channels must be an integer >= 1, got {channels!r}")
    if wrong := attention.problem(channels):
        raise TokenError(f"attention {attention}: {wrong}")
    options = {k: v for k, v in attention.options if v is not None}
    module = attention.definition.build(channels, **options, device=device, dtype=dtype)
    if not identity_start or attention.form == "none":
        return module
    if attention.form == "widening":
        raise TokenError(
            f"attention {attention} widens its block: only a host can let it start as the identity; "
            f"build the model with `attn={attention}, identity_start=True`"
        )
    return Residual(ZeroStart(module, device, dtype)) if attention.form == "branch" else IdentityStart(module, device, dtype)


load_plugins("nasattn.attentions")
