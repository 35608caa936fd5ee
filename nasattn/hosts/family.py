"""A family of hosts: how their models are cut into stages and blocks, and how a placement is put into them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from nasattn.attention import Attention, Placement, Where
from nasattn.attention.token import Form
from nasattn.attention.where import name_blocks
from nasattn.errors import TokenError
from nasattn.hosts.block import PlacedBlock, SharedAttention, shapes

Stages = Sequence[Sequence[PlacedBlock]]


def blocks_of_stages(model: Any) -> Stages:
    """The blocks of each stage of a network that names them ``stages[i].blocks``."""
    return [list(stage.blocks) for stage in model.stages]


class Ends(TypedDict):
    """What the first and the last layer of a proxy are built for; the network's constructor takes it as it is.

    Attributes:
        num_classes: Size of the output.
        in_chans: Channels of the image.
        device: Where to build all of it; ``"meta"`` builds shapes only.
    """

    num_classes: int
    in_chans: int
    device: torch.device | str | None


@dataclass(frozen=True)
class Family:
    """What the hosts of one architecture have in common.

    Attributes:
        stages: ``stages(model)`` gives, for each resolution level, the blocks that can carry an attention.
        proxy: ``proxy(plain, width=, blocks=, stem_stride=, num_classes=, in_chans=, device=)`` builds a reduced plain model:
            *plain* is what the host's `plain_model` gives, the rest as in :meth:`nasattn.hosts.host.Host.build_proxy`.
        forms: The forms of attention that the blocks can carry, besides ``none``.
        feature_cfg: timm's, for ``features_only=True``.
    """

    stages: Callable[[Any], Stages]
    proxy: Callable[..., nn.Module]
    forms: tuple[Form, ...] = ("gate", "branch")
    feature_cfg: Mapping[str, Any] = field(default_factory=dict)

    def slots(self, model: nn.Module) -> tuple[StageSlots, ...]:
        """What each stage of *model* offers."""
        return tuple(StageSlots.of(blocks, self.forms) for blocks in self.stages(model))

    def native(self, model: nn.Module) -> Placement:
        """What a model that timm has just built carries already, as a placement."""
        return Placement(tuple(_native(blocks) for blocks in self.stages(model)))

    def place(self, model: nn.Module, placement: Placement, identity_start: bool = False, seed: int | None = None) -> None:
        """Put *placement* into a plain *model*; what it carries natively stays where the placement has the same.

        Args:
            model: Built by timm, or a proxy.
            placement: One attention per stage.
            identity_start: What is inserted starts as the identity.
            seed: With one, what a stage is given starts the same whatever the other stages are given.

        Raises:
            TokenError: An attention does not fit its stage.
        """
        stages = self.stages(model)
        slots = self.slots(model)
        if len(placement) != len(stages):
            placement = Placement.parse(placement, stages=len(stages))
        placement = canonical(placement, slots)
        for number, (blocks, attention, offered) in enumerate(zip(stages, placement, slots, strict=True)):
            if seed is not None:
                torch.manual_seed(seed * len(stages) + number)
            _place_stage(blocks, attention, offered, identity_start)
        model.placement = str(placement)  # type: ignore[assignment]

    def stage_of(self, model: nn.Module, number: int, attention: Attention) -> Stage:
        """A copy of the blocks of stage *number*, from 1, of a *model* in its original form, with *attention* in them.

        Raises:
            TokenError: The attention does not fit the stage.
        """
        blocks = copy.deepcopy(list(self.stages(model)[number - 1]))
        for block in blocks:
            block.remove_inserted()
        slots = StageSlots.of(blocks, self.forms)
        attention = slots.canonical(attention)
        _place_stage(blocks, attention, slots, identity_start=False)
        return Stage(f"{number}: {attention}", *blocks)


class Stage(nn.Sequential):
    """The blocks of one stage of a host, one after another.

    Attributes:
        placement: What it carries, for messages: ``2: sge_g32``.
    """

    def __init__(self, placement: str, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.placement = placement


@dataclass(frozen=True)
class StageSlots:
    """What a stage offers to an attention.

    Attributes:
        channels: For each position, the host's own first, the C of every block's feature map.
        widened: The C that Spatial Bias would read in every block; empty where it cannot be carried.
        forms: The forms of attention that can be carried.
    """

    channels: Mapping[str, tuple[int, ...]]
    widened: tuple[int, ...]
    forms: tuple[Form, ...]

    @classmethod
    def of(cls, blocks: Sequence[PlacedBlock], forms: tuple[Form, ...]) -> StageSlots:
        channels = {position: tuple(b.channels_at(position) for b in blocks) for position in blocks[0].slots}
        widened = tuple(b.widened()[0].in_channels for b in blocks) if all(b.can_widen() for b in blocks) else ()
        return cls(channels, widened, forms)

    @property
    def blocks(self) -> int:
        """Number of blocks that can carry an attention."""
        return len(next(iter(self.channels.values())))

    @property
    def position(self) -> str:
        """The host's own position."""
        return next(iter(self.channels))

    def channels_of(self, attention: Attention) -> tuple[int, ...]:
        """The C that *attention* sees in each block that carries it."""
        seen = self.widened if attention.form == "widening" else self.channels[attention.where.position or self.position]
        return tuple(seen[i] for i in attention.where.carriers(self.blocks))

    def canonical(self, attention: Attention) -> Attention:
        """*attention* with its place said in the one way for this stage.

        Raises:
            TokenError: It cannot be carried here; the message says what can.
        """
        if attention.form == "none":
            return attention
        self._check_form(attention)
        where = attention.where.canonical(self.blocks, self.position)
        attention = attention.placed(where)
        channels = self.channels_of(attention)
        for c in dict.fromkeys(channels):
            if wrong := attention.problem(c):
                raise TokenError(wrong)
        if where.shared and len(set(channels)) > 1:
            shown = ", ".join(map(str, channels))
            raise TokenError(
                f"blocks of {shown} channels cannot share one module; choose blocks of equal channels by a mask, or drop @shared"
            )
        return attention

    def _check_form(self, attention: Attention) -> None:
        position = attention.where.position
        if attention.form == "widening":
            if not self.widened:
                raise TokenError("this host has no spatial convolution that can be widened; use an attention that keeps the shape")
            if position:
                raise TokenError(f"it widens the block's spatial convolution, so it takes no position; drop @{position}")
        elif attention.form not in self.forms:
            raise TokenError(
                f"this host carries only attentions that are a {' or a '.join(self.forms)}, and this one is a {attention.form}"
            )
        elif position and position not in self.channels:
            raise TokenError(f"this host has no position @{position}; allowed: {', '.join('@' + p for p in self.channels)}")

    def scaled(self, attention: Attention, width: float, blocks: int) -> Attention:
        """*attention*, placed in a stage of *blocks* blocks of the full host, as this stage of its proxy carries it.

        Raises:
            TokenError: It cannot be carried by the proxy.
        """
        if attention.form == "none":
            return attention
        attention = attention.placed(attention.where.reduced(blocks, self.blocks))
        return self.canonical(attention.scaled(width, math.gcd(*self.channels_of(attention))))


