"""The backbones that carry a placement. Importing this registers them with timm."""

from __future__ import annotations

from nasattn.hosts import cifar_resnet, convnext, cswin, efficientnet, regnet, resnet, swin, van  # noqa: F401  (they register themselves)
from nasattn.hosts.block import PlacedBlock
from nasattn.hosts.family import Family, PlacedModel, build_placed, keep_attention_weights
from nasattn.hosts.host import Host, find_host, get_host, list_hosts, register_host, scale_channels
from nasattn.hosts.timm_models import fit_checkpoint
from nasattn.plugins import load_plugins

__all__ = [
    "Family",
    "Host",
    "PlacedBlock",
    "PlacedModel",
    "build_placed",
    "find_host",
    "fit_checkpoint",
    "get_host",
    "keep_attention_weights",
    "list_hosts",
    "register_host",
    "scale_channels",
]

load_plugins("nasattn.hosts")
