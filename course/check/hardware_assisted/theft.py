"""Judgement on `steal`: the guest whose memory makes the flawed device give away a secret of the host."""

from __future__ import annotations

from typing import Any

from ...vcpu import flawed_ring
from ...vcpu.virtqueue import MEMORY_BYTES, Driver
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
    vmm = trial.rng.randbytes(_BEFORE) + bytes(memory) + secret + trial.rng.randbytes(100)
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
    if not output:
        trial.wrong(
            "nothing-served",
            "The device found no buffer, or empty ones: nothing came out.",
            "avail.idx says how many wait, the ring which; a descriptor has address, length, flags, next.",
        )
    if secret[:1] in output[-_SECRET:] and output.endswith(secret[: max(1, _common(output, secret))]):
        trial.nearly(
            "part-of-the-secret",
            f"Only the first {_common(output, secret)} of {_SECRET} bytes behind the guest's memory came out.",
            "Take more: what limits the length?",
        )
    trial.wrong(
        "own-memory-only",
        f"{len(output)} bytes came out, all from the guest's own memory.",
        "That is allowed, and harmless. Which address is the first that is not yours?",
    )


def _common(output: bytes, secret: bytes) -> int:
    """Length of the longest beginning of the secret with which the output ends."""
    return next((n for n in range(len(secret), 0, -1) if output.endswith(secret[:n])), 0)
