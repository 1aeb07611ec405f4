"""Segments of x86: what a processor holds after reset, and descriptors in memory.

Source: Intel SDM vol. 3, section 3.4.5 (the layout) and table 10-1 (the state after reset).
"""

from __future__ import annotations

import struct

from ..capability import kvm_abi as abi


def after_reset() -> tuple[abi.Regs, abi.Sregs]:
    """Return what a vCPU holds before anybody sets it: the first instruction is at 0xfffffff0."""
    special = abi.Sregs(cr0=0x60000010, apic_base=0xFEE00900)
    special.cs = abi.Segment(0xFFFF0000, 0xFFFF, 0xF000, 11, 1, 0, 0, 1)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(special, name, abi.Segment(0, 0xFFFF, 0, 3, 1, 0, 0, 1))
    special.tr, special.ldt = abi.Segment(0, 0xFFFF, 0, 11, 1), abi.Segment(0, 0xFFFF, 0, 2, 1)
    special.gdt.limit = special.idt.limit = 0xFFFF
    return abi.Regs(rip=0xFFF0, rdx=0x600, rflags=2), special


def descriptor(segment: abi.Segment, kind: int) -> bytes:
    """Return a descriptor of ring 0 with this segment's base; no limit, which Unicorn does not check anyway."""
    flags = segment.l << 1 | segment.db << 2 | 1 << 3
    base = segment.base
    middle, high = base >> 16 & 0xFF, base >> 24 & 0xFF
    return struct.pack("<HHBBBB", 0xFFFF, base & 0xFFFF, middle, 0x90 | kind, 0xF | flags << 4, high)


def from_descriptor(data: bytes, selector: int) -> abi.Segment:
    """Return the segment that a processor loads with this descriptor."""
    limit, low, middle, access, flags, high = struct.unpack("<HHBBBB", data)
    limit |= (flags & 0xF) << 16
    granular = flags >> 7
    return abi.Segment(
        low | middle << 16 | high << 24, limit << 12 | 0xFFF if granular else limit, selector, access & 0xF,
        access >> 7, access >> 5 & 3, flags >> 6 & 1, access >> 4 & 1, flags >> 5 & 1, granular, flags >> 4 & 1, 0,
    )  # fmt: skip
