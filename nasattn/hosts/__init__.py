"""The backbones that carry a placement. Importing this registers them with timm."""

from __future__ import annotations

from nasattn.hosts import resnet  # noqa: F401  (registers itself)
from nasattn.hosts.host import Host, get_host, list_hosts, register_host

__all__ = ["Host", "get_host", "list_hosts", "register_host"]
