"""A virtio queue: memory that a guest's driver and a device share, so that they need not meet for every byte.

::

    descriptors   size x { address u64, length u32, flags u16, next u16 }     what the driver offers
    available     flags u16, idx u16, size x { head u16 }                     driver -> device
    used          flags u16, idx u16, size x { head u32, written u32 }        device -> driver

Both ``idx`` count buffers since the beginning, modulo 2^16; entry ``idx % size`` of the ring is the next one to be
filled. Numbers are little-endian. The device's side is not here: lesson 8 has it as an exercise. Here are a driver in
Python (`Driver`), the same as a guest of 100 bytes of machine code (`send`), and the port that both replace (`ports`).

Source: Virtual I/O Device (VIRTIO) Version 1.2, section 2.7 "Split Virtqueues".
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..error import UsageError
from ..isa.assembler import assemble
from .cpu import Budget, Vcpu
from .exits import Hlt, Io

NEXT = 1
"""Flag of a descriptor: the chain goes on at `next`."""
NO_INTERRUPT = 1
"""Flag of the available ring: the driver does not want to be interrupted."""
DESCRIPTOR, HEADER, ELEMENT = struct.Struct("<QIHH"), struct.Struct("<HH"), struct.Struct("<II")
MEMORY_BYTES = 0x20000
CONSOLE, KICK, STUCK = 0xE9, 0x50, 0x51
"""Ports: one byte out; look into the queue; the driver waits for what never comes."""
_DESC, _AVAIL, _USED, _DATA = 0x10000, 0x11000, 0x12000, 0x13000

Queue = Mapping[str, int]
Device = Callable[[bytes, Queue, int], Any]


class Driver:
    """The guest's side, in Python, on memory of its own: what the hidden checks play.

    Args:
        size: entries of the queue, a power of two.
        start: value of both idx at the beginning; a queue that has been in use for long.
        first: the descriptor that is used first.

    Attributes:
        memory: all of the guest's memory; address 0 is its first byte.
        queue: what the device is told: size and the three addresses.
        idx: buffers offered since the beginning, modulo 2^16.
    """

    def __init__(self, size: int = 8, *, start: int = 0, first: int = 0) -> None:
        if size < 1 or size & (size - 1) or size > 256:
            raise UsageError(f"a queue of {size} entries; expected a power of two up to 256")
        self.memory = bytearray(MEMORY_BYTES)
        self.queue = {"size": size, "desc": _DESC, "avail": _AVAIL, "used": _USED}
        self.idx = self.seen = start & 0xFFFF
        self._free = _DATA
        self._descriptor = first % size
        HEADER.pack_into(self.memory, _AVAIL, 0, self.idx)
        HEADER.pack_into(self.memory, _USED, 0, self.idx)

    def describe(self, at: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Write one descriptor, whatever it says."""
        DESCRIPTOR.pack_into(self.memory, _DESC + 16 * at, address, length, flags, following)

    def announce(self, head: int, *, idx: int | None = None, flags: int = 0) -> None:
        """Put a head into the available ring and move its idx, or set it to `idx`."""
        struct.pack_into("<H", self.memory, _AVAIL + 4 + 2 * (self.idx % self.queue["size"]), head)
        self.idx = (self.idx + 1) & 0xFFFF if idx is None else idx & 0xFFFF
        HEADER.pack_into(self.memory, _AVAIL, flags, self.idx)

    def offer(self, *parts: bytes, flags: int = 0) -> int:
        """Offer one buffer, in one or several parts (a chain); return its head."""
        size = self.queue["size"]
        chain = [(self._descriptor + n) % size for n in range(len(parts))]
        self._descriptor = (self._descriptor + len(parts)) % size
        for n, part in enumerate(parts):
            if self._free + len(part) > len(self.memory):
                self._free = _DATA
            self.memory[self._free : self._free + len(part)] = part
            last = n == len(parts) - 1
            self.describe(chain[n], self._free, len(part), 0 if last else NEXT, 0 if last else chain[n + 1])
            self._free += len(part)
        self.announce(chain[0], flags=flags)
        return chain[0]

    def apply(self, writes: Sequence[tuple[int, bytes]]) -> list[tuple[int, int]]:
        """Let the device's writes happen in order; return the (head, written) elements that it gives back.

        An element is read at the moment at which ``used.idx`` announces it, as a driver on another CPU may do.
        """
        back: list[tuple[int, int]] = []
        for address, data in writes:
            self.memory[address : address + len(data)] = data
            _, idx = HEADER.unpack_from(self.memory, _USED)
            while self.seen != idx and len(back) <= 2 * self.queue["size"]:
                back.append(ELEMENT.unpack_from(self.memory, _USED + 4 + 8 * (self.seen % self.queue["size"])))
                self.seen = (self.seen + 1) & 0xFFFF
        return back


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How a message got out of a guest.

    Attributes:
        output: what the device got.
        exits: how often the guest left, by reason.
        kicks: how often the device was asked to look into the queue.
        stuck: the driver found that a buffer had not come back after a kick.
    """

    output: bytes
    exits: Mapping[str, int]
    kicks: int = 0
    stuck: bool = False


_DRIVER = """
        mov ebx, 0              ; buffers offered
