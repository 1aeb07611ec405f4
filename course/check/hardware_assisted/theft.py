"""Judgement on `steal`: the guest whose memory makes the flawed device give away a secret of the host."""

from __future__ import annotations

import struct
from typing import Any

from ...vcpu import flawed_ring
from ...vcpu.virtqueue import DESCRIPTOR, MEMORY_BYTES, Driver
from ..exercise import Trial

_BEFORE, _SECRET = 0x400, 48


def judge_theft(trial: Trial, size: int) -> None:
    """Let the answer fill the guest's memory, run the flawed device, and look for the secret in its output."""
    driver = Driver(size)
    writes: Any = trial.call(dict(driver.queue), MEMORY_BYTES)
    if not isinstance(writes, list | tuple) or not all(
        isinstance(w, tuple | list) and len(w) == 2 and type(w[0]) is int and isinstance(w[1], bytes) for w in writes
    ):
        trial.wrong("not-writes", f"steal returned {writes!r:.80}.", "Return a list of pairs: (address, bytes).")
    memory = bytearray(MEMORY_BYTES)
    for address, data in writes:
        trial.expect(
            address >= 0 and address + len(data) <= MEMORY_BYTES,
            "outside-its-memory",
            f"A write of {len(data)} bytes at {address:#x}: a guest can write to its own {MEMORY_BYTES:#x} bytes only.",
            "It is the device that has to reach out for you.",
        )
        memory[address : address + len(data)] = data
    secret = trial.rng.randbytes(_SECRET)
    behind = trial.rng.randbytes(100)
    vmm = trial.rng.randbytes(_BEFORE) + bytes(memory) + secret + behind
    try:
        output = flawed_ring.serve(vmm, _BEFORE, MEMORY_BYTES, driver.queue)
    except ValueError as error:
        trial.wrong(
            "device-noticed",
            f"The device found out: {error}.",
            "It adds address and length before it compares. How many bits has the sum?",
        )
    if secret in output:
        return
    if not output and (far := _far(memory, driver)):
        trial.wrong(
            "too-far-behind",
            f"The device let a buffer at {far:#x} pass, and nothing came out: so far behind, the host has no memory.",
            f"Your memory ends at {MEMORY_BYTES:#x}. Where does what you want begin?",
        )
    if not output:
        trial.wrong(
            "nothing-served",
            "The device found no buffer, or empty ones: nothing came out.",
            "avail.idx says how many wait, the ring which; a descriptor has address, length, flags, next.",
        )
    if output.endswith(behind):
        trial.nearly(
            "begins-too-late",
            f"Bytes of the host came out, but the first of the {_SECRET} behind your memory are missing.",
            "Which is the first address that is not yours?",
        )
    trial.wrong(
        "own-memory-only",
        f"{len(output)} bytes came out, all from the guest's own memory.",
        "That is allowed, and harmless. Which address is the first that is not yours?",
    )


def _far(memory: bytearray, driver: Driver) -> int:
    """The address of the first buffer that waits, when it is not in the guest's memory; else 0."""
    _, waiting, head = struct.unpack_from("<HHH", memory, driver.queue["avail"])
    if not waiting or head >= driver.queue["size"]:
        return 0
    address, length, _, _ = DESCRIPTOR.unpack_from(memory, driver.queue["desc"] + 16 * head)
    return int(address) if length and address >= MEMORY_BYTES else 0
