"""A host: a backbone that can carry a placement, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nasattn.attention import Attention, Placement
from nasattn.errors import UsageError, did_you_mean
from nasattn.hosts.family import Family, Stage, Stages, StageSlots, canonical


@dataclass(frozen=True)
class Host:
    """A backbone with a slot for one attention per stage, registered with timm as *name*.

    Attributes:
        name: The timm model name, such as ``nasattn_resnet50``, whose argument ``attn`` is the placement.
        family: How its models are cut into stages and blocks.
        plain_model: Called for what the family's proxy is told of the full network. Ours give how it is built (a
            :class:`nasattn.hosts.timm_models.PlainModel`); None, the default, will do for a family of one network.
        resolution: Deployment resolution in pixels.
    """

    name: str
    family: Family
    plain_model: Callable[[], Any] = lambda: None
    resolution: int = 224

    @cached_property
    def stages(self) -> tuple[StageSlots, ...]:
        """What each stage offers, read from the network itself (built on the meta device once)."""
        return self._built[0]

    @cached_property
    def native(self) -> Placement:
        """The placement of the network's original form, which ``attn=None`` builds."""
        return self._built[1]

    @cached_property
    def _built(self) -> tuple[tuple[StageSlots, ...], Placement]:
        import timm

        model = timm.create_model(self.name, device="meta")
        return self.family.slots(model), Placement.parse(model.placement)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of blocks that can carry an attention in each stage."""
        return tuple(s.blocks for s in self.stages)

    @property
    def channels(self) -> tuple[int, ...]:
        """C of the feature map that each stage's last block shows an attention at the host's own position."""
        return tuple(s.channels[s.position][-1] for s in self.stages)

    def placement(self, placement: str | list[str] | Placement) -> Placement:
        """Read a placement, check that each attention fits its stage, and say it in the one canonical way.

        Raises:
            TokenError: Wrong number of tokens, or an attention that cannot be carried by its stage.
        """
        return canonical(Placement.parse(placement, stages=len(self.stages)), self.stages, self.name)

    def attention(self, attention: Attention, stage: int) -> Attention:
        """*attention* as stage number *stage*, counted from 1, carries it. Raises TokenError when it cannot."""
        return self.stages[stage - 1].canonical(attention)

    def plain(self) -> Placement:
        """The placement with ``none`` in every stage."""
        return Placement((Attention.parse("none"),) * len(self.stages))

    def build(self, placement: str | Placement, num_classes: int = 1000, **kwargs: Any) -> nn.Module:
        """The full-size model, by ``timm.create_model``."""
        import timm

        model: nn.Module = timm.create_model(self.name, attn=str(self.placement(placement)), num_classes=num_classes, **kwargs)
        return model

    def stage_blocks(self, model: nn.Module) -> Stages:
        """The blocks of each stage of a model of this host."""
        return self.family.stages(model)

    def stage_of(self, model: nn.Module, number: int, attention: Attention) -> Stage:
        """The blocks of stage *number*, from 1, with *attention* in them, one after another.

        Args:
            model: In its original form (:attr:`native`); its blocks are copied.
            number: Of the stage.
            attention: ``none`` for the plain stage.

        Raises:
            TokenError: The attention does not fit the stage.
        """
        return self.family.stage_of(model, number, attention)

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
        seed: int | None = None,
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
            seed: Of the attentions (see :meth:`Family.place`).

        Raises:
            TokenError: The placement does not fit the host or its proxy.
        """
        model = self.family.proxy(
            self.plain_model(),
            width=width,
            blocks=blocks,
            stem_stride=stem_stride,
            num_classes=num_classes,
            in_chans=in_chans,
            device=device,
        )
        self.family.place(model, self._scaled(placement, self.family.slots(model), width), seed=seed)
        return model

    def proxy_placement(self, placement: str | Placement, width: float, blocks: int = 1) -> Placement:
        """The placement as a proxy carries it.

        The rule: a number of groups scales with *width* (see :meth:`Attention.scaled`), and each of the proxy's *blocks*
        per stage carries the attention if any of the host's blocks does that it stands for (see :meth:`Where.reduced`).
        """
        return self._scaled(placement, self.proxy_stages(width, blocks), width)

    def proxy_stages(self, width: float, blocks: int = 1) -> tuple[StageSlots, ...]:
        """What each stage of a proxy offers."""
        plain = self.build_proxy(self.plain(), width=width, blocks=blocks, stem_stride=4, num_classes=1, device="meta")
        return self.family.slots(plain)

    def _scaled(self, placement: str | Placement, slots: tuple[StageSlots, ...], width: float) -> Placement:
        full = self.placement(placement)
        return Placement(tuple(s.scaled(a, width, b) for a, s, b in zip(full, slots, self.blocks, strict=True)))


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
        raise UsageError(
            f"unknown host {name!r}: {did_you_mean(name, _HOSTS)}there are {len(_HOSTS)}, such as {', '.join(list(_HOSTS)[:3])}; "
            "`nasattn hosts` lists them"
        )
    return _HOSTS[name]


def find_host(name: str) -> Host:
    """The host called *name*, or ``nasattn_`` and *name*: ``resnet26d`` is timm's own name of a model that is one.

    Raises:
        UsageError: There is none; the message tells one that timm knows but that cannot carry attentions from a wrong name.
    """
    if (found := _HOSTS.get(name) or _HOSTS.get(f"nasattn_{name}")) is not None:
        return found
    import timm

    model, _, tag = name.partition(".")
    if tag and (model in _HOSTS or f"nasattn_{model}" in _HOSTS):
        raise UsageError(f"host {name!r} has a tag of pretrained weights: write {model}, and the tag as `recipe: {{pretrained: {tag}}}`")
    plain = {n.removeprefix("nasattn_"): n for n in _HOSTS}
    near = did_you_mean(model.removeprefix("nasattn_"), plain)
    if timm.is_model(model):
        raise UsageError(f"timm's {model} cannot carry attentions: {near}`nasattn hosts` lists the {len(_HOSTS)} models that can")
    raise UsageError(
        f"unknown host {name!r}: {near}there are {len(_HOSTS)}, such as {', '.join(list(plain)[:3])}; `nasattn hosts` lists them"
    )


def list_hosts() -> list[str]:
    """The names of all hosts."""
    return list(_HOSTS)
