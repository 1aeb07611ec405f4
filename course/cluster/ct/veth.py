"""A network interface for a container of a node without ``/dev/net/tun``: a pair of them, and a socket on one.

::

    eth0 ◄──veth pair──► wire-eth0 ◄── packet socket: a file of frames, as a tap is

Root of the network namespace alone may make it, and the container's keeper is that. What the sending side leaves to
hardware (checksums, cutting up large segments) is switched off: there is none.

Source: rtnetlink(7), veth(4), packet(7); Linux, include/uapi/linux/ethtool.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct

PEER = "wire-"
_RTM_NEWLINK, _FLAGS = 16, 0x605  # request, acknowledge, create, exclusive
_IFNAME, _LINKINFO, _KIND, _DATA, _VETH_PEER = 3, 18, 1, 2, 1
_ETH_P_ALL = 3
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP, _SIOCETHTOOL = 0x8913, 0x8914, 0x1, 0x8946
_OFFLOADS = (0x17, 0x1F, 0x24)  # ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO


def make(name: str) -> int:
    """Make an interface; return the file of its frames.

    Raises:
        OSError: the kernel refuses.
    """
    peer = f"{PEER}{name}"[:15]
    _add_pair(name, peer)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _OFFLOADS:
            _switch_off(any_socket, name, command)
        request = struct.pack("16sH22x", peer.encode(), 0)
        flags = struct.unpack_from("16xH", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", peer.encode(), flags | _IFF_UP))
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    try:
        frames.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        frames.bind((peer, _ETH_P_ALL))
    except OSError:
        frames.close()
        raise
    return frames.detach()


def _switch_off(any_socket: socket.socket, name: str, command: int) -> None:
    value = array.array("I", [command, 0])
    address, _ = value.buffer_info()
    try:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), address))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def _add_pair(name: str, peer: str) -> None:
    nothing = bytes(16)  # struct ifinfomsg: whatever suits the kernel
    other = _attribute(_VETH_PEER, nothing + _attribute(_IFNAME, peer.encode() + b"\0"))
    kind = _attribute(_KIND, b"veth\0") + _attribute(_DATA, other)
    body = nothing + _attribute(_IFNAME, name.encode() + b"\0") + _attribute(_LINKINFO, kind)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        link.send(struct.pack("IHHII", 16 + len(body), _RTM_NEWLINK, _FLAGS, 1, 0) + body)
        answer = link.recv(4096)
    failed = -struct.unpack_from("i", answer, 16)[0]
    if failed:
        raise OSError(failed, os.strerror(failed))
