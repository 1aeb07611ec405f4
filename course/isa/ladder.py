"""The speed ladder: the same loop of three instructions on the processor itself, and on one emulator above the other.

Every rung counts down from a number of rounds and sums. What is measured is processor time (the child's for programs,
this process's for what runs here), never wall time, so that a busy machine disturbs less; the runs of the rungs
alternate, so that a slow minute hurts all of them alike.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..error import CapabilityError, CourseError
from . import rv32, tcg
from .emulation import load_unicorn
from .userland import emulator, is_native, program_file

Sample = tuple[int, float]
NATIVE, QEMU, UNICORN, TRANSLATOR, INTERPRETER = (
    "native", "qemu-x86_64", "Unicorn", "your translator", "your interpreter"
)  # fmt: skip
_X86 = bytes.fromhex("01c8 ffc9 75fa")  # again: add eax, ecx; dec ecx; jnz again
ROUNDS: Mapping[str, int] = {
    NATIVE: 200_000_000, QEMU: 50_000_000, UNICORN: 10_000_000, TRANSLATOR: 20_000, INTERPRETER: 2_000
}  # fmt: skip


def measure(
    step: Callable[[rv32.State], Any] | None = None,
    run: Callable[[rv32.State, int], Any] | None = None,
    *,
    repeats: int = 5,
    scale: float = 1.0,
) -> dict[str, list[Sample]]:
    """Measure every rung that this machine has.

    Args:
        step: a student's interpreter, one instruction per call; None leaves the rung out.
        run: a student's dispatcher of translated blocks; None leaves the rung out.
        repeats: runs of each rung, after one that warms up.
        scale: multiplies the number of rounds; below 1 for a quick look.

    Returns:
        Name of the rung → its runs: (rounds, seconds of processor time). Fastest first, as a rule.

    Raises:
        CourseError: an interpreter or a translator whose sum is wrong.
    """
    rungs: dict[str, Callable[[int], float]] = {}
    if is_native("x86_64"):
        rungs[NATIVE] = lambda rounds: _program(rounds, [])
    try:
        command = [str(emulator("x86_64"))]
        rungs[QEMU] = lambda rounds: _program(rounds, command)
    except CapabilityError:
        pass
    rungs[UNICORN] = _unicorn
    if run is not None:
        dispatcher = run
        rungs[TRANSLATOR] = lambda rounds: _here(rounds, lambda machine: dispatcher(machine, 10 * rounds))
    if step is not None:
        interpreter = step
        rungs[INTERPRETER] = lambda rounds: _here(rounds, lambda machine: _steps(interpreter, machine))
    rounds = {name: max(100, int(ROUNDS[name] * scale)) for name in rungs}
    samples: dict[str, list[Sample]] = {name: [] for name in rungs}
    for repeat in range(repeats + 1):
        for name, rung in rungs.items():
            seconds = rung(rounds[name])
            if repeat:
                samples[name].append((rounds[name], seconds))
    return samples


def loop(rounds: int) -> rv32.State:
    """The loop for the course's RISC-V machine; the sum is in a0."""
    return rv32.state(f"li t0, {rounds}\nagain: add a0, a0, t0\naddi t0, t0, -1\nbnez t0, again\nebreak")


def _program(rounds: int, command: list[str]) -> float:
    """Processor seconds of a program that goes round the loop, above those of one that does so once."""
    return max(_child(rounds, command) - _child(1, command), 1e-9)


def _child(rounds: int, command: list[str]) -> float:
    with program_file(tcg.counting(rounds)) as path:
        whole = [*command, str(path)]
        pid = os.posix_spawn(whole[0], whole, os.environ)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise CourseError(f"{' '.join(whole)} ended with status {status}; expected 0")
    return usage.ru_utime + usage.ru_stime


def _unicorn(rounds: int) -> float:
    unicorn = load_unicorn()
    x86: Any = importlib.import_module("unicorn.x86_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0x1000, 0x1000)
    uc.mem_write(0x1000, _X86)
    uc.reg_write(x86.UC_X86_REG_ECX, rounds)
    begin = time.process_time()
    uc.emu_start(0x1000, 0x1000 + len(_X86))
    return max(time.process_time() - begin, 1e-9)


def _here(rounds: int, work: Callable[[rv32.State], Any]) -> float:
    """Processor seconds of a student's function, whose result must be right."""
    machine = loop(rounds)
    begin = time.process_time()
    after = work(machine)
    seconds = time.process_time() - begin
    expected = rounds * (rounds + 1) // 2 & rv32.MASK
    if after["regs"][10] != expected:
        raise CourseError(f"after {rounds} rounds a0 is {after['regs'][10]}; expected {expected}")
    return max(seconds, 1e-9)


def _steps(step: Callable[[rv32.State], Any], machine: rv32.State) -> rv32.State:
    while not machine["halted"]:
        machine = step(machine)
    return machine