def canonical(placement: Placement, slots: Sequence[StageSlots], host: str = "this host") -> Placement:
    """*placement* in the one way to say it. Raises TokenError, naming the stage, for an attention that cannot be carried."""
    attentions = []
    for stage, (attention, offered) in enumerate(zip(placement, slots, strict=True), start=1):
        try:
            attentions.append(offered.canonical(attention))
        except TokenError as error:
            raise TokenError(f"placement {str(placement)!r}: {attention} does not fit stage {stage} of {host}: {error}") from None
    return Placement(tuple(attentions))


def _native(blocks: Sequence[PlacedBlock]) -> Attention:
    tokens = {b.native for b in blocks} - {"none"}
    if not tokens:
        return Attention.parse("none")
    (token,) = tokens
    carriers = tuple(i for i, b in enumerate(blocks) if b.native == token)
    return Attention.parse(token).placed(Where(name_blocks(carriers, len(blocks))))


def _place_stage(blocks: Sequence[PlacedBlock], attention: Attention, slots: StageSlots, identity_start: bool) -> None:
    carriers = () if attention.form == "none" else attention.where.carriers(len(blocks))
    position = attention.where.position or slots.position
    owner: nn.Module | None = None
    for index, block in enumerate(blocks):
        keeps = attention.module_token == block.native and position == slots.position and not attention.where.shared
        if index in carriers and keeps:
            continue
        block.remove_native()
        if index not in carriers:
            continue
        if attention.form == "widening":
            block.widen(SharedAttention(owner) if owner else block.create_spatial_bias(attention), attention, identity_start)
        else:
            block.insert(position, SharedAttention(owner) if owner else block.create(attention, position, identity_start))
        if attention.where.shared and owner is None:
            owner = block.get_submodule(block.inserted[0])


