"""What reaches QEMU's emulated devices: its own log of every access, while a boot sector runs.

::

    memory_region_ops_write cpu 0 mr 0x55b2c3e5a4c0 addr 0xe9 value 0x41 size 1 name 'isa-debugcon'

Each line is one access that the guest made to a device and that QEMU had to answer; with hardware virtualization it is
what a vmexit is for. The log begins with the firmware: SeaBIOS looks for devices and loads the boot sector. The boot
sectors of `boot_sector` write `BEGIN` to port 0x80 first, and to port 0xf4 last, which ends QEMU.

Source: QEMU documentation, "Tracing" (the log backend, ``-d trace:``); softmmu/memory.c for the events.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..error import CapabilityError, UsageError
from .process import fork_child, keep_only
from .riscv_h import ended_within

QEMU = "qemu-system-x86_64"
BEGIN_PORT, END_PORT, CONSOLE_PORT, SERIAL_PORT = 0x80, 0xF4, 0xE9, 0x3F8
BEGIN = 0xB8
EVENTS = ("memory_region_ops_read", "memory_region_ops_write")
_SECTOR_BYTES, _DISK_BYTES = 512, 1 << 16
_PROLOGUE = "fa 31c0 8ed8 8ec0 fc b0b8 e680"  # cli; ds = es = 0; cld; out 0x80, 0xb8
_EPILOGUE = "31c0 e6f4 f4 ebfd"  # out 0xf4, 0; hlt


def boot_sector(*steps: tuple[str, int, int]) -> bytes:
    """Return a boot sector that accesses ports.

    Args:
        *steps: (how, port, times): ``"out"`` in a loop, ``"in"`` in a loop, ``"rep outsb"`` with one instruction, or
            ``"spin"``, a loop of so many rounds that accesses nothing (the port is ignored).

    Raises:
        UsageError: an unknown step, numbers out of range, or more steps than fit.
    """
    code = bytes.fromhex(_PROLOGUE)
    for how, port, times in steps:
        if not (0 <= port < 0x10000 and 0 < times < 0x10000):
            raise UsageError(f"port {port:#x}, {times} times: expected ports below 0x10000, 1 to 65535 times")
        dx, cx = struct.pack("<BH", 0xBA, port), struct.pack("<BH", 0xB9, times)
        loops = {"out": "ee", "in": "ec", "spin": "90"}  # out dx, al; in al, dx; nop
        if how in loops:
            code += dx + cx + bytes.fromhex("b041" + loops[how] + "e2fd")  # loop to it
        elif how == "rep outsb":
            code += dx + cx + bytes.fromhex("be007c f36e")
        else:
            raise UsageError(f"there is no step {how!r}; there are out, in, rep outsb and spin")
    code += bytes.fromhex(_EPILOGUE)
    if len(code) > 440:
        raise UsageError(f"the steps take {len(code)} bytes; a boot sector has room for 440")
    return code.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def record(steps: Sequence[tuple[str, int, int]], *, timeout_s: float = 60.0) -> str:
    """Boot a machine from a sector with these steps; return QEMU's log of all accesses to devices.

    Raises:
        CapabilityError: there is no QEMU, or it cannot log, or it did not end in time.
    """
    program = shutil.which(QEMU)
    if program is None:
        raise CapabilityError("QEMU's log of device accesses", f"{QEMU} is not installed", "Install qemu-system-x86.")
    with tempfile.TemporaryDirectory(prefix="course-devices-") as folder:
        disk, log = Path(folder, "disk.img"), Path(folder, "log")
        disk.write_bytes(boot_sector(*steps).ljust(_DISK_BYTES, b"\0"))
        late = _boot(program, disk, log, timeout_s)
        text = log.read_text(errors="replace") if log.exists() else ""
    if late or not any(event in text for event in EVENTS):
        why = f"the boot sector did not end within {timeout_s:g} s" if late else f"{QEMU} wrote no line about them"
        raise CapabilityError("QEMU's log of device accesses", why, "`qemu-system-x86_64 -d trace:help` lists events.")
    return text


def _boot(program: str, disk: Path, log: Path, timeout_s: float) -> bool:
    """Run QEMU; return whether it had to be stopped."""
    command = [program, "-M", "pc,accel=tcg", "-m", "16", "-nodefaults", "-display", "none", "-monitor", "none"]
    command += ["-drive", f"file={disk},format=raw,if=ide", "-chardev", "null,id=out"]
    command += ["-device", f"isa-debugcon,iobase={CONSOLE_PORT:#x},chardev=out", "-device", "isa-serial,chardev=out2"]
    command += ["-chardev", "null,id=out2", "-device", f"isa-debug-exit,iobase={END_PORT:#x},iosize=1"]
    command += ["-d", ",".join(f"trace:{event}" for event in EVENTS), "-D", str(log)]

    def work() -> NoReturn:
        keep_only()
        os.execv(program, command)  # noqa: S606 - there must be no shell in between
        os._exit(1)

    return not ended_within(fork_child(work), timeout_s)
