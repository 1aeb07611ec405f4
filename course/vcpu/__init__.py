"""A virtual x86-64 CPU: one API over native code, KVM and an emulator.

::

    with Vcpu.open("best", code) as vcpu:
        exit = vcpu.run()          # an Io, Mmio, Hlt, Hypercall, Privileged, PageFault …
        vcpu.regs.rax, vcpu.memory.read(0x100000, 16)
        vcpu.complete(exit, 0x41)  # the value that `in` or a load gets; moves on

Names are loaded on first use, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .availability import Availability, engines, find
    from .cpu import ENGINES, Budget, Vcpu
    from .error import BudgetSpentError, VcpuError
    from .exits import (
        Breakpoint,
        BudgetSpent,
        Exit,
        Fault,
        Hlt,
        Hypercall,
        Io,
        Mmio,
        PageFault,
        Preempted,
        Privileged,
        Shutdown,
        Undefined,
    )  # fmt: skip
    from .memory import Memory
    from .registers import Registers

_HOMES = {
    "ENGINES": "cpu", "Budget": "cpu", "Vcpu": "cpu", "Availability": "availability", "find": "availability",
    "engines": "availability", "BudgetSpentError": "error", "VcpuError": "error", "Breakpoint": "exits",
    "BudgetSpent": "exits", "Exit": "exits", "Fault": "exits", "Hlt": "exits", "Hypercall": "exits", "Io": "exits",
    "Mmio": "exits", "PageFault": "exits", "Preempted": "exits", "Privileged": "exits", "Shutdown": "exits",
    "Undefined": "exits", "Memory": "memory", "Registers": "registers",
}  # fmt: skip
__all__ = [
    "ENGINES", "Availability", "Breakpoint", "Budget", "BudgetSpent", "BudgetSpentError", "Exit", "Fault", "Hlt",
    "Hypercall", "Io", "Memory", "Mmio", "PageFault", "Preempted", "Privileged", "Registers", "Shutdown", "Undefined",
    "Vcpu", "VcpuError", "engines", "find",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name from its module when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
