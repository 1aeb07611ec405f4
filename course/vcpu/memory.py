"""The guest's memory: pages of one memory file, mapped where the VMM says.

::

    guest-physical address      page of the memory file        what an access does
    0x00010000 … 0x3fffffff ──▶ (offset, permissions)          happens natively, or a PageFault exit
                            ──▶ device                         an Mmio exit
                            ──▶ nothing                        a PageFault exit

Several addresses may show the same page (`alias`): that is what shadow page tables need. Addresses below 64 KiB cannot
be used because the host's kernel does not let ordinary processes map them, and those from 1 GiB on because some
engines keep their own tables there.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from ..error import UsageError

PAGE = 4096
LOWEST, HIGHEST = 0x10000, 0x40000000
LIMIT = 64 << 20
DEVICE = "device"
_PERMISSIONS = ("", "r", "rw", "rx", "rwx")

Watcher = Callable[[int, int, int, str], None]
"""Told of each change: address, size in bytes, offset in the memory file, permissions ("" is nothing there)."""


class Memory:
    """Guest-physical memory; owned by a `Vcpu`, which closes it.

    Attributes:
        fd: the memory file.
        dirty: the VMM has written since an engine last looked (engines that translate must translate again).
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, LIMIT)
        self.bytes = mmap.mmap(self.fd, LIMIT)
        self.dirty = False
        self._pages: dict[int, tuple[int, str]] = {}
        self._used = 0
        self._watcher: Watcher | None = None

    def watch(self, watcher: Watcher) -> None:
        """Let an engine follow every later change of the map."""
        self._watcher = watcher

    def map(self, address: int, size: int, permissions: str = "rwx", data: bytes = b"") -> None:
        """Put RAM there, zeroed but for `data` at its beginning.

        Args:
            address: a multiple of 4096, from 0x10000 to below 0x40000000.
            size: in bytes; rounded up to whole pages.
            permissions: ``"r"``, ``"rw"``, ``"rx"`` or ``"rwx"``.
            data: initial contents.

        Raises:
            UsageError: the range is not possible or not free, or all RAM (64 MiB) is used up.
        """
        size = self._range(address, max(size, len(data)))
        taken = [page for page in self._span(address, size) if page in self._pages]
        if taken:
            raise UsageError(f"there is something at {taken[0] * PAGE:#x} already; unmap it first")
        if self._used + size > LIMIT:
            raise UsageError(f"{size >> 10} KiB more RAM is asked for, and {(LIMIT - self._used) >> 10} KiB are left")
        offset, self._used = self._used, self._used + size
        self._set(address, size, offset, permissions)
        self.write(address, data)

    def alias(self, address: int, of: int, size: int = PAGE, permissions: str = "rwx") -> None:
        """Show the RAM at `of` at `address` too, replacing what was there.

        Raises:
            UsageError: the range is not possible, or there is no RAM at `of`.
        """
        size = self._range(address, size)
        offsets = [self._offset(of + at) for at in range(0, size, PAGE)]
        for at, offset in enumerate(offsets):
            self._set(address + at * PAGE, PAGE, offset, permissions)

    def protect(self, address: int, size: int, permissions: str) -> None:
        """Change the permissions of RAM that is mapped."""
        for at in range(0, self._range(address, size), PAGE):
            self._set(address + at, PAGE, self._offset(address + at), permissions)

    def unmap(self, address: int, size: int) -> None:
        """Take away what is there; accesses become PageFault exits."""
        size = self._range(address, size)
        for page in self._span(address, size):
            self._pages.pop(page, None)
        self._tell(address, size, 0, "")

    def device(self, address: int, size: int) -> None:
        """Make loads and stores there Mmio exits."""
        size = self._range(address, size)
        for page in self._span(address, size):
            self._pages[page] = (0, DEVICE)
        self._tell(address, size, 0, "")

    def read(self, address: int, size: int) -> bytes:
        """Return RAM as it is now, whatever its permissions.

        Raises:
            UsageError: not all of it is RAM.
        """
        return b"".join(self.bytes[at : at + length] for at, length in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Change RAM, whatever its permissions.

        Raises:
            UsageError: not all of it is RAM; nothing has been written then.
        """
        pieces, done = self._pieces(address, len(data)), 0
        for at, length in pieces:
            self.bytes[at : at + length] = data[done : done + length]
            done += length
        self.dirty = True

    def permissions(self, address: int) -> str:
        """What is allowed at an address; ``"device"``, or ``""`` where nothing is."""
        return self._pages.get(address // PAGE, (0, ""))[1]

    def fetch(self, address: int, size: int = 15) -> bytes:
        """Return up to `size` bytes that the CPU could execute at `address`."""
        end = address
        while end < address + size and "x" in self.permissions(end):
            end = min(address + size, (end // PAGE + 1) * PAGE)
        return self.read(address, end - address)

    def ranges(self) -> list[tuple[int, int, int, str]]:
        """Every RAM page as (address, size, offset, permissions), for an engine that starts."""
        return [(page * PAGE, PAGE, at, allowed) for page, (at, allowed) in self._pages.items() if allowed != DEVICE]

    def close(self) -> None:
        """Give the memory back."""
        if not self.bytes.closed:
            self.bytes.close()
            os.close(self.fd)

    @staticmethod
    def _span(address: int, size: int) -> range:
        return range(address // PAGE, (address + size) // PAGE)

    @staticmethod
    def _range(address: int, size: int) -> int:
        size = -(-size // PAGE) * PAGE
        if address % PAGE or size <= 0 or not LOWEST <= address <= HIGHEST - size:
            raise UsageError(
                f"{size} bytes at {address:#x} cannot be mapped: the address must be a multiple of {PAGE}, and all of"
                f" it must lie from {LOWEST:#x} to below {HIGHEST:#x}"
            )
        return size

    def _offset(self, address: int) -> int:
        offset, allowed = self._pages.get(address // PAGE, (0, ""))
        if allowed in ("", DEVICE):
            raise UsageError(f"there is no RAM at {address:#x} ({allowed or 'nothing'} there)")
        return offset + address % PAGE

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """Offset and length of every page's share of a range."""
        pieces = []
        while size > 0:
            length = min(size, PAGE - address % PAGE)
            pieces.append((self._offset(address), length))
            address, size = address + length, size - length
        return pieces

    def _set(self, address: int, size: int, offset: int, permissions: str) -> None:
        if permissions not in _PERMISSIONS[1:]:
            raise UsageError(f"permissions {permissions!r}: expected one of {', '.join(_PERMISSIONS[1:])}")
        for at, page in enumerate(self._span(address, size)):
            self._pages[page] = (offset + at * PAGE, permissions)
        self._tell(address, size, offset, permissions)

    def _tell(self, address: int, size: int, offset: int, permissions: str) -> None:
        if self._watcher is not None:
            self._watcher(address, size, offset, permissions)
