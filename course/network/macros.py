"""Macros: names for the ports of services, so that a rule can say SSH.

Each is written as alternatives, ``protocol:dports[<sports]``; an alternative matches on its own.

Source: the names that Proxmox VE's administration guide and API list; ports by the registry of the IANA and the
documentation of each service.
"""

from __future__ import annotations

from typing import NamedTuple

_TABLE = """
Amanda       udp:10080 tcp:10080                    backups with Amanda
Auth         tcp:113                                identd
BGP          tcp:179                                routers among each other
BitTorrent   tcp:6881:6889 udp:6881                 BitTorrent up to 3.1
BitTorrent32 tcp:6881:6999 udp:6881                 BitTorrent from 3.2 on
CVS          tcp:2401                               CVS pserver
Ceph         tcp:6789 tcp:3300 tcp:6800:7300        Ceph monitors, OSDs and metadata servers
Citrix       tcp:1494 udp:1604 tcp:2598             Citrix ICA
DAAP         tcp:3689 udp:3689                      music sharing
DCC          tcp:6277                               spam checksums
DHCPfwd      udp:67:68<67:68                        forwarded DHCP
DHCPv6       udp:546:547<546:547                    DHCP for IPv6
DNS          udp:53 tcp:53                          names
Distcc       tcp:3632                               distributed compiling
FTP          tcp:21                                 file transfer, its control connection
Finger       tcp:79                                 finger
GNUnet       tcp:2086 udp:2086 tcp:1080 udp:1080    GNUnet
GRE          47                                     generic tunnels
Git          tcp:9418                               git's own protocol
HKP          tcp:11371                              OpenPGP key servers
HTTP         tcp:80                                 web
HTTPS        tcp:443                                web, encrypted
ICPV2        udp:3130                               caches among each other
ICQ          tcp:5190                               ICQ and AIM
IMAP         tcp:143                                reading mail
IMAPS        tcp:993                                reading mail, encrypted
IPIP         94                                     IP in IP
IPsec        udp:500<500 50                         IPsec
IPsecah      udp:500<500 51                         IPsec with authentication headers
IPsecnat     udp:500 udp:4500 50                    IPsec through address translation
IRC          tcp:6667                               chat
Jetdirect    tcp:9100                               network printers
L2TP         udp:1701                               layer 2 tunnels
LDAP         tcp:389                                directories
LDAPS        tcp:636                                directories, encrypted
MDNS         udp:5353                               names without a server
MSNP         tcp:1863                               Microsoft's messenger
MSSQL        tcp:1433                               Microsoft SQL Server
Mail         tcp:25 tcp:465 tcp:587                 sending mail, all ways
Munin        tcp:4949                               monitoring with Munin
MySQL        tcp:3306                               MySQL and MariaDB
NNTP         tcp:119                                news
NNTPS        tcp:563                                news, encrypted
NTP          udp:123                                time
NeighborDiscovery icmpv6:133 icmpv6:134 icmpv6:135 icmpv6:136  neighbours and routers of IPv6
OSPF         89                                     routers among each other
OpenVPN      udp:1194                               OpenVPN
PCA          udp:5632 tcp:5631                      PCAnywhere
PMG          tcp:8006                               Proxmox Mail Gateway's web interface
POP3         tcp:110                                fetching mail
POP3S        tcp:995                                fetching mail, encrypted
PPtP         47 tcp:1723                            point-to-point tunnels
Ping         icmp:echo-request                      are you there?
PostgreSQL   tcp:5432                               PostgreSQL
Printer      tcp:515                                line printers
RDP          tcp:3389                               Windows' remote desktop
RIP          udp:520                                routers among each other
RNDC         tcp:953                                steering BIND
Razor        tcp:2703                               spam signatures
Rdate        tcp:37                                 time, the old way
Rsync        tcp:873                                rsync's own protocol
SANE         tcp:6566                               scanners
SMB          udp:135,445 udp:137:139 udp:1024:65535<137 tcp:135,139,445    Windows' file sharing
SMBswat      tcp:901                                Samba's old web interface
SMTP         tcp:25                                 sending mail
SMTPS        tcp:465                                sending mail, encrypted
SNMP         udp:161:162 tcp:161                    monitoring with SNMP
SPAMD        tcp:783                                SpamAssassin
SPICEproxy   tcp:3128                               Proxmox VE's proxy for SPICE screens
SSH          tcp:22                                 secure shell
SVN          tcp:3690                               Subversion
SixXS        tcp:3874 udp:3740 41 udp:5072,8374     SixXS tunnels
Squid        tcp:3128                               Squid web proxy
Submission   tcp:587                                handing mail in
Syslog       udp:514 tcp:514                        system logs
TFTP         udp:69                                 trivial file transfer
Telnet       tcp:23                                 telnet
Telnets      tcp:992                                telnet, encrypted
Time         tcp:37                                 time, the old way
Trcrt        udp:33434:33524 icmp:echo-request      traceroute
VNC          tcp:5900:5999                          VNC screens
VNCL         tcp:5500                               VNC viewers that listen
Web          tcp:80 tcp:443                         web, both ways
Webcache     tcp:8080                               web caches
Webmin       tcp:10000                              Webmin
Whois        tcp:43                                 whose network is it?
"""

_VERSION_6 = {"Ping": "icmpv6:echo-request", "Trcrt": "udp:33434:33524 icmpv6:echo-request"}
ONLY = {"NeighborDiscovery": 6, "DHCPv6": 6}
"""Macros of one version of the Internet Protocol."""


class Alternative(NamedTuple):
    """What a macro stands for, as the fields of a rule; empty for anything."""

    proto: str
    dport: str = ""
    sport: str = ""


def _read() -> tuple[dict[str, tuple[Alternative, ...]], dict[str, str]]:
    """Return the alternatives and the descriptions by name."""
    macros, words = {}, {}
    for line in _TABLE.strip().split("\n"):
        name, _, rest = line.partition(" ")
        parts, _, description = rest.strip().partition("  ")
        macros[name] = _alternatives(parts)
        words[name] = description.strip()
    return macros, words


def _alternatives(text: str) -> tuple[Alternative, ...]:
    """Read what stands behind a name."""
    found = []
    for part in text.split():
        proto, _, ports = part.partition(":")
        dport, _, sport = ports.partition("<")
        found.append(Alternative(proto, dport, sport))
    return tuple(found)


MACROS, DESCRIPTIONS = _read()
"""Alternatives and descriptions by name, as it is written."""

NAMES = {name.lower(): name for name in MACROS}
"""The right way of writing a name, by its lower case."""


def alternatives(name: str, version: int) -> tuple[Alternative, ...]:
    """Return what a macro stands for in a version of the Internet Protocol; none where it makes no sense.

    Args:
        name: such as ``SSH``.
        version: 4 or 6.

    Raises:
        KeyError: there is no such macro.
    """
    if ONLY.get(name, version) != version:
        return ()
    if version == 6 and name in _VERSION_6:
        return _alternatives(_VERSION_6[name])
    return MACROS[name]
