r"""Archives of virtual machines in Proxmox VE's VMA format: written and read as one stream.

::

    header, 12288 bytes    "VMA\0", version 1, uuid, time, md5 of the header, where the blobs are
                           names and contents of configuration files, and devices by number: each an offset into
    blobs                  [length, 16 bits little-endian][bytes] ...        offset 0 means none
    extent                 512 bytes of header, then its blocks
    extent                 ...

    extent's header        "VMAE", count of blocks, uuid, md5, and 59 entries of 8 bytes:
                           [mask 16][0][device 8][cluster 32]    one cluster of 64 KiB; device 0: no entry
    blocks                 of each entry in order, the 4 KiB blocks whose bit of the mask is set; the others are zeros

All numbers but a blob's length are big-endian. Every cluster of a device has its entry, also one of nothing but zeros,
so a reader can tell that an archive is whole.

Source: vma_spec.txt in pve-qemu, the format's public description.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from ...error import ClusterError

BLOCK = 4096
CLUSTER = 65536
PER_EXTENT = 59
MAX_DEVICES = 255
MAX_CONFIGS = 256

_HEAD = struct.Struct(">4sI16sq16sIII1984x")
_DEVICE = struct.Struct(">IIQQQ")
_EXTENT = struct.Struct(">4sHH16s16s")
_NUMBERS = struct.Struct(f">{MAX_CONFIGS}I")
_INFOS = struct.Struct(f">{PER_EXTENT}Q")
_HEADER_SIZE = _HEAD.size + 2 * _NUMBERS.size + 4 + 256 * _DEVICE.size
_MD5_AT = 32
_EXTENT_MD5_AT = 24
_ZEROS = bytes(BLOCK)
_NOTHING = bytes(CLUSTER)
_NO_MD5 = bytes(16)
_MOST_BLOBS = 1 << 26


@dataclass(frozen=True, slots=True)
class Device:
    """One disk of an archive.

    Attributes:
        id: 1 to 255.
        name: such as ``drive-scsi0``.
        size: in bytes.
    """

    id: int
    name: str
    size: int

    @property
    def clusters(self) -> int:
        """How many clusters it has; the last may be shorter."""
        return -(-self.size // CLUSTER)


@dataclass(slots=True)
class Header:
    """What an archive begins with.

    Attributes:
        configs: contents of files by name, such as ``qemu-server.conf``.
        devices: by number.
        ctime: when it was made, in seconds since 1970.
        uuid: that each of its extents bears.
    """

    configs: dict[str, bytes]
    devices: dict[int, Device]
    ctime: int = 0
    uuid: bytes = field(default_factory=lambda: uuid.uuid4().bytes)


class Writer:
    """Writes an archive.

    Args:
        file: takes the bytes; it is not closed.
        configs: contents of files by name.
        devices: names and sizes in bytes; numbered from 1 in this order.
        ctime: seconds since 1970.

    Raises:
        ClusterError: there are too many of them, or a file is too long for the format.
    """

    def __init__(
        self, file: IO[bytes], configs: Mapping[str, bytes], devices: Sequence[tuple[str, int]], *, ctime: int
    ) -> None:
        if len(devices) > MAX_DEVICES or len(configs) > MAX_CONFIGS:
            raise ClusterError(f"vma: {len(devices)} devices and {len(configs)} files are too many for one archive")
        numbered = {number: Device(number, name, size) for number, (name, size) in enumerate(devices, 1)}
        self.header = Header(dict(configs), numbered, ctime)
        self.stored = 0
        self._file = file
        self._infos: list[int] = []
        self._blocks: list[bytes] = []
        self._file.write(_packed(self.header))

    def write(self, device: int, cluster: int, data: bytes) -> None:
        """Write one cluster of a device; what is missing of a last one is zeros.

        Args:
            device: its number.
            cluster: its number.
            data: up to 64 KiB.
        """
        mask = 0
        if data == _NOTHING:
            data = b""
        for bit in range(-(-len(data) // BLOCK)):
            block = data[bit * BLOCK : (bit + 1) * BLOCK]
            if block != _ZEROS[: len(block)]:
                mask |= 1 << bit
                self._blocks.append(block.ljust(BLOCK, b"\0"))
        self.stored += BLOCK * mask.bit_count()
        self._infos.append(mask << 48 | device << 32 | cluster)
        if len(self._infos) == PER_EXTENT:
            self._flush()

    def close(self) -> None:
        """Write what is left; the archive is whole then."""
        if self._infos:
            self._flush()

    def _flush(self) -> None:
        infos = _INFOS.pack(*self._infos, *[0] * (PER_EXTENT - len(self._infos)))
        bare = _EXTENT.pack(b"VMAE", 0, len(self._blocks), self.header.uuid, _NO_MD5) + infos
        self._file.write(_with_md5(bare, _EXTENT_MD5_AT))
        self._file.writelines(self._blocks)
        self._infos, self._blocks = [], []


class Reader:
    """Reads an archive from its beginning to its end; the header is read at once.

    Args:
        file: gives the bytes.

    Raises:
        ClusterError: it is no archive of this format, or a damaged one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read_bytes = 0
        self.header = self._header()

    def clusters(self) -> Iterator[tuple[Device, int, bytes]]:
        """Yield each cluster: its device, its offset in bytes, its content cut to the device's size.

        Raises:
            ClusterError: the archive is damaged, or ends before all clusters have come.
        """
        seen: dict[int, set[int]] = {number: set() for number in self.header.devices}
        while head := self._read(_EXTENT.size + _INFOS.size, optional=True):
            for device, cluster, data in self._extent(head):
                if cluster in seen[device.id] or cluster >= device.clusters:
                    raise ClusterError(f"found duplicated cluster {cluster} for stream {device.name}")
                seen[device.id].add(cluster)
                yield device, cluster * CLUSTER, data[: device.size - cluster * CLUSTER]
        for number, device in self.header.devices.items():
            if len(seen[number]) != device.clusters:
                missing = next(n for n in range(device.clusters) if n not in seen[number])
                raise ClusterError(f"detected missing cluster {missing} for stream {device.name}")

    def _extent(self, head: bytes) -> Iterator[tuple[Device, int, bytes]]:
        magic, _, count, owner, md5 = _EXTENT.unpack_from(head)
        if magic != b"VMAE" or owner != self.header.uuid:
            raise ClusterError("wrong vma extent header - archive is damaged")
        if md5 != _md5(head, _EXTENT_MD5_AT):
            raise ClusterError("wrong vma extent header checksum")
        infos = _INFOS.unpack_from(head, _EXTENT.size)
        if sum((info >> 48).bit_count() for info in infos) != count:
            raise ClusterError("wrong vma extent header - number of blocks does not match")
        for info in infos:
            if number := info >> 32 & 0xFF:
                if number not in self.header.devices:
                    raise ClusterError(f"got wrong dev id {number}")
                yield self.header.devices[number], info & 0xFFFFFFFF, self._cluster(info >> 48)

    def _cluster(self, mask: int) -> bytes:
        if not mask:
            return bytes(CLUSTER)
        stored = self._read(BLOCK * mask.bit_count())
        if mask == 0xFFFF:
            return stored
        parts, at = [], 0
        for bit in range(CLUSTER // BLOCK):
            if mask >> bit & 1:
                parts.append(stored[at : at + BLOCK])
                at += BLOCK
            else:
                parts.append(_ZEROS)
        return b"".join(parts)

    def _header(self) -> Header:
        head = self._read(_HEADER_SIZE)
        magic, version, identity, ctime, md5, offset, size, whole = _HEAD.unpack_from(head)
        if magic != b"VMA\0":
            raise ClusterError("not a vma archive - wrong magic number")
        if version != 1:
            raise ClusterError(f"wrong vma version {version}")
        if not _HEADER_SIZE <= offset <= whole or offset + size > whole or whole > _MOST_BLOBS:
            raise ClusterError("wrong vma header size - archive is damaged")
        head += self._read(whole - _HEADER_SIZE)
        if md5 != _md5(head, _MD5_AT):
            raise ClusterError("wrong vma header checksum")
        blobs = head[offset : offset + size]
        names = _NUMBERS.unpack_from(head, _HEAD.size)
        contents = _NUMBERS.unpack_from(head, _HEAD.size + _NUMBERS.size)
        configs = {
            _text(blobs, name): _blob(blobs, content) for name, content in zip(names, contents, strict=True) if name
        }
        devices = {}
        for number in range(1, MAX_DEVICES + 1):
            at = _HEADER_SIZE - (256 - number) * _DEVICE.size
            name, _, length, _, _ = _DEVICE.unpack_from(head, at)
            if name:
                devices[number] = Device(number, _text(blobs, name), length)
        return Header(configs, devices, ctime, identity)

    def _read(self, length: int, *, optional: bool = False) -> bytes:
        """Read so many bytes; none at all are allowed where the archive may end."""
        parts = []
        left = length
        while left and (part := self._file.read(left)):
            parts.append(part)
            left -= len(part)
        if left and not (optional and left == length):
            raise ClusterError("vma archive is truncated - unexpected end of file")
        self.read_bytes += length - left
        return b"".join(parts)


def _packed(header: Header) -> bytes:
    """Return a header as it stands in the archive."""
    blobs = bytearray(1)

    def kept(content: bytes) -> int:
        if len(content) > 0xFFFF:
            raise ClusterError(f"vma: {len(content)} bytes are too long for a file in the header")
        at = len(blobs)
        blobs.extend(len(content).to_bytes(2, "little") + content)
        return at

    names = [kept(name.encode() + b"\0") for name in header.configs]
    contents = [kept(content) for content in header.configs.values()]
    devices = [bytes(_DEVICE.size)] * 256
    for number, device in header.devices.items():
        devices[number] = _DEVICE.pack(kept(device.name.encode() + b"\0"), 0, device.size, 0, 0)
    blobs.extend(bytes(-len(blobs) % 512))
    rest = [0] * (MAX_CONFIGS - len(names))
    head = _HEAD.pack(
        b"VMA\0", 1, header.uuid, header.ctime, _NO_MD5, _HEADER_SIZE, len(blobs), _HEADER_SIZE + len(blobs)
    )
    head += _NUMBERS.pack(*names, *rest) + _NUMBERS.pack(*contents, *rest) + bytes(4) + b"".join(devices)
    return _with_md5(head + bytes(blobs), _MD5_AT)


def _blob(blobs: bytes, at: int) -> bytes:
    length = int.from_bytes(blobs[at : at + 2], "little")
    if at + 2 + length > len(blobs):
        raise ClusterError("wrong vma header - a blob leads out of the header")
    return blobs[at + 2 : at + 2 + length]


def _text(blobs: bytes, at: int) -> str:
    return _blob(blobs, at).rstrip(b"\0").decode(errors="replace")


def _md5(head: bytes, at: int) -> bytes:
    """Return the checksum of a header whose own place counts as zeros."""
    return hashlib.md5(head[:at] + _NO_MD5 + head[at + 16 :], usedforsecurity=False).digest()


def _with_md5(head: bytes, at: int) -> bytes:
    return head[:at] + _md5(head, at) + head[at + 16 :]
