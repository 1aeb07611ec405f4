"""The registers of the virtual CPU, by name, with their 32-, 16- and 8-bit parts.

Writing ``eax`` clears the upper half of ``rax``; writing ``ax``, ``al`` or ``ah`` keeps the rest.

Source: Intel SDM vol. 1, section 3.4.1.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..error import UsageError

NAMES = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
MASK = (1 << 64) - 1
IF, TF = 0x200, 0x100
_WRITABLE_FLAGS = 0x240DD5  # ID, AC, OF, DF, TF, SF, ZF, AF, PF, CF
_ALWAYS = 0x202  # a deprivileged guest always sees interrupts enabled


def _parts() -> dict[str, tuple[str, int, int]]:
    """Name of each part -> (whole register, lowest bit, bits)."""
    table = {name: (name, 0, 64) for name in NAMES}
    for letter in "abcd":
        whole = f"r{letter}x"
        table |= {f"e{letter}x": (whole, 0, 32), f"{letter}x": (whole, 0, 16)}
        table |= {f"{letter}l": (whole, 0, 8), f"{letter}h": (whole, 8, 8)}
    for name in ("si", "di", "sp", "bp"):
        table |= {f"e{name}": (f"r{name}", 0, 32), name: (f"r{name}", 0, 16), f"{name}l": (f"r{name}", 0, 8)}
    for number in range(8, 16):
        whole = f"r{number}"
        table |= {f"{whole}d": (whole, 0, 32), f"{whole}w": (whole, 0, 16), f"{whole}b": (whole, 0, 8)}
    return table


PARTS = _parts()


def user_flags(value: int) -> int:
    """Keep of `value` what a deprivileged guest can set; the rest is fixed."""
    return value & _WRITABLE_FLAGS | _ALWAYS


class Registers:
    """``regs.rax``, ``regs["al"]``, ``regs.update(rip=0x1000)``, ``dict(regs)``; values are unsigned."""

    __slots__ = ("values",)
    values: list[int]

    def __init__(self) -> None:
        object.__setattr__(self, "values", [0] * len(NAMES))
        self["rflags"] = 0

    def __getitem__(self, name: str) -> int:
        whole, low, bits = self._part(name)
        return self.values[NAMES.index(whole)] >> low & ((1 << bits) - 1)

    def __setitem__(self, name: str, value: int) -> None:
        whole, low, bits = self._part(name)
        at, mask = NAMES.index(whole), (1 << bits) - 1
        if bits < 32:
            value = self.values[at] & ~(mask << low) | (value & mask) << low
        self.values[at] = user_flags(value) if whole == "rflags" else value & (mask << low if bits >= 32 else MASK)

    @staticmethod
    def _part(name: str) -> tuple[str, int, int]:
        if name not in PARTS:
            raise UsageError(f"there is no register {name!r}; there are {', '.join(NAMES)} and their parts (eax, al …)")
        return PARTS[name]

    def __getattr__(self, name: str) -> int:
        if name not in PARTS:
            raise AttributeError(f"there is no register {name!r}")
        return self[name]

    def __setattr__(self, name: str, value: int) -> None:
        self[name] = value

    def update(self, mapping: Mapping[str, int] | None = None, **more: int) -> None:
        """Write several registers."""
        for name, value in {**(mapping or {}), **more}.items():
            self[name] = value

    def keys(self) -> tuple[str, ...]:
        """The names of the whole registers."""
        return NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __eq__(self, other: Any) -> bool:
        return dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return " ".join(f"{name}={self[name]:#x}" for name in NAMES)
