"""What the transformers' blocks need to carry a branch.

Shapes: B batch, C channels, H, W space.
"""

from __future__ import annotations

from timm.layers import trunc_normal_
from torch import Tensor, nn

from nasattn.attention import Attention, ZeroStart, create_attention
from nasattn.hosts.block import PlacedBlock

FEATURE_CFG = {"feature_cls": "getter", "flatten_sequential": True}  # how timm takes features from these networks


class BranchBlock(PlacedBlock):
    """A block that carries a branch between its attention and its MLP: ``x + branch(norm(x))`` on ``(B, H, W, C)``.

    A block without one is the plain block. The branch maps ``(B, C, H, W) -> (B, C, H, W)``; feature-space local attention
    takes the block's own number of heads unless its token says another.
    """

    slots = {"mid": "branch"}  # noqa: RUF012
    branch: nn.Module | None
    branch_norm: nn.Module | None

    @classmethod
    def adopt(cls, block: nn.Module) -> PlacedBlock:
        adopted = super().adopt(block)
        adopted.branch_norm = None  # type: ignore[assignment]
        return adopted

    @property
    def heads(self) -> int:
        """Of the block's own attention."""
        return int(self.num_heads)

    def channels_at(self, position: str) -> int:
        return int(self.dim)

    def create(self, attention: Attention, position: str, identity_start: bool) -> nn.Module:
        if attention.name == "fsla" and dict(attention.options)["heads"] is None:
            attention = Attention.make("fsla", **{k: v for k, v in attention.options if v is not None}, heads=self.heads)
        dd = self.device_and_dtype()
        branch = create_attention(attention.module_token, self.dim, **dd)
        return ZeroStart(branch, **dd) if identity_start else branch

    def insert(self, position: str, module: nn.Module) -> None:
        norm = self.norm1
        self.branch, self.branch_norm = module, type(norm)(self.dim, eps=norm.eps, **self.device_and_dtype())
        self.inserted = ("branch", "branch_norm")
        self.init_linears()

    def reset_attention(self) -> None:
        super().reset_attention()
        self.init_linears()

    def init_linears(self) -> None:
        """The branch's linear layers start as the authors of both backbones start theirs."""
        if self.branch is not None:
            for module in self.branch.modules():
                if isinstance(module, nn.Linear):
                    init_linear(module)

    def branch_output(self, x_BHWC: Tensor) -> Tensor:
        """``branch(norm(x))``, channels last on both sides. Only for a block that has a branch."""
        assert self.branch is not None and self.branch_norm is not None
        y_BCHW: Tensor = self.branch(self.branch_norm(x_BHWC).permute(0, 3, 1, 2))
        return y_BCHW.permute(0, 2, 3, 1)


def heads_of_32(channels: int) -> int:
    """The number of heads of at least 32 channels each, as in most configurations of both papers; at least 1."""
    return max(h for h in range(1, max(channels // 32, 1) + 1) if channels % h == 0)


def init_linear(layer: nn.Linear) -> None:
    """Truncated normal of deviation .02, bias 0."""
    trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
