"""The methods that timm asks of a model, for our networks: a stem, stages, a norm and a head.

Shapes: B batch, C channels, H, W space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from nasattn.errors import UsageError


class StagedNetwork(nn.Module):
    """Base of networks made of stages: ``(B, in_chans, H, W) -> (B, num_classes)``.

    Attributes:
        stem: What comes before the stages; None: nothing.
        stages: Each with a switch, `grad_checkpointing`.
        norm: What comes behind the last stage; None: nothing.
        head: One of timm's, pooling and classifier.
        output_fmt: The layout of the features, ``NCHW`` or ``NHWC``; from ``NHWC`` intermediates are offered in both.
        formats_hint: How the error for any other layout ends.
        feature_info: timm's: `num_chs`, `reduction` and `module` of each stage.
        num_classes: Size of the output; 0: the pooled features.
        num_features: C of the last stage.
    """

    if TYPE_CHECKING:  # TorchScript would read these annotations
        stem: nn.Module | None
        stages: nn.Sequential
        norm: nn.Module | None
        head: Any
        output_fmt: str
        formats_hint: str
        feature_info: list[dict[str, Any]]
        num_classes: int
        num_features: int

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training recomputes each block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def get_classifier(self) -> nn.Module:
        """The last layer: a Linear, a 1x1 convolution where the head has no pooling, an Identity without classes."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one, and the pooling unless *global_pool* is None."""
        raise NotImplementedError

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The stages' outputs, behind the final features in the network's own layout unless *intermediates_only*.

        Args:
            x: ``(B, in_chans, H, W)``.
            indices: Which stages; an integer means that many of the last ones, None all.
            norm: Apply the final norm to the last stage's output. No effect where the network has none.
            stop_early: Skip the stages behind the last one asked for.
            output_fmt: The layout of the intermediates, ``NCHW`` or the network's own.
            intermediates_only: Leave the final features out.

        Raises:
            UsageError: The network does not offer *output_fmt*.
        """
        if output_fmt not in ("NCHW", self.output_fmt):
            raise UsageError(f"output_fmt {output_fmt!r}{self.formats_hint}")
        taken, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        x = x if self.stem is None else self.stem(x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            final = self.norm(x) if self.norm is not None and i == len(self.stages) - 1 else x
            if i in taken:
                tapped = final if norm else x
                intermediates.append(tapped if output_fmt == self.output_fmt else tapped.permute(0, 3, 1, 2).contiguous())
        return intermediates if intermediates_only else (final, intermediates)

    def prune_intermediate_layers(self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> Sequence[int]:
        """Drop the stages behind the last one of *indices*, and with them what follows. Returns the indices as integers."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shorter = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.num_features = int(self.feature_info[last]["num_chs"])
        if self.norm is not None and (prune_norm or shorter):
            self.norm = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return list(taken)

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` to the final features, ``(B, C, H', W')`` or ``(B, H', W', C)`` as `output_fmt` says."""
        if self.stem is not None:
            x = self.stem(x)
        x = self.stages(x)
        if self.norm is not None:
            x = self.norm(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The final features to ``(B, num_classes)``; with *pre_logits* the pooled features ``(B, C)``."""
        y: Tensor = self.head(x, pre_logits=pre_logits)
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
