"""What an engine is: something that runs the guest up to the next trap.

Engines know nothing of exits. They report a `Trap`, which names the processor's vector; `course.vcpu.decode` looks at
the instruction and makes an `Exit` of it, in the same way for all engines.
"""

from __future__ import annotations

import abc
import dataclasses

from .memory import Memory

TIME, COUNT, GONE, SYSCALL = -1, -2, -3, -4
"""Instead of a vector: time is up; the instructions are done; the engine is lost; syscall or int 0x80."""

INT3, UNDEFINED, PROTECTION, PAGE_FAULT, DEBUG = 3, 6, 13, 14, 1
GRACE_S = 3.0
"""How long after its time limit an engine's process may take to answer before it is killed, in seconds."""


@dataclasses.dataclass(frozen=True)
class Trap:
    """Why an engine stopped.

    Attributes:
        vector: of the exception (0 to 31), or `TIME`, `COUNT`, `GONE`, `SYSCALL`.
        address: of a page fault.
        why: in words, for `GONE`.
    """

    vector: int
    address: int = 0
    why: str = ""


class Engine(abc.ABC):
    """Runs guest code; owned by a `Vcpu`."""

    name: str

    @abc.abstractmethod
    def __init__(self, memory: Memory) -> None:
        """Start; raises CapabilityError where this machine cannot."""

    @abc.abstractmethod
    def resume(self, registers: list[int], instructions: int | None, seconds: float) -> Trap:
        """Run with these registers and write them back.

        ``rip`` is left at the instruction that trapped.

        Args:
            registers: in the order of `course.vcpu.registers.NAMES`.
            instructions: how many at most; None is no limit.
            seconds: wall time limit.
        """

    @abc.abstractmethod
    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Follow a change of the memory map (see `course.vcpu.memory.Watcher`)."""

    @abc.abstractmethod
    def close(self) -> None:
        """End every process of it; may be called twice."""
