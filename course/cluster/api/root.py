"""Which release answers, and what there is at the root."""

from __future__ import annotations

from typing import Any

from .. import host
from .common import ALL, NODE, Call, endpoint, index

index("/")
index("/cluster", key="name")
index("/access")
index("/nodes/{node}", {"node": NODE}, key="name")


@endpoint("GET", "/version", permissions=ALL, inline=True)
def version(call: Call) -> Any:
    """Which release this is."""
    return dict(host.VERSION)


@endpoint("GET", "/nodes/{node}/version", parameters={"node": NODE}, permissions=ALL, inline=True)
def node_version(call: Call) -> Any:
    """Which release a node has."""
    return dict(host.VERSION)