def keep_attention_weights(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A plain checkpoint fitted to *model*: its own attention weights join, weights of a removed native attention leave.

    So loading stays strict for everything else. A checkpoint that holds weights of the inserted attentions (an export) is
    taken as it is.
    """
    current = model.state_dict()
    blocks = {name: m for name, m in model.named_modules() if isinstance(m, PlacedBlock)}
    slots = {
        f"{name}.{slot}.": b for name, b in blocks.items() for slot in {*b.inserted, *([next(iter(b.slots.values()))] if b.removed else [])}
    }
    own = {prefix: shapes(current, prefix) for prefix in slots}
    theirs = {prefix: shapes(state_dict, prefix) for prefix in slots}
    exported = own == theirs or any(own[p] and own[p] == theirs[p] and theirs[p] != slots[p].removed for p in slots)
    if exported:
        return state_dict
    plain = tuple(p for p in slots if theirs[p] and theirs[p] == slots[p].removed)
    missing = tuple(p for p in slots if not theirs[p] or p in plain)
    kept = {k: v for k, v in state_dict.items() if not k.startswith(plain)} if plain else state_dict
    return {**kept, **({k: v for k, v in current.items() if k.startswith(missing)} if missing else {})}


class PlacedModel(nn.Module):
    """Base of models that carry a placement and have timm's ``init_weights``: it initialises the attentions as well."""

    if TYPE_CHECKING:  # TorchScript would read this annotation
        placement: str

    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        super().init_weights(*args, **kwargs)  # type: ignore[misc]
        for block in self.modules():
            if isinstance(block, PlacedBlock):
                block.reset_attention()


def build_placed(
    model_cls: Callable[..., nn.Module],
    family: Family,
    attn: str | list[str] | Placement | None = None,
    identity_start: bool = False,
    default: Callable[[Any], Placement] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build timm's plain model, then put the placement into it.

    The backbone comes first and in its own way, so that with one seed the shared layers start the same whatever the
    placement, and with ``none`` everywhere every weight equals timm's.

    Args:
        model_cls: The plain model's constructor.
        family: Of the host.
        attn: The placement, a string or a list of tokens; one token alone goes into every stage. None: what the model has
            in its original form.
        identity_start: Every attention that is inserted starts as the identity, so a pretrained network keeps its function.
        default: Gives a model's original form, where the plain model does not carry it already.
        **kwargs: Of *model_cls*.

    Raises:
        TokenError: The placement cannot be read or does not fit.
    """
    model = model_cls(**kwargs)
    if attn is not None:
        placement = Placement.parse(attn, stages=len(family.stages(model)))
    else:
        placement = default(model) if default is not None else family.native(model)
    family.place(model, placement, identity_start)
    return model
