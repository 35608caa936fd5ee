"""A host: a backbone that can carry a placement, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasattn.attention import Attention, Placement
from nasattn.errors import TokenError, UsageError, did_you_mean


@dataclass(frozen=True)
class Host:
    """A backbone with a slot for one attention per stage.

    Attributes:
        name: The timm model name, such as ``nasattn_resnet50``.
        stages: The stages' module names, ``("layer1", ...)``.
        channels: C of the feature map that each stage's attention sees.
        blocks: Number of blocks in each stage.
        resolution: Deployment resolution in pixels.
        proxy: ``proxy(placement, width=, blocks=, stem_stride=, num_classes=, in_chans=, device=) -> nn.Module``.
        expansion: Factor from a stage's width, which a proxy scales, to its ``channels``.
    """

    name: str
    stages: tuple[str, ...]
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    resolution: int
    proxy: Callable[..., nn.Module]
    expansion: int = 1

    def placement(self, placement: str | list[str] | Placement) -> Placement:
        """Read a placement and check that each attention fits its stage.

        Raises:
            TokenError: Wrong number of tokens, or an attention that cannot be built for its stage's channels.
        """
        parsed = Placement.parse(placement, stages=len(self.stages))
        for stage, (attention, channels) in enumerate(zip(parsed, self.channels, strict=True), start=1):
            if wrong := attention.problem(channels):
                raise TokenError(f"placement {str(parsed)!r}: {attention} does not fit stage {stage} of {self.name}: {wrong}")
        return parsed

    def plain(self) -> Placement:
        """The placement with ``none`` in every stage."""
        return Placement((Attention.parse("none"),) * len(self.stages))

    def build(self, placement: str | Placement, num_classes: int = 1000, **kwargs: Any) -> nn.Module:
        """The full-size model, by ``timm.create_model``."""
        import timm

        model: nn.Module = timm.create_model(self.name, attn=str(self.placement(placement)), num_classes=num_classes, **kwargs)
        return model

    def build_proxy(
        self,
        placement: str | Placement,
        *,
        width: float,
        blocks: int,
        stem_stride: int,
        num_classes: int,
        in_chans: int = 3,
        device: torch.device | str | None = None,
    ) -> nn.Module:
        """The reduced model: ``(B, in_chans, H, W) -> (B, num_classes)``.

        Args:
            placement: At full width; the proxy carries it scaled.
            width: Factor on the channels.
            blocks: Blocks in each stage, at most the host's own.
            stem_stride: 1, 2 or 4.
            num_classes: Size of the output.
            in_chans: Channels of the image.
            device: Where to build; ``"meta"`` builds shapes only.

        Raises:
            TokenError: The placement does not fit the host or its proxy.
        """
        return self.proxy(
            self.proxy_placement(placement, width),
            width=width,
            blocks=tuple(min(blocks, b) for b in self.blocks),
            stem_stride=stem_stride,
            num_classes=num_classes,
            in_chans=in_chans,
            device=device,
        )

    def proxy_placement(self, placement: str | Placement, width: float) -> Placement:
        """The placement as a proxy of *width* times the channels carries it (see :meth:`Attention.scaled`)."""
        channels = (self.expansion * scale_channels(c // self.expansion, width) for c in self.channels)
        return Placement(tuple(a.scaled(width, c) for a, c in zip(self.placement(placement), channels, strict=True)))


def scale_channels(channels: int, width: float) -> int:
    """*channels* times *width*, to the nearest multiple of 8, at least 8, so that attentions in groups of 8 channels fit."""
    return max(8, 8 * round(channels * width / 8))


_HOSTS: dict[str, Host] = {}


def register_host(host: Host) -> Host:
    """Make *host* known by its name. Raises UsageError when the name is taken."""
    if host.name in _HOSTS:
        raise UsageError(f"host {host.name!r} is registered already: choose another name")
    _HOSTS[host.name] = host
    return host


def get_host(name: str) -> Host:
    """The host called *name*. Raises UsageError with the closest names when there is none."""
    if name not in _HOSTS:
        raise UsageError(f"unknown host {name!r}: {did_you_mean(name, _HOSTS)}allowed: {', '.join(_HOSTS)}")
    return _HOSTS[name]


def list_hosts() -> list[str]:
    """The names of all hosts."""
    return list(_HOSTS)
