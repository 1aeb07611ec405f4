"""Networks by hand: frames, a learning switch, a stateful filter. It needs no privilege and knows no virtual machine.

==============  =====================================================================================
`frames`        frames and packets apart into fields, and back, with checksums
`packet`        the same read quickly, for filters
`pcap`          recordings that Wireshark opens
`switch`        a learning switch with virtual LANs, counters and a memory of what it did with frames
`rules`         what a rule of a firewall matches: addresses, ports, kinds of ICMP
`macros`        names for the ports of services
`conntrack`     which packets belong to a connection that was allowed
`guard`         the filter at a guest's port and at a node, in the order in which Proxmox VE asks
`reject`        the answers of a filter that refuses aloud
==============  =====================================================================================
"""

from __future__ import annotations

from .frames import Arp, Ethernet, Icmp, IPv4, IPv6, Tcp, Udp, layers
from .switch import Port, Sighting, Switch, Verdict

__all__ = [
    "Arp",
    "Ethernet",
    "IPv4",
    "IPv6",
    "Icmp",
    "Port",
    "Sighting",
    "Switch",
    "Tcp",
    "Udp",
    "Verdict",
    "layers",
]
