"""What engines that step with the processor's trap flag have in common."""

from __future__ import annotations

from ..error import UsageError
from .memory import Memory

_PUSHF = (b"\x9c", b"\x66\x9c")


def hide_trap_flag(memory: Memory, rip: int, rsp: int) -> None:
    """Clear TF in what pushf has just pushed: the guest must not see that it is being stepped.

    Args:
        memory: the guest's.
        rip: of the instruction that was stepped over.
        rsp: after it.
    """
    try:
        if memory.read(rip, 1) in (b"\x9c", b"\x66") and memory.fetch(rip, 2).startswith(_PUSHF):
            high = memory.read(rsp + 1, 1)[0]
            memory.write(rsp + 1, bytes([high & ~1]))
    except UsageError:  # it lies where the guest has no RAM: nothing was pushed
        return
