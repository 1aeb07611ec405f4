"""User space and kernel: what programs ask for, how the question travels, and what it costs.

======================  ==============================================================================
`program`               tiny static x86-64 Linux executables, byte by byte
`tracer`                run a program and record every system call (ptrace, QEMU user mode or Unicorn)
`loops`                 machine-code loops that time a call, the vDSO and a system call
`netlink`               raw netlink datagrams: ask, build, validate
`descriptors`           descriptors of a process, and the two ends of a socket that passes them
`holder`                a process that holds files open after their names are gone
`ipc`                   bytes per second through a pipe, a socket pair and shared memory
`services`              file systems, buses and protocols that this kernel offers
======================  ==============================================================================

Nothing here needs privileges. Where ptrace is refused (some containers) the same records come from QEMU's user mode.
"""

from __future__ import annotations

from .ipc import throughput
from .loops import Bench, measure
from .services import buses, file_system_of, file_systems, protocols
from .tracer import Call, Trace, engines, run, trace

__all__ = [
    "Bench",
    "Call",
    "Trace",
    "buses",
    "engines",
    "file_system_of",
    "file_systems",
    "measure",
    "protocols",
    "run",
    "throughput",
    "trace",
]
