"""Which engines this machine has, and why not the others; and what each does with the same guests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..error import CapabilityError
from .cpu import ENGINES, Budget, Vcpu
from .exits import Hlt, Shutdown

HOW = {
    "ptrace": "native code in ring 3 of a traced process",
    "kvm": "hardware virtualization by the host's kernel",
    "unicorn": "an emulated processor",
}

EXTENSION = "RISC-V H"


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether this machine has an engine.

    Attributes:
        name: such as ``"kvm"``.
        available: a guest of one instruction has run.
        why: what was observed.
        remedy: what to do about it; empty when it is there.
    """

    name: str
    available: bool
    why: str
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.available


def find(name: str) -> Availability:
    """Find out by running a guest of one instruction; never raises for what a machine lacks."""
    try:
        with Vcpu.open(name, b"\xf4", ram_kib=4, budget=Budget(seconds=30)) as vcpu:
            result = vcpu.run()
    except CapabilityError as error:
        return Availability(name, False, error.why, error.remedy)
    if isinstance(result, Hlt):
        return Availability(name, True, HOW[name])
    why = result.why if isinstance(result, Shutdown) else f"its first guest ended with {result!r}, not Hlt"
    return Availability(name, False, why, "Use another engine.")


def engines() -> list[Availability]:
    """Every engine, best first."""
    return [find(name) for name in ENGINES]


def hypervisor_extension() -> Availability:
    """Whether QEMU runs guests under RISC-V's hypervisor extension (`course.vcpu.riscv_h`, another API)."""
    from . import riscv_h  # noqa: PLC0415

    try:
        result = riscv_h.run("li a7, 0\necall")
    except CapabilityError as error:
        return Availability(EXTENSION, False, error.why, error.remedy)
    if result.ended:
        return Availability(EXTENSION, False, result.ended, "Run it again when the machine is less busy.")
    return Availability(EXTENSION, True, "emulated by QEMU; another instruction set, so not in the table below")


@dataclasses.dataclass(frozen=True)
class Report:
    """The engines and how they did in the conformance suite.

    Attributes:
        engines: all of them.
        results: program's name -> engine's name -> what differs; ``""`` when it does what the architecture says.
    """

    engines: tuple[Availability, ...]
    results: Mapping[str, Mapping[str, str]]

    @property
    def conforms(self) -> bool:
        """Whether every engine that is here passed everything."""
        return not any(wrong for row in self.results.values() for wrong in row.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "engines": [{**dataclasses.asdict(engine)} for engine in self.engines],
            "conformance": {name: dict(row) for name, row in self.results.items()},
        }


def examine() -> Report:
    """Look for every engine, and run the conformance suite on those that are here; a second or two."""
    from . import conformance  # noqa: PLC0415

    found = tuple(engines())
    here = [engine.name for engine in found if engine]
    found += (hypervisor_extension(),)
    results = {p.name: {name: conformance.check(p, name) for name in here} for p in conformance.PROGRAMS}
    return Report(found, results)


def tables(report: Report) -> list[Any]:
    """Return two tables for people: the engines, and how they did in the conformance suite."""
    from rich.table import Table  # noqa: PLC0415

    from . import conformance  # noqa: PLC0415

    first = Table(title="Engines of the virtual CPU", title_justify="left")
    for heading in ("engine", "here", "what it is, or why not", "what to do"):
        first.add_column(heading, overflow="fold")
    for row in report.engines:
        first.add_row(row.name, "yes" if row else "no", row.why, row.remedy)
    here = [row.name for row in report.engines if row and row.name in ENGINES]
    second = Table(title="The same guests: exits, registers and memory", title_justify="left")
    for heading in ("guest", "what the architecture says", *here):
        second.add_column(heading, overflow="fold")
    for program in conformance.PROGRAMS:
        row_of = report.results[program.name]
        second.add_row(program.name, program.meaning, *(row_of[name] or "as it must" for name in here))
    return [first, second]
