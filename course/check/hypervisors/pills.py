"""Judgements on `red_pill`, and the hypervisor and the machine between which it must tell.

The naive hypervisor traps and emulates, and does nothing about instructions that do not trap: what `vmm` asks for, as a
table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...vcpu import Budget, Exit, Hlt, Io, Privileged, Vcpu, perfect
from ..answer import Outcome, call
from ..compare import shorten
from ..exercise import Trial
from .engines import quick

LONGEST = 256
RUNS = 5
_FUEL = 2000
_CLOCKS = {
    b"\x0f\x31": "rdtsc", b"\x0f\x01\xf9": "rdtscp", b"\x0f\x33": "rdpmc",
}  # fmt: skip
_PREFIXES = frozenset(bytes.fromhex("66 67 f0 f2 f3 2e 36 3e 26 64 65"))
_NAMES = {b"\x0f\xa2": "cpuid", b"\x0f\x01\xc1": "vmcall", b"\x0f\x01\xd9": "vmmcall"}


def naive(engine: str, code: bytes) -> dict[str, Any]:
    """Run a guest under trap-and-emulate on an engine; return its ``end`` and its ``rax``."""
    kept = {"cr0": 0x33, "cr2": 0, "cr3": 0, "cr4": 0x50200}  # what the reference begins with
    end = "fuel"
    with Vcpu.open(engine, code, budget=Budget(exits=_FUEL, seconds=20)) as vcpu:
        while end == "fuel" and not (reason := vcpu.run(instructions=_FUEL)).final:
            end = "hlt" if isinstance(reason, Hlt) else _emulated(vcpu, reason, kept)
        return {"end": end, "rax": vcpu.regs.rax}


def _emulated(vcpu: Vcpu, reason: Exit, kept: dict[str, int]) -> str:
    if isinstance(reason, Io):
        vcpu.complete(reason, 0 if reason.port == perfect.KEYS else -1)
        return "fuel"
    if not isinstance(reason, Privileged):
        return "fault" if reason.reason != "Preempted" else "out of instructions"
    act = _ACTS.get(reason.mnemonic)
    if act is None or not act(vcpu, reason, kept):
        return "fault"
    vcpu.complete(reason)
    return "fuel"


def _move(vcpu: Vcpu, reason: Privileged, kept: dict[str, int]) -> bool:
    target, source = reason.operands.split(", ")
    if target in kept:
        kept[target] = vcpu.regs[source]
    elif source in kept:
        vcpu.regs[target] = kept[source]
    return target in kept or source in kept


def _nothing(*_: Any) -> bool:
    return True


def _read(vcpu: Vcpu, _: Privileged, kept: dict[str, int]) -> bool:
    value = kept.get(f"msr {vcpu.regs.ecx:x}", 0)
    vcpu.regs.update(eax=value & 0xFFFFFFFF, edx=value >> 32)
    return True


def _write(vcpu: Vcpu, _: Privileged, kept: dict[str, int]) -> bool:
    kept[f"msr {vcpu.regs.ecx:x}"] = vcpu.regs.edx << 32 | vcpu.regs.eax
    return True


_ACTS: dict[str, Callable[[Vcpu, Privileged, dict[str, int]], bool]] = {
    "cli": _nothing, "sti": _nothing, "mov": _move, "rdmsr": _read, "wrmsr": _write,
    "lgdt": _nothing, "lidt": _nothing, "invlpg": _nothing, "wbinvd": _nothing, "clts": _nothing,
}  # fmt: skip


def alone(code: bytes, registers: dict[str, int] | None = None) -> dict[str, Any]:
    """Run code on the machine of its own, in a child: it may crash the emulator. ``end`` is ``"crash"`` then."""
    done = call(perfect.run, code, fuel=_FUEL, registers=registers or {}, deadline_s=30)
    if done.outcome is not Outcome.RETURNED:
        return {"end": "crash", "registers": {"rax": -1}, "executed": []}
    return dict(done.value)


def judge_pill(trial: Trial, engines: tuple[str, ...], *, starts: tuple[dict[str, int], ...] = ({},)) -> None:
    """Let the answer write its code once; run that everywhere."""
    code = trial.call()
    trial.expect(isinstance(code, bytes), "not-bytes", f"red_pill() returned {type(code).__name__}, expected bytes.")
    trial.expect(
        0 < len(code) <= LONGEST, "too-long", f"red_pill() returned {len(code)} bytes; 1 to {LONGEST} are allowed."
    )
    free = alone(code)
    _judge_means(trial, free["executed"])
    _judge_end(trial, "On a machine of its own, in ring 0,", free["end"])
    said: dict[str, list[int]] = {}
    for engine in engines:
        runs = [naive(engine, code) for _ in range(RUNS if engine in quick() else 2)]
        for run in runs:
            _judge_end(trial, f"Under trap-and-emulate on {engine}", run["end"])
        said[engine] = [run["rax"] for run in runs]
    _judge_answers(trial, free["registers"]["rax"], said)
    for start in starts:
        again = alone(code, start)
        began = ", ".join(f"{name} {value:#x}" for name, value in start.items())
        trial.expect(
            (again["end"], again["registers"]["rax"]) == ("hlt", 0),
            "accident-of-the-start",
            f"On a machine of its own that began with {began or 'all registers 0'} the code ended with"
            f" {again['end']!r} and rax {again['registers']['rax']:#x}, expected 'hlt' and 0.",
            "Which register or flag did you take for granted? Bring the machine into a known state first.",
        )


def _bare(code: bytes) -> bytes:
    """Return an instruction without prefixes, which would make another name for the same thing."""
    while code[:1] and (code[0] in _PREFIXES or 0x40 <= code[0] < 0x50):
        code = code[1:]
    return code


def _judge_means(trial: Trial, executed: list[bytes]) -> None:
    for code in map(_bare, executed):
        if code in _CLOCKS:
            trial.wrong(
                "a-matter-of-time",
                f"Your code executes {_CLOCKS[code]}: it measures time.",
                "A busy machine is slow as well. Find a difference in what is computed, not in when.",
            )
        if code in _NAMES:
            trial.wrong(
                "asks-for-the-name",
                f"Your code executes {_NAMES[code]}: it asks its host to introduce itself.",
                "A hypervisor may answer that as it likes. Which instruction tells the truth without being asked?",
            )


def _judge_end(trial: Trial, where: str, end: str) -> None:
    trial.expect(
        end == "hlt",
        "does-not-end",
        f"{where} your code ended with {end!r}, not with hlt.",
        "Only instructions that trap and are emulated, or that run in any ring, come through everywhere.",
    )


def _judge_answers(trial: Trial, free: int, said: dict[str, list[int]]) -> None:
    first = next(iter(said.values()))[0]
    values = [value for runs in said.values() for value in runs]
    shown = "; ".join(f"on {engine} {shorten(runs)}" for engine, runs in said.items())
    if {free, *values} == {free} and free in (0, 1):
        trial.wrong(
            "constant",
            f"Your code says {free} in both worlds (under trap-and-emulate: {shown}).",
            "It does not look yet. Which rows of your survey were sensitive and silent?",
        )
    if free == 1 and set(values) == {0}:
        trial.wrong(
            "upside-down",
            "Your code says 1 on a machine of its own and 0 under trap-and-emulate.",
            "1 is to mean: there is somebody below me.",
        )
    for engine, runs in said.items():
        trial.expect(
            len(set(runs)) == 1,
            "not-reproducible",
            f"Runs on {engine} gave {runs}, one after the other.",
            "A detector that disagrees with itself detects something else.",
        )
    trial.expect(
        free in (0, 1) and first in (0, 1),
        "neither-0-nor-1",
        f"rax is {free:#x} on a machine of its own, and {first:#x} under trap-and-emulate; expected 0 and 1.",
        "Isolate the bit that differs: shift it to the right place, and mask away the others.",
    )
    trial.expect(
        free == 0 and set(values) == {1},
        "not-everywhere",
        f"rax is {free} on a machine of its own (expected 0); under trap-and-emulate {shown} (expected 1).",
        "What you look at differs between processors as well. Look for a difference of ring, not of product.",
    )
