"""A small assembler of the course's own, for five families: x86, PowerPC, Arm 64, RISC-V.

It exists because no assembler that `pip` installs covers them all: keystone has no RISC-V and no wheels for Arm hosts.
It knows a few dozen mnemonics per family, which is what the lessons need, and says so when one is missing; everything
else can be written as bytes (``.byte``). The same source gives the same bytes on every machine, which graders need.
"""

from __future__ import annotations

from ...error import CapabilityError, UsageError
from ..error import AssemblyError
from ..table import Isa, lookup

__all__ = ["assemble", "symbols", "with_keystone"]

FAMILIES = ("x86", "x86_64", "ppc", "ppc64", "ppc64le", "aarch64", "riscv32", "riscv64")
DEFAULT_ADDRESS = 0x10000


def assemble(source: str, isa: str | Isa, address: int = DEFAULT_ADDRESS) -> bytes:
    """Turn assembly into machine code.

    Args:
        source: one instruction per line; labels end in a colon; ``;`` begins a comment.
        isa: one of `FAMILIES`.
        address: where the code will lie (matters for absolute labels only).

    Returns:
        The bytes, in the order in which they lie in memory.

    Raises:
        AssemblyError: names the line and what is wrong with it.
        UsageError: for an ISA that has no assembler here.
    """
    return symbols(source, isa, address)[0]


def symbols(source: str, isa: str | Isa, address: int = DEFAULT_ADDRESS) -> tuple[bytes, dict[str, int]]:
    """Like `assemble`, but also return the address of each label."""
    from . import aarch64, parse, ppc, riscv, x86  # noqa: PLC0415 - tables are built when first needed

    row = lookup(isa)
    encoders: dict[str, parse.Encode] = {
        "x86": x86.x86, "x86_64": x86.x86_64, "ppc": ppc.big, "ppc64": ppc.big, "ppc64le": ppc.little,
        "aarch64": aarch64.encode, "riscv32": riscv.rv32, "riscv64": riscv.rv64,
    }  # fmt: skip
    if row.name not in encoders:
        raise UsageError(f"there is no assembler for {row.name} here; there is one for {', '.join(encoders)}")
    if not isinstance(source, str):
        raise UsageError(f"assembly is text; a {type(source).__name__} was given: {source!r:.60}")
    return parse.assemble(source, row.name, row.endian, encoders[row.name], address)


def with_keystone(source: str, isa: str | Isa, address: int = DEFAULT_ADDRESS) -> bytes:
    """Assemble with keystone (LLVM's assemblers), which knows every instruction: an optional convenience.

    Raises:
        CapabilityError: keystone is not installed, or does not know this ISA (RISC-V).
        AssemblyError: keystone refuses the source.
    """
    row = lookup(isa)
    modes = {
        "x86": ("X86", "32"), "x86_64": ("X86", "64"), "ppc": ("PPC", "PPC32", "BIG_ENDIAN"),
        "ppc64": ("PPC", "PPC64", "BIG_ENDIAN"), "ppc64le": ("PPC", "PPC64", "LITTLE_ENDIAN"),
        "aarch64": ("ARM64", "LITTLE_ENDIAN"), "arm": ("ARM", "ARM"),
    }  # fmt: skip
    if row.name not in modes:
        raise CapabilityError("keystone", f"it has no assembler for {row.name}", "Use course.isa.assemble instead.")
    try:
        import keystone  # noqa: PLC0415 - optional
    except ImportError:
        remedy = (
            "It is optional: use course.isa.assemble, or install the extra with pip install virtualization-course[asm]."
        )
        raise CapabilityError("keystone", "it is not installed", remedy) from None
    arch, *mode = modes[row.name]
    bits = sum(getattr(keystone, f"KS_MODE_{name}") for name in mode)
    try:
        code, _ = keystone.Ks(getattr(keystone, f"KS_ARCH_{arch}"), bits).asm(source, address, as_bytes=True)
    except keystone.KsError as error:
        raise AssemblyError(row.name, 1, source.strip(), f"keystone says: {error}") from None
    return bytes(code or b"")
