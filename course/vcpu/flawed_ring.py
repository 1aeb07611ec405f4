"""A device with a hole, for lesson 8: it looks at everything that a guest says, and looks wrongly once.

The guest's memory lies in the memory of its VMM, as it does in QEMU; what lies behind it is somebody else's::

    vmm   ... | guest's memory (size bytes, from `base`) | secrets of the host ...
"""

from __future__ import annotations

import struct
from collections.abc import Mapping


def serve(vmm: bytes, base: int, size: int, queue: Mapping[str, int]) -> bytes:
    """Print the buffers that wait in a fresh queue; raise ValueError for a guest that breaks the rules."""

    def read(layout: str, address: int) -> tuple[int, ...]:
        return struct.unpack_from(layout, vmm, base + address)

    output = b""
    _, waiting = read("<HH", queue["avail"])
    if waiting > queue["size"]:
        raise ValueError(f"{waiting} buffers in a queue of {queue['size']}")
    for entry in range(waiting):
        (number,) = read("<H", queue["avail"] + 4 + 2 * entry)
        for _ in range(queue["size"]):
            if number >= queue["size"]:
                raise ValueError(f"there is no descriptor {number}")
            address, length, flags, following = read("<QIHH", queue["desc"] + 16 * number)
            end = (address + length) & 0xFFFFFFFF
            if end > size:
                raise ValueError(f"a buffer of {length} bytes at {address:#x} does not lie in the guest's memory")
            output += vmm[base + address : base + address + length]
            if not flags & 1:
                break
            number = following
        else:
            raise ValueError("a chain that does not end")
    return output
