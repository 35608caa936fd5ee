"""Networks that timm does not have, as timm models and hosts, and what their authors' checkpoints take to be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, clean_state_dict
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.hosts.family import Family
from nasattn.hosts.host import Host, register_host
from nasattn.hosts.timm_models import PlainModel, fit_checkpoint, register_entrypoint


def register_own_host(
    module: str, name: str, doc: str, plain: PlainModel, family: Family, build: Callable[..., nn.Module], resolution: int = 224
) -> None:
    """Register a network of ours with timm and as a host.

    Args:
        module: The name of the module that is to have the entry point, and has timm's ``default_cfgs``.
        name: Of the model.
        doc: The entry point's docstring.
        plain: How the plain network is built; its keyword arguments are the entry point's defaults, ``depths`` among them.
        family: How it carries attentions.
        build: ``build(attn=, identity_start=, **kwargs)`` gives the network with its placement (see :func:`build_placed`).
        resolution: Deployment resolution in pixels.

    Raises:
        UsageError: A host has that name already.
    """

    def entrypoint(
        pretrained: bool = False, attn: str | list[str] | Placement | None = None, identity_start: bool = False, **kwargs: Any
    ) -> nn.Module:
        kwargs = {**plain.kwargs, **kwargs}
        every_stage = tuple(range(len(kwargs["depths"])))
        model: nn.Module = build_model_with_cfg(
            partial(build, attn=attn, identity_start=identity_start),
            name,
            pretrained,
            pretrained_filter_fn=partial(fit_checkpoint, plain.filter_fn),
            feature_cfg={"out_indices": kwargs.pop("out_indices", every_stage), **family.feature_cfg},
            **kwargs,
        )
        return model

    register_entrypoint(module, name, doc, entrypoint)
    register_host(Host(name, family, lambda: plain, resolution))


def pretrained_cfg(**kwargs: Any) -> dict[str, Any]:
    """What timm keeps of a model without weights of ours."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "classifier": "head.fc",
        **kwargs,
    }


def unwrapped(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a training checkpoint, averaged ones first as timm has it, without prefixes of wrapper modules."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    weights: dict[str, Tensor] = clean_state_dict(checkpoint)
    return weights


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str | Callable[[re.Match[str]], str]]) -> dict[str, Tensor]:
    """*weights* under other names: each regular expression in *names* is replaced in turn (see :func:`re.sub`)."""
    out = dict(weights)
    for pattern, ours in names.items():
        out = {re.sub(pattern, ours, name): weight for name, weight in out.items()}
    return out
