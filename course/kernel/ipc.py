"""Bytes per second between two processes: through a pipe, through a socket pair, through shared memory.

::

    pipe, socketpair    make block ──write──▶ kernel buffer ──read──▶ receiver     each byte is copied twice
    shared memory       make block in a page of both ◀──────────────  receiver     never; the kernel only wakes

Both processes block while they wait (no busy loop), so that the comparison also holds on one CPU. Every block begins
with its number, and the receiver counts what came in order: a fast channel that loses data is no channel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import signal
import socket
import struct
import time
import warnings
from collections.abc import Callable

from ..error import CourseError, UsageError

CHANNELS = ("pipe", "socketpair", "shared memory")
_SHARED_BYTES = 1 << 18  # as many slots as fit into the cache, so that both sides can run ahead


@dataclasses.dataclass(frozen=True)
class Throughput:
    """One transfer.

    Attributes:
        channel: one of `CHANNELS`.
        block_bytes: size of a block.
        blocks: number of blocks that arrived in order.
        seconds: from the first byte sent to the receiver's confirmation.
    """

    channel: str
    block_bytes: int
    blocks: int
    seconds: float

    @property
    def mb_per_s(self) -> float:
        """Megabytes (10⁶ bytes) per second."""
        return self.block_bytes * self.blocks / self.seconds / 1e6


def throughput(channel: str, block_bytes: int, *, total_bytes: int = 32 << 20) -> Throughput:
    """Send about `total_bytes` in blocks of `block_bytes` to a child process and time it.

    Args:
        channel: ``"pipe"``, ``"socketpair"`` or ``"shared memory"``.
        block_bytes: 64 bytes to 4 MiB.
        total_bytes: rounded down to whole blocks, at least one.

    Raises:
        UsageError: for an unknown channel or a block size out of range.
        CourseError: when a block was lost or came out of order.
    """
    if channel not in CHANNELS:
        raise UsageError(f"channel {channel!r} is unknown; expected one of {', '.join(CHANNELS)}")
    if not 64 <= block_bytes <= 4 << 20:
        raise UsageError(f"block_bytes is {block_bytes}; expected 64 to {4 << 20}")
    blocks = max(1, total_bytes // block_bytes)
    make = _shared if channel == "shared memory" else _stream(channel)
    with contextlib.ExitStack() as stack:
        send, receive = make(block_bytes, blocks, stack)
        report_read, report_write = os.pipe()
        stack.callback(os.close, report_read)
        pid = _child(receive, report_write)
        os.close(report_write)
        try:
            os.read(report_read, 1)  # the receiver is ready
            start = time.perf_counter()
            send()
            report = os.read(report_read, 8)
            seconds = time.perf_counter() - start
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    arrived = struct.unpack("=q", report)[0] if len(report) == 8 else 0
    if arrived != blocks:
        raise CourseError(f"{channel}: {arrived} of {blocks} blocks arrived in order; expected all of them")
    return Throughput(channel, block_bytes, blocks, seconds)


def _child(receive: Callable[[], int], report: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a threaded process: this child leaves by _exit
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)  # never outlives a parent that vanished
            os.write(report, b"r")
            os.write(report, struct.pack("=q", receive()))
        finally:
            os._exit(0)
    return pid


_Ends = tuple[Callable[[], None], Callable[[], int]]


def _stream(channel: str) -> Callable[[int, int, contextlib.ExitStack], _Ends]:
    def make(block_bytes: int, blocks: int, stack: contextlib.ExitStack) -> _Ends:
        if channel == "pipe":
            reader, writer = os.pipe()
        else:
            reader, writer = (s.detach() for s in socket.socketpair())
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)

        def send() -> None:
            template, block = bytes(block_bytes), bytearray(block_bytes)
            for number in range(blocks):
                block[:] = template  # the work of making a block, which every channel pays
                struct.pack_into("=q", block, 0, number)
                left = memoryview(block)
                while left:
                    left = left[os.write(writer, left) :]

        def receive() -> int:
            block = memoryview(bytearray(block_bytes))
            for number in range(blocks):
                filled = 0
                while filled < block_bytes:
                    got = os.readv(reader, [block[filled:]])
                    if not got:
                        return number
                    filled += got
                if struct.unpack_from("=q", block)[0] != number:
                    return number
            return blocks

        return send, receive

    return make


def _shared(block_bytes: int, blocks: int, stack: contextlib.ExitStack) -> _Ends:
    """Slots in shared pages; one byte through a pipe says "full", one through another says "free"."""
    slots = max(2, min(64, _SHARED_BYTES // block_bytes))
    memory = stack.enter_context(mmap.mmap(-1, slots * block_bytes))
    memory[:] = bytes(len(memory))  # the pages are there before the clock starts
    full_read, full_write = os.pipe()
    free_read, free_write = os.pipe()
    for fd in (full_read, full_write, free_read, free_write):
        stack.callback(os.close, fd)

    def send() -> None:
        template = bytes(block_bytes)
        for number in range(blocks):
            if number >= slots:
                os.read(free_read, 1)
            at = number % slots * block_bytes
            memory[at : at + block_bytes] = template
            struct.pack_into("=q", memory, at, number)
            os.write(full_write, b"f")

    def receive() -> int:
        for number in range(blocks):
            os.read(full_read, 1)
            if struct.unpack_from("=q", memory, number % slots * block_bytes)[0] != number:
                return number
            os.write(free_write, b"e")
        return blocks

    return send, receive
