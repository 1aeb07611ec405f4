r"""Write the archive that Linux unpacks into its first root file system ("newc" cpio), with devices, without root.

::

    070701 ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
           each field 8 hexadecimal digits, then name\0 and data, both padded to 4 bytes

All times are 0 and all owners root, so the same entries make the same bytes.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import stat

_TRAILER = "TRAILER!!!"
_BLOCK_BYTES = 512


class Archive:
    """Entries in the order in which they are added; parent directories come by themselves."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0
        self._directories: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and its parents, unless they are there."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            if name not in self._directories:
                self._directories.add(name)
                self._add(name, stat.S_IFDIR | (mode if depth == len(parts) else 0o755), links=2)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(self._placed(path), stat.S_IFREG | mode, content)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link at `path` that points to `target`."""
        self._add(self._placed(path), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device; a file format needs no privilege to name one."""
        self._add(self._placed(path), stat.S_IFCHR | mode, device=(major, minor))

    def to_bytes(self) -> bytes:
        """Return the whole archive, closed by its trailer and padded to 512 bytes."""
        whole = self._data + _entry(0, _TRAILER, 0)
        return bytes(whole + b"\0" * (-len(whole) % _BLOCK_BYTES))

    def _placed(self, path: str) -> str:
        name = path.strip("/")
        if "/" in name:
            self.directory(name.rpartition("/")[0])
        return name

    def _add(
        self, name: str, mode: int, content: bytes = b"", links: int = 1, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        self._data += _entry(self._inode, name, mode, content=content, links=links, device=device)


def _entry(
    inode: int, name: str, mode: int, *, content: bytes = b"", links: int = 1, device: tuple[int, int] = (0, 0)
) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    padded = header + b"\0" * (-len(header) % 4) + content
    return padded + b"\0" * (-len(padded) % 4)
