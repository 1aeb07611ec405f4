"""The wire between an interpreter and a device: which addresses are memory, and which somebody listens to.

The interpreter is a function on states (see `course.isa.rv32`) and knows nothing of devices; the device is a function
of all that has happened to it so far. `drive` stands between them. Before a load from the device's words it asks the
device and puts the reply where the load will find it; after a store to them it tells the device::

    events = [("receive", 72), ("read", 4), ("read", 0), ("write", 0, 72), ...]
    device(events) -> {"replies": [1, 72, ...], "sent": b"H..."}       one reply per read
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..error import UsageError
from . import rv32

DEVICE = 0x1FC0
DEVICE_BYTES = 64
Event = tuple[Any, ...]
Device = Callable[[list[Event]], dict[str, Any]]
GREETING = """
        li s0, 0x1FC0           ; the device's first word: data; the second, at +4: status
        li s1, text
next:   lbu a0, 0(s1)
        beqz a0, listen
wait:   lw t0, 4(s0)
        andi t0, t0, 2          ; is the transmitter ready?
        beqz t0, wait
        sw a0, 0(s0)
        addi s1, s1, 1
        j next
listen: lw t0, 4(s0)
        andi t0, t0, 1          ; has something been received?
        beqz t0, listen
        lw a0, 0(s0)
        addi t1, zero, 10
        beq a0, t1, end         ; a line ends here
reply:  lw t0, 4(s0)
        andi t0, t0, 2
        beqz t0, reply
        addi a0, a0, -32        ; from small letters to capitals
        sw a0, 0(s0)
        j listen
end:    ebreak
text:   .asciz "Hello from a computer that does not exist. "
"""


@dataclasses.dataclass(frozen=True)
class Driven:
    """What came of a program and a device.

    Attributes:
        sent: bytes that the device sent into the world.
        steps: number of instructions executed.
        events: all that happened to the device.
        halted: True when the program reached ebreak within its fuel.
    """

    sent: bytes
    steps: int
    events: tuple[Event, ...]
    halted: bool

    def __repr__(self) -> str:
        how = "reached ebreak" if self.halted else "ran out of fuel"
        return f"<{how} after {self.steps} instructions, {len(self.events)} events; sent {self.sent!r}>"


def drive(
    step: Callable[[rv32.State], rv32.State],
    program: str | bytes,
    device: Device,
    typed: bytes = b"",
    *,
    fuel: int = 20_000,
) -> Driven:
    """Let an interpreter run a program that has a device at address 0x1FC0.

    Args:
        step: executes one instruction of a state.
        program: assembly text or machine code for address 0.
        device: a function of its whole history, see above.
        typed: bytes that arrive from outside, one every 40 instructions once the program has stopped sending.
        fuel: number of instructions after which the run is given up.

    Raises:
        UsageError: when the device gives no reply to a read.
    """
    machine, waiting = rv32.state(program), list(typed)
    history: list[Event] = []
    idle = count = 0
    while not machine["halted"] and count < fuel:
        address, value = _access(machine)
        if address is not None and value is None:
            history.append(("read", address - DEVICE))
            memory = bytearray(machine["memory"])
            memory[address : address + 4] = _reply(device, history).to_bytes(4, "little")
            machine = {**machine, "memory": memory}
        machine = step(machine)
        if address is not None and value is not None:
            history.append(("write", address - DEVICE, value))
            idle = 0
        count, idle = count + 1, idle + 1
        if waiting and idle >= 40:
            history.append(("receive", waiting.pop(0)))
            idle = 0
    sent = device(history).get("sent", b"") if history else b""
    return Driven(bytes(sent), count, tuple(history), bool(machine["halted"]))


def _access(machine: rv32.State) -> tuple[int | None, int | None]:
    """Address of the device's word that the next instruction loads (value None) or stores; (None, None) for neither."""
    word = rv32.word_at(machine["memory"], machine["pc"])
    opcode, regs = word & 0x7F, machine["regs"]
    if opcode not in (0x03, 0x23):
        return None, None
    store = opcode == 0x23
    raw = (word >> 25) << 5 | word >> 7 & 31 if store else word >> 20
    address = (regs[word >> 15 & 31] + raw - (raw >> 11 << 12)) & rv32.MASK
    if not DEVICE <= address < DEVICE + DEVICE_BYTES:
        return None, None
    return address, regs[word >> 20 & 31] if store else None


def _reply(device: Device, history: Sequence[Event]) -> int:
    replies = device(list(history)).get("replies", [])
    reads = sum(event[0] == "read" for event in history)
    if len(replies) != reads:
        raise UsageError(f"the device was read {reads} times and gave {len(replies)} replies; expected one per read")
    return int(replies[-1]) & rv32.MASK
