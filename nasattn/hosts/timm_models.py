"""timm's own models as hosts: each is registered with timm a second time, as ``nasattn_<name>``, with a placement (`attn`)."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from types import FunctionType, ModuleType
from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models._registry import generate_default_cfgs
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.hosts.family import Family, build_placed, keep_attention_weights
from nasattn.hosts.host import Host, register_host

PER_CALL = ("features_only", "out_indices", "feature_cls", "feature_cfg", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


@dataclass(frozen=True)
class PlainModel:
    """How timm builds a model.

    Attributes:
        cls: The class.
        kwargs: What timm calls it with.
        filter_fn: timm's translation of foreign checkpoints, or None.
        feature_cfg: timm's, for ``features_only=True``.
    """

    cls: Callable[..., nn.Module]
    kwargs: dict[str, Any]
    filter_fn: Callable[..., dict[str, Tensor]] | None = None
    feature_cfg: dict[str, Any] | None = None


def plain_model(module: ModuleType, name: str, **kwargs: Any) -> PlainModel:
    """How timm's entry point *name* in *module* would build its model with *kwargs*; nothing is built.

    timm keeps a model's arguments inside its entry point, on the way to ``build_model_with_cfg``: there they are read, so
    that no table of timm's architectures is repeated here.
    """
    plain: PlainModel = _recording(module)[name](pretrained=False, **kwargs)
    return plain


@cache
def _recording(module: ModuleType) -> dict[str, Any]:
    """The functions of *module* over again, with a ``build_model_with_cfg`` that records; the module stays as it is."""
    names = dict(module.__dict__)
    for name, function in module.__dict__.items():
        if isinstance(function, FunctionType) and function.__globals__ is module.__dict__:
            names[name] = FunctionType(function.__code__, names, name, function.__defaults__, function.__closure__)
            names[name].__kwdefaults__ = function.__kwdefaults__
    names["build_model_with_cfg"] = _record
    return names


def _record(model_cls: Callable[..., nn.Module], variant: str, pretrained: bool, **arguments: Any) -> PlainModel:
    for unused in ("features_only", "kwargs_filter", "pretrained_strict"):
        arguments.pop(unused, None)
    if (cfg := arguments.pop("model_cfg", None)) is not None:
        arguments["cfg"] = cfg
    return PlainModel(model_cls, arguments, arguments.pop("pretrained_filter_fn", None), arguments.pop("feature_cfg", None))


def register_timm_hosts(
    module: ModuleType, names: str, family: Family, classes: dict[type, type[nn.Module]], resolution: int = 224
) -> None:
    """Register the models of a timm module whose name matches *names* as hosts.

    Args:
        module: Such as ``timm.models.resnet``.
        names: A regular expression, matched against the whole name.
        family: How they carry attentions.
        classes: timm's model classes and those of ours that take their place.
        resolution: Deployment resolution in pixels, for those whose configuration names none.
    """
    chosen = [n for n in dict.fromkeys(module.default_cfgs) if re.fullmatch(names, n) and hasattr(module, n)]
    default_cfgs.update(_copied_cfgs(module, chosen))
    for name in chosen:
        _register(module, name, family, classes, resolution)


default_cfgs: dict[str, Any] = {}


def _copied_cfgs(module: ModuleType, names: list[str]) -> dict[str, Any]:
    """The plain models' pretrained tags, pointing at the plain models' weights."""

    def copied(name: str, tag: str, cfg: Any) -> Any:
        return replace(cfg, hf_hub_id=f"timm/{name}.{tag}" if cfg.hf_hub_id == "timm/" else cfg.hf_hub_id)

    return dict(
        generate_default_cfgs(
            {f"nasattn_{n}{'.' + t if t else ''}": copied(n, t, c) for n in names for t, c in module.default_cfgs[n].cfgs.items()}
        )
    )


def _register(module: ModuleType, name: str, family: Family, classes: dict[type, type[nn.Module]], resolution: int) -> None:
    def entrypoint(
        pretrained: bool = False, attn: str | list[str] | Placement | None = None, identity_start: bool = False, **kwargs: Any
    ) -> nn.Module:
        per_call = {k: kwargs.pop(k) for k in PER_CALL if k in kwargs}
        plain = plain_model(module, name, **kwargs)
        build = partial(build_placed, classes[plain.cls], family, attn, identity_start)  # type: ignore[index]
        feature_cfg = per_call.pop("feature_cfg", None) or dict(family.feature_cfg) or plain.feature_cfg
        model: nn.Module = build_model_with_cfg(
            build,
            f"nasattn_{name}",
            pretrained,
            pretrained_filter_fn=partial(fit_checkpoint, plain.filter_fn),
            **({"feature_cfg": dict(feature_cfg)} if feature_cfg else {}),
            **per_call,
            **plain.kwargs,
        )
        return model

    register_entrypoint(__name__, f"nasattn_{name}", f"timm's {name} with a placement (`attn`).", entrypoint)
    cfg = module.default_cfgs[name].default
    side = cfg.input_size[-1] if cfg.input_size else resolution
    register_host(Host(f"nasattn_{name}", family, partial(plain_model, module, name), side))


def register_entrypoint(module: str, name: str, doc: str, entrypoint: Callable[..., nn.Module]) -> None:
    """Make *entrypoint* timm's model *name* and the function of that name in *module*, whose ``default_cfgs`` timm reads."""
    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__, entrypoint.__doc__ = module, doc
    setattr(sys.modules[module], name, register_model(entrypoint))


def fit_checkpoint(
    filter_fn: Callable[..., dict[str, Tensor]] | None, state_dict: dict[str, Tensor], model: nn.Module
) -> dict[str, Tensor]:
    """A checkpoint as *model* needs it: translated by timm's own *filter_fn*, then completed (see keep_attention_weights)."""
    if filter_fn is not None:
        takes_model = len(inspect.signature(filter_fn).parameters) > 1
        state_dict = filter_fn(state_dict, model) if takes_model else filter_fn(state_dict)
    return keep_attention_weights(state_dict, model)
