"""Replication: this lab replicates nothing, and says so in the shape that monitoring reads."""

from __future__ import annotations

from typing import Any

from .common import ALL, NODE, Call, endpoint
from .storage_content import OF_GUEST


@endpoint("GET", "/cluster/replication", permissions=ALL, inline=True)
def jobs(call: Call) -> Any:
    """Return the jobs of the cluster: none."""
    del call
    return []


OF_NODE = {"node": NODE, "guest": OF_GUEST}


@endpoint("GET", "/nodes/{node}/replication", parameters=OF_NODE, permissions=ALL, inline=True)
def jobs_of_node(call: Call) -> Any:
    """Return the jobs of a node with their states: none."""
    del call
    return []
