"""The network that is trained in place of the real host: a reduced one that starts at random, or the host itself with its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasattn.errors import NasattnError, UsageError
from nasattn.hosts import Host, get_host
from nasattn.hosts.block import PlacedBlock
from nasattn.hosts.cswin_blocks import StripeAttention
from nasattn.proxy.fidelity import Fidelity, Recipe
from nasattn.proxy.precision import keep_float32

CHANNEL_BLOCK = 16  # channels that oneDNN takes at once


@dataclass(frozen=True)
class ProxyJob:
    """What is trained.

    Attributes:
        host: Name of a host.
        placement: At full width; the proxy carries it scaled (see :meth:`Host.proxy_placement`).
        fidelity: How far the host is reduced.
        recipe: How it is trained.
        seed: Governs initialisation, data order and augmentation.
        device: ``cpu`` or ``cuda``.
        held_out: Score on the test images, which no search sees.
        tested: Score on the validation images, and at the end on the test images too.
    """

    host: str
    placement: str
    fidelity: Fidelity
    recipe: Recipe
    seed: int = 0
    device: str = "cpu"
    held_out: bool = False
    tested: bool = False


def build_proxy(job: ProxyJob, num_classes: int, in_chans: int = 3) -> nn.Module:
    """The proxy network of *job*: ``(B, in_chans, R, R) -> (B, num_classes)``, initialised from the job's seed.

    Layers that two placements share start the same; so do equal attentions in the same stage.

    Raises:
        TokenError: The placement does not fit the host or its proxy.
        UsageError: The pretrained weights cannot be read, or are not of this host.
    """
    host, fidelity = get_host(job.host), job.fidelity
    placement = host.placement(job.placement)  # reads the host's structure now, so that nothing draws random numbers in between
    torch.manual_seed(job.seed)
    if job.recipe.pretrained:
        model = _pretrained(host, job.recipe.pretrained, num_classes, in_chans)
        host.family.place(model, placement, identity_start=True, seed=job.seed)
    else:
        model = host.build_proxy(
            placement,
            width=fidelity.width,
            blocks=fidelity.blocks,
            stem_stride=fidelity.stem_stride,
            num_classes=num_classes,
            in_chans=in_chans,
            seed=job.seed,
        )
    if job.device == "cpu":
        _stride_by_slices(model)
        if job.recipe.precision == "bfloat16":
            stripes = [
                m for m in model.modules() if isinstance(m, StripeAttention)
            ]  # its fused attention's gradient takes five times as long
            keep_float32(model, [*_inserted(model), *stripes], _head(model))
    return model


def _stride_by_slices(model: nn.Module) -> None:
    """Let narrow 1x1 convolutions take every second pixel by a slice instead of a stride, which computes the same.

    oneDNN's gradient of the weights of a strided one writes past its workspace where channels are last and fewer than one of its blocks,
    and the process dies (uxlfoundation/oneDNN issue 6035, in torch 2.15).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _outruns_workspace(module):
            down, right = module.stride
            module.stride = (1, 1)
            module.register_forward_pre_hook(lambda _, x, down=down, right=right: x[0][..., ::down, ::right])


def _outruns_workspace(conv: nn.Conv2d) -> bool:
    pointwise = conv.kernel_size == (1, 1) and conv.padding == (0, 0)
    return pointwise and conv.stride != (1, 1) and conv.in_channels < CHANNEL_BLOCK


def _pretrained(host: Host, source: str, num_classes: int, in_chans: int) -> nn.Module:
    """The host in its original form with the weights of a checkpoint file or of timm's tag; a head for other classes starts anew."""
    import timm

    settings: dict[str, object] = {"num_classes": num_classes, "in_chans": in_chans, "pretrained": True}
    try:
        if os.path.isfile(source):
            settings["pretrained_cfg_overlay"] = _of_file(source, host)
            return timm.create_model(host.name, **settings)  # type: ignore[no-any-return]
        return timm.create_model(f"{host.name}.{source}", **settings)  # type: ignore[no-any-return]
    except NasattnError:
        raise
    except Exception as error:  # unpickling raises whatever the bytes of a broken file lead it to; nothing in the file is executed
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the pretrained weights {source!r} cannot be used for {host.name}: {what}; "
            "give a checkpoint file of the plain model, or one of timm's tags for it"
        ) from None


def _of_file(file: str, host: Host) -> dict[str, object]:
    """What timm has to know of a checkpoint file: where it lies, which layers are its head and for how many classes (0 without one)."""
    import timm
    from timm.models import load_state_dict

    weights = load_state_dict(file, weights_only=True)
    plain = timm.create_model(host.name, device="meta")
    names = plain.pretrained_cfg["classifier"] or [name for name, module in plain.named_modules() if module is _head(plain)]
    names = [names] if isinstance(names, str) else names
    found = [w for n in names for key in (f"{n}.weight", f"module.{n}.weight") if (w := weights.get(key)) is not None]
    return {"file": file, "classifier": names, "num_classes": int(found[0].shape[0]) if found else 0}


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimiser's groups, each with its peak of the learning rate: all in one, or with *pretrained* the backbone and what is new."""
    if not recipe.pretrained:
        return [{"params": list(model.parameters()), "lr": recipe.lr}]
    new = _new_parameters(model)
    backbone = [p for n, p in model.named_parameters() if n not in new]
    return [
        {"params": backbone, "lr": recipe.backbone_lr},
        {"params": [p for n, p in model.named_parameters() if n in new], "lr": recipe.lr},
    ]


def _new_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of inserted attentions and of the head."""
    own = {id(p) for p in _head(model).parameters()}
    own |= {id(p) for module in _inserted(model) for p in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _head(model: nn.Module) -> nn.Module:
    """What gives the logits: the model's ``get_classifier()``, or the last linear layer of a host from elsewhere that has no such method."""
    if hasattr(model, "get_classifier"):
        return model.get_classifier()  # type: ignore[operator, no-any-return]
    return [nn.Identity(), *(m for m in model.modules() if isinstance(m, nn.Linear))][-1]


def _inserted(model: nn.Module) -> list[nn.Module]:
    """The modules that carry the placement's attentions."""
    blocks = [m for m in model.modules() if isinstance(m, PlacedBlock)]
    return [block.get_submodule(name) for block in blocks for name in block.inserted]


def freeze_batch_norms(model: nn.Module) -> None:
    """Let the BatchNorms of the pretrained layers keep their statistics, until `train()`; those of inserted attentions learn theirs."""
    inserted = {id(m) for module in _inserted(model) for m in module.modules()}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and id(module) not in inserted:
            module.eval()
