"""The base of our attentions: a module whose ``repr`` can be pasted back."""

from __future__ import annotations

from torch import nn


class AttentionModule(nn.Module):
    """Prints as the call that builds it, ``SpatialGroupEnhance(256, groups=32)``, one line in the network that holds it.

    A subclass's `extra_repr` gives the arguments of that call.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
