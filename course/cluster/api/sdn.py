"""Software-defined networks: what clients look at. The lab has its nodes' bridges and no zones of its own."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..declaration import Parameter
from .common import ALL, Call, choice, endpoint, flag, index, perm

_VIEW = {"pending": flag(), "running": flag()}
_ZONES = "evpn faucet qinq simple vlan vxlan"

index("/cluster/sdn", key="id", permissions=perm("/sdn", "SDN.Audit"))


@endpoint("GET", "/cluster/sdn/zones", parameters={**_VIEW, "type": choice(_ZONES)}, permissions=ALL, inline=True)
@endpoint("GET", "/cluster/sdn/vnets", parameters=_VIEW, permissions=ALL, inline=True)
def nothing(call: Call) -> Any:
    """List zones or virtual networks: there are none."""
    return []


@endpoint(
    "GET",
    "/cluster/sdn/vnets/{vnet}/subnets",
    parameters={**_VIEW, "vnet": Parameter(format="pve-sdn-vnet-id")},
    permissions=ALL,
)
def subnets(call: Call) -> Any:
    """List a virtual network's subnets: there is no such network."""
    raise ClusterError(f"sdn '{call.values['vnet']}' does not exist")
