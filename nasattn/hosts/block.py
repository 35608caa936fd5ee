"""A block of a host: the places where it can carry an attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from nasattn.attention import Attention, create_attention
from nasattn.attention.insertion import Residual, reset_attention


class PlacedBlock(nn.Module):
    """Base of the blocks that carry attentions; a subclass's forward calls what sits at each of its positions, if anything.

    A subclass of timm's block adopts instances that timm built, so that they start exactly as timm starts them.

    Attributes:
        slots: The attribute that holds the attention at each position, the host's own position first.
        native: The token of what the block has in its first slot from the beginning, or ``none``.
        removed: The names and shapes of its weights, once it has been taken out.
        inserted: The names of the submodules that carry the attention.
    """

    if TYPE_CHECKING:  # TorchScript would read these annotations
        slots: ClassVar[Mapping[str, str]]
        native: str
        removed: Mapping[str, torch.Size]
        inserted: tuple[str, ...]

        def __getattr__(self, name: str) -> Any: ...  # the layers that timm's block brings

    slots = {}  # noqa: RUF012  (replaced, never changed)
    native = "none"
    removed = {}  # noqa: RUF012
    inserted = ()

    @classmethod
    def adopt(cls, block: nn.Module) -> PlacedBlock:
        """Make *block*, an instance of the class that this one extends, carry attentions."""
        block.__class__ = cls
        assert isinstance(block, cls)
        block.inserted = ()
        for name in (*cls.slots.values(), *(("sb", "sb_bn", "sb_proj") if cls.can_widen() else ())):
            if "." not in name and not isinstance(getattr(block, name, None), nn.Module):
                setattr(block, name, None)
        return block

    @classmethod
    def can_widen(cls) -> bool:
        """Whether this block can carry Spatial Bias."""
        return cls.widened is not PlacedBlock.widened

    def channels_at(self, position: str) -> int:
        """C of the feature map at *position*."""
        raise NotImplementedError

    def widened(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The spatial convolution, whose input Spatial Bias reads, and the next one, which its maps enter."""
        raise NotImplementedError

    def create(self, attention: Attention, position: str, identity_start: bool) -> nn.Module:
        """The module for *attention* at *position*: ``(B, C, H, W) -> (B, C, H, W)``, on this block's device."""
        channels, dd = self.channels_at(position), self.device_and_dtype()
        module = create_attention(attention.module_token, channels, **dd, identity_start=identity_start)
        return Residual(module) if attention.form == "branch" and not identity_start else module

    def insert(self, position: str, module: nn.Module) -> None:
        """Put *module* at *position*."""
        setattr(self, self.slots[position], module)
        self.inserted = (*self.inserted, self.slots[position])

    def remove_native(self) -> None:
        """Take out what the block carries from the beginning."""
        slot = next(iter(self.slots.values()))
        if self.native != "none":
            self.removed = shapes(self.get_submodule(slot).state_dict(), "")
            self.empty_slot(slot)

    def remove_inserted(self) -> None:
        """Take out what was put in."""
        for name in self.inserted:
            self.empty_slot(name)
        self.inserted = ()

    def empty_slot(self, slot: str) -> None:
        """Leave nothing at *slot*."""
        setattr(self, slot, None)

    def create_spatial_bias(self, attention: Attention) -> nn.Module:
        """The module that computes the maps, on this block's device."""
        return create_attention(attention.module_token, self.widened()[0].in_channels, **self.device_and_dtype())

    def widen(self, spatial_bias: nn.Module, attention: Attention, identity_start: bool) -> None:
        """Add Spatial Bias: conv(cat(x, maps)) is computed as conv(x) + sb_proj(maps), so x keeps the plain block's layers."""
        after = self.widened()[1]
        maps = dict(attention.options)["maps"]
        assert maps is not None
        dd = self.device_and_dtype()
        self.sb, self.sb_bn = spatial_bias, nn.BatchNorm2d(maps, **dd)
        self.sb_proj = nn.Conv2d(maps, after.out_channels, after.kernel_size, padding=after.padding, bias=False, **dd)  # type: ignore[arg-type]
        self.sb_starts_at_zero = identity_start
        self.inserted = ("sb", "sb_bn", "sb_proj")
        self._reset_projection()

    def reset_attention(self) -> None:
        """Initialise what was inserted anew."""
        for name in self.inserted:
            reset_attention(self.get_submodule(name))
        if "sb_proj" in self.inserted:
            self._reset_projection()

    def _reset_projection(self) -> None:
        if self.sb_starts_at_zero:
            nn.init.zeros_(self.sb_proj.weight)
        else:
            reset_convolution(self.sb_proj)

    def device_and_dtype(self) -> dict[str, Any]:
        """Of this block's weights, for the modules that join it."""
        weight = next(p for p in self.parameters() if p.is_floating_point())
        return {"device": weight.device, "dtype": weight.dtype}


class SqueezeBlock(PlacedBlock):
    """A block of timm's whose slot ``se`` may hold a Squeeze-and-Excitation: ``none`` removes it, ``se`` keeps it."""

    slots = {"mid": "se", "out": "attn_out"}  # noqa: RUF012

    @classmethod
    def adopt(cls, block: nn.Module) -> PlacedBlock:
        adopted = super().adopt(block)
        adopted.native = "none" if isinstance(adopted.se, nn.Identity) else "se"
        return adopted


def adopt_blocks(model: nn.Module, placed: Mapping[type, type[PlacedBlock]]) -> None:
    """Make the blocks of *model* carry attentions; *placed* names the plain block classes and those that take their place."""
    for block in model.modules():
        if type(block) in placed:
            placed[type(block)].adopt(block)


def shapes(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, torch.Size]:
    """The names behind *prefix* and the shapes of what they hold."""
    return {k.removeprefix(prefix): v.shape for k, v in state_dict.items() if k.startswith(prefix)}


def reset_convolution(conv: nn.Conv2d) -> None:
    """As timm's ResNet initialises its convolutions."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def resized(maps_BMHW: Tensor, like: Tensor) -> Tensor:
    """*maps* resized bilinearly to the height and width of *like*."""
    if maps_BMHW.shape[-2:] == like.shape[-2:]:
        return maps_BMHW
    return nn.functional.interpolate(maps_BMHW, size=like.shape[-2:], mode="bilinear", align_corners=False)


class SharedAttention(nn.Module):
    """An attention whose parameters belong to an earlier block of the stage: ``(B, C, H, W) -> (B, C, H, W)``.

    The earlier block alone writes and reads them in a state_dict, so that no file holds a tensor twice.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.register_load_state_dict_pre_hook(_read_own)  # type: ignore[no-untyped-call]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.attention(x_BCHW)
        return y

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        return {} if destination is None else destination

    def reset_parameters(self) -> None:
        """Nothing of its own to reset."""


def _read_own(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
    """Loading finds what the owner, which comes first, has loaded already."""
    assert isinstance(module, SharedAttention)
    for name, value in module.attention.state_dict().items():
        state_dict[f"{prefix}attention.{name}"] = value
