"""The boundary bench: loops checked by capstone and Unicorn, a simulation with known costs, an honest log."""

from __future__ import annotations

import pytest
import unicorn
from capstone import CS_ARCH_ARM64, CS_ARCH_X86, CS_MODE_64, CS_MODE_LITTLE_ENDIAN, Cs
from unicorn import arm64_const, x86_const

from course.error import CapabilityError
from course.kernel import listener, loops
from course.kernel.loops import KINDS, Bench, BenchError, measure

_CODE, _STACK, _CLOCK, _END = 0x10000, 0x20000, 0x30000, 0x40000


def _x86(kind: str, rounds: int) -> int:
    """Run a loop on an emulated x86-64; returns how often it reached the clock or the kernel."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for page in (_CODE, _STACK, _CLOCK, _END):
        uc.mem_map(page, 0x1000)
    uc.mem_write(_CODE, loops.code_of(kind))
    uc.mem_write(_CLOCK, b"\xc3")
    stack = _STACK + 0x800
    uc.mem_write(stack, _END.to_bytes(8, "little"))
    for register, value in (("RSP", stack), ("RDI", rounds), ("RSI", _CLOCK)):
        uc.reg_write(getattr(x86_const, f"UC_X86_REG_{register}"), value)
    seen = []
    uc.hook_add(unicorn.UC_HOOK_INSN, lambda u, _: seen.append(1), None, 1, 0, x86_const.UC_X86_INS_SYSCALL)
    uc.hook_add(unicorn.UC_HOOK_CODE, lambda u, at, size, _: seen.append(1), None, _CLOCK, _CLOCK)
    uc.emu_start(_CODE, _END, timeout=5_000_000)
    assert uc.reg_read(x86_const.UC_X86_REG_RSP) == stack + 8
    return len(seen)


def _arm(kind: str, rounds: int) -> int:
    """The same on an emulated Arm."""
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    for page in (_CODE, _STACK, _CLOCK, _END):
        uc.mem_map(page, 0x1000)
    uc.mem_write(_CODE, loops.code_of(kind, "aarch64"))
    uc.mem_write(_CLOCK, bytes.fromhex("c0035fd6"))
    for register, value in (("SP", _STACK + 0x800), ("X30", _END), ("X0", rounds), ("X1", _CLOCK)):
        uc.reg_write(getattr(arm64_const, f"UC_ARM64_REG_{register}"), value)
    seen = []
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda u, number, _: seen.append(1))
    uc.hook_add(unicorn.UC_HOOK_CODE, lambda u, at, size, _: seen.append(1), None, _CLOCK, _CLOCK)
    uc.emu_start(_CODE, _END, timeout=5_000_000)
    assert uc.reg_read(arm64_const.UC_ARM64_REG_SP) == _STACK + 0x800
    return len(seen)


@pytest.mark.parametrize("run", [_x86, _arm])
@pytest.mark.parametrize(("kind", "per_round"), [("empty", 0), ("call", 0), ("vdso", 1), ("syscall", 1)])
def test_loops_go_round_as_often_as_asked(run, kind, per_round):
    """On an emulated CPU each loop returns, keeps the stack, and asks once per round or never."""
    assert run(kind, 17) == 17 * per_round


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("kind", KINDS)
def test_loops_are_whole_instructions(machine, kind):
    """A disassembler reads every byte of the code."""
    x86 = machine == "x86_64"
    reader = Cs(CS_ARCH_X86, CS_MODE_64) if x86 else Cs(CS_ARCH_ARM64, CS_MODE_LITTLE_ENDIAN)
    code = loops.code_of(kind, machine)
    assert sum(i.size for i in reader.disasm(code, 0)) == len(code)


def test_a_simulated_bench_takes_the_time_it_should():
    """Undisturbed, a run takes its start-up and its rounds, within the jitter of 2 %."""
    with Bench.simulated({"syscall": 100.0}, loop_ns=2.0, start_ns=5000.0, disturbed=False) as bench:
        ns = measure(bench.path, "syscall", 1000)
    assert 5000 + 102_000 <= ns <= 5000 + 102_000 * 1.02


def test_disturbed_runs_are_a_minority_of_any_five_or_more():
    """A median of at least five runs is safe, whatever the seed; the first run is always disturbed."""
    for seed in range(200):
        with_costs = loops.Simulation({"call": 1.0}, 1.0, 0.0, True, loops.random.Random(seed))
        runs = [with_costs.run("call", 1000) for _ in range(40)]
        slow = [ns > 2.5 * 2000 for ns in runs]
        assert slow[0]
        assert all(2 * sum(slow[:n]) < n for n in range(5, 41))
        assert any(slow[1:6])


def test_the_log_is_what_was_asked():
    """The witness has every run, and no refused request."""
    with Bench.simulated({}, loop_ns=1.0) as bench:
        first = measure(bench.path, "empty", 10)
        with pytest.raises(BenchError, match="rounds is 0"):
            measure(bench.path, "empty", 0)
        assert bench.log == [loops.Run("empty", 10, first)]


@pytest.mark.parametrize(
    ("kind", "rounds", "says"),
    [
        ("int80", 10, "kind 'int80' is unknown"),
        ("call", 10**9, "rounds is 1000000000"),
        ("call", True, "rounds is True"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(kind, rounds, says):
    """The message names the value and what was expected."""
    with Bench.simulated({}, loop_ns=1.0) as bench, pytest.raises(BenchError, match=says):
        measure(bench.path, kind, rounds)


def test_a_bench_leaves_nothing(tmp_path, monkeypatch):
    """Its address is gone afterwards."""
    monkeypatch.setattr(listener.tempfile, "tempdir", str(tmp_path))
    with Bench.simulated({}, loop_ns=1.0):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_the_native_bench_orders_the_costs():
    """On a real CPU nothing is as slow as a system call."""
    try:
        bench = Bench.native()
    except CapabilityError as error:
        pytest.skip(str(error))
    with bench:
        best = {k: min(measure(bench.path, k, 20_000) for _ in range(9)) for k in KINDS}
    assert max(best["empty"], best["call"], best["vdso"]) < best["syscall"]


def test_without_native_code_the_remedy_is_named(monkeypatch):
    """Where machine code may not be made, the message points to the simulation."""
    monkeypatch.setenv("COURSE_WITHOUT", "native-code")
    with pytest.raises(CapabilityError, match=r"Bench\.simulated"):
        Bench.native()