next:   mov esi, ebx
        and esi, {mask}
        shl esi, 4
        add esi, {desc}         ; the slot's descriptor:
        mov eax, ebx
        imul eax, eax, {chunk}
        add eax, {data}
        mov dword [rsi], eax    ; address
        mov dword [rsi + 8], {chunk}
        add ebx, 1
        mov eax, ebx
        shl eax, 16
        mov edi, {avail}
        mov dword [rdi], eax    ; flags 0, idx
        mov eax, ebx
        and eax, {mask}
        je kick                 ; the queue is full
        cmp ebx, {count}
        jne next
kick:   mov edx, {kick}
        .byte 0xee              ; out dx, al
        mov edi, {used}
        mov eax, dword [rdi]
        shr eax, 16
        mov ecx, ebx
        and ecx, 0xffff
        cmp eax, ecx
        jne stuck
        cmp ebx, {count}
        jne next
        hlt
stuck:  mov edx, {stuck}
        .byte 0xee
        hlt
"""

_LOOP = """
        mov esi, {data}
        mov ecx, {count}
        mov edx, {port}
next:   .byte 0xac              ; lodsb
        .byte 0xee              ; out dx, al
        sub ecx, 1
        jne next
        hlt
"""

_STRING = """
        mov esi, {data}
        mov ecx, {count}
        mov edx, {port}
        .byte 0xf3, 0x6e        ; rep outsb
        hlt
"""


def driver_code(count: int, chunk: int, size: int) -> bytes:
    """Machine code of a guest that offers `count` buffers of `chunk` bytes and kicks when the queue is full."""
    numbers = {"mask": size - 1, "desc": _DESC, "avail": _AVAIL, "used": _USED, "data": _DATA}
    source = _DRIVER.format(**numbers, chunk=chunk, count=count, kick=KICK, stuck=STUCK)
    return assemble(source, "x86_64", _DATA - 0x400)


def send(device: Device, message: bytes, *, chunk: int = 64, size: int = 8, engine: str = "best") -> Transfer:
    """Run a guest that sends `message` through a queue.

    Args:
        device: called at every kick with (memory, queue, last); returns a dict with "output", "writes" and "last".
        message: a multiple of `chunk` bytes, at most 32 KiB.
        chunk: bytes per buffer.
        size: entries of the queue.
        engine: of the virtual CPU.
    """
    if not message or len(message) % chunk or len(message) > 0x8000:
        raise UsageError(f"a message of {len(message)} bytes; expected a multiple of {chunk}, at most {0x8000}")
    queue = {"size": size, "desc": _DESC, "avail": _AVAIL, "used": _USED}
    exits: Counter[str] = Counter()
    output, last, kicks, stuck = b"", 0, 0, False
    heads = HEADER.pack(0, 0) + struct.pack(f"<{size}H", *range(size))
    with _guest(driver_code(len(message) // chunk, chunk, size), message, engine) as vcpu:
        vcpu.memory.write(_AVAIL, heads)
        while not (reason := vcpu.run()).final and not isinstance(reason, Hlt):
            exits[reason.reason] += 1
            if isinstance(reason, Io) and reason.port == KICK:
                kicks += 1
                done = device(_memory_of(vcpu), queue, last)
                output, last = output + done["output"], done["last"]
                for address, data in done["writes"]:
                    vcpu.memory.write(address, data)
            stuck = stuck or (isinstance(reason, Io) and reason.port == STUCK)
            vcpu.complete(reason)
        exits[reason.reason] += 1
    return Transfer(output, dict(exits), kicks, stuck)


def ports(message: bytes, *, string: bool = False, engine: str = "best") -> Transfer:
    """Run a guest that sends `message` through a port: byte by byte, or with one `rep outsb`."""
    source = (_STRING if string else _LOOP).format(data=_DATA, count=len(message), port=CONSOLE)
    exits: Counter[str] = Counter()
    output = b""
    with _guest(assemble(source, "x86_64", _DATA - 0x400), message, engine) as vcpu:
        while not (reason := vcpu.run()).final and not isinstance(reason, Hlt):
            exits[reason.reason] += 1
            if isinstance(reason, Io):
                output += reason.data
            vcpu.complete(reason)
        exits[reason.reason] += 1
    return Transfer(output, dict(exits))


def _guest(code: bytes, message: bytes, engine: str) -> Vcpu:
    """A virtual CPU with RAM from 64 KiB on, the queue at its beginning, the code before the message."""
    vcpu = Vcpu.open(engine, at=_DESC, ram_kib=(MEMORY_BYTES - _DESC) >> 10, budget=Budget(exits=100_000, seconds=120))
    vcpu.memory.write(_DATA - 0x400, code)
    vcpu.memory.write(_DATA, message)
    vcpu.regs.rip = _DATA - 0x400
    return vcpu


def _memory_of(vcpu: Vcpu) -> bytes:
    return bytes(_DESC) + vcpu.memory.read(_DESC, MEMORY_BYTES - _DESC)
