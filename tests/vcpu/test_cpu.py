"""The virtual CPU: budgets, memory, completion of exits, and guests that mean no good; on every engine."""

import gc
import os
import random
import signal
import struct
import threading
import time
from pathlib import Path

import pytest

from course.error import CapabilityError, UsageError
from course.vcpu import (
    Budget,
    BudgetSpent,
    BudgetSpentError,
    Fault,
    Hlt,
    Hypercall,
    Io,
    PageFault,
    Preempted,
    Privileged,
    Shutdown,
    Vcpu,
    VcpuError,
    find,
)

START = 0x100000
HELLO = bytes.fromhex("b048 e6e9 b069 e6e9 f4")  # mov al, 'H' / out 0xe9, al / mov al, 'i' / out 0xe9, al / hlt


def test_a_vmm_prints_what_the_guest_says(engine):
    """The VMM of the documentation works as written."""
    said = b""
    with Vcpu.open(engine, HELLO) as vcpu:
        while not (reason := vcpu.run()).final:
            match reason:
                case Io(port=0xE9):
                    said += reason.data
                    vcpu.complete(reason)
                case Hlt():
                    break
    assert (said, vcpu.exits) == (b"Hi", 3)


def test_an_endless_loop_comes_back(engine):
    """A guest that never exits is preempted, and can go on."""
    with Vcpu.open(engine, bytes.fromhex("ffc0 ebfc"), budget=Budget(seconds=60)) as vcpu:
        seen = set()
        for _ in range(100):  # on a busy machine a slice of time may pass without the guest
            assert vcpu.run(seconds=0.05).reason == "Preempted"
            seen.add(vcpu.regs.rax)
            if len(seen) == 3:
                break
        assert len(seen) == 3


def test_the_budget_of_seconds_ends_an_endless_loop(engine):
    """A guest that never exits ends its CPU's life; running on is an error, not a hang."""
    with Vcpu.open(engine, bytes.fromhex("ebfe"), budget=Budget(seconds=0.1)) as vcpu:
        assert vcpu.run() == BudgetSpent(START, limit="seconds")
        with pytest.raises(BudgetSpentError, match="final"):
            vcpu.run()
        vcpu.budget = Budget(seconds=0.1)
        assert isinstance(vcpu.run(), BudgetSpent)


def test_a_vmm_that_never_moves_on_runs_out_of_exits(engine):
    """The same fault again and again ends after as many exits as the budget has."""
    with Vcpu.open(engine, b"\xfa", budget=Budget(exits=20)) as vcpu:
        reasons = [vcpu.run() for _ in range(21)]
    assert all(isinstance(reason, Privileged) for reason in reasons[:20])
    assert reasons[20] == BudgetSpent(START, limit="exits")


def test_instructions_are_counted_exactly(engine):
    """A limit of n instructions stops the CPU before the (n + 1)th."""
    with Vcpu.open(engine, b"\xff\xc0" * 50 + b"\xf4") as vcpu:
        assert vcpu.run(instructions=7) == Preempted(START + 14, limit="instructions")
        assert vcpu.regs.rax == 7
        vcpu.step()
        assert vcpu.regs.rax == 8
        assert isinstance(vcpu.run(), Hlt)
        assert vcpu.regs.rax == 50


def test_the_budget_of_instructions_ends_a_loop(engine):
    """Three instructions per round, thirty allowed: ten rounds."""
    code = bytes.fromhex("ffc0 90 ebfb")
    with Vcpu.open(engine, code, budget=Budget(instructions=30)) as vcpu:
        assert vcpu.run() == BudgetSpent(START, limit="instructions")
        assert vcpu.regs.rax == 10


def test_a_guest_cannot_make_system_calls(engine):
    """kill(getpid(), SIGKILL) and exit are hypercalls: nothing of them reaches the host."""
    code = bytes.fromhex("b827000000 0f05 b83e000000 0f05 b8e7000000 0f05 f4")
    with Vcpu.open(engine, code) as vcpu:
        numbers = []
        while isinstance(reason := vcpu.run(), Hypercall):
            numbers.append(reason.number)
            vcpu.complete(reason)
        assert (numbers, type(reason)) == ([39, 62, 231], Hlt)


def test_an_engine_that_is_killed_is_a_shutdown(engine):
    """Whoever kills the engine's process: the caller gets an exit, not a hang."""
    with Vcpu.open(engine, HELLO) as vcpu:
        vcpu.run()
        os.kill(_pid(vcpu), signal.SIGKILL)
        assert isinstance(vcpu.run(), Shutdown)
        with pytest.raises(BudgetSpentError):
            vcpu.run()


def _pid(vcpu):
    inner = vcpu._engine
    return getattr(inner, "_pid", 0) or inner._child.pid


def test_closing_leaves_no_process(engine):
    """After the with, the engine's process is gone and the memory file is closed; closing twice is fine."""
    with Vcpu.open(engine, HELLO) as vcpu:
        pid = _pid(vcpu)
        assert Path(f"/proc/{pid}").exists()
    vcpu.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(VcpuError, match="closed"):
        vcpu.run()


def test_a_forgotten_cpu_is_closed(engine):
    """Without a with, the engine's process goes when Python collects the CPU."""
    vcpu = Vcpu.open(engine, HELLO)
    pid = _pid(vcpu)
    del vcpu
    gc.collect()
    assert not Path(f"/proc/{pid}").exists()


def test_an_interrupted_run_cannot_answer_later(engine):
    """After Ctrl-C the CPU either goes on or is shut down; it never gives the old run's answer to a new one."""
    with Vcpu.open(engine, bytes.fromhex("ebfe")) as vcpu:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            vcpu.run(seconds=30)
        assert isinstance(vcpu.run(seconds=0.1), Preempted | Shutdown)


def test_an_engine_dies_with_its_parent(engine):
    """When the process that made the CPU is killed, nothing goes on running."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        vcpu = Vcpu.open(engine, bytes.fromhex("ebfe"))
        os.write(write_fd, struct.pack("i", _pid(vcpu)))
        vcpu.run(seconds=60)
        os._exit(0)
    os.close(write_fd)
    (pid,) = struct.unpack("i", os.read(read_fd, 4))
    os.close(read_fd)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_shared_pages_show_each_other(engine):
    """Two addresses of one page: a store through the one is read through the other; unmapping takes one away."""
    code = bytes.fromhex("c6 03 77 8a 01 f4")  # mov byte ptr [rbx], 0x77 / mov al, [rcx] / hlt
    with Vcpu.open(engine, code) as vcpu:
        vcpu.memory.map(0x20000, 4096, "rw")
        vcpu.memory.alias(0x40000, 0x20000, permissions="r")
        vcpu.regs.update(rbx=0x20000, rcx=0x40000)
        assert isinstance(vcpu.run(), Hlt)
        assert vcpu.regs.al == 0x77
        vcpu.memory.unmap(0x40000, 4096)
        vcpu.regs.rip = START
        reason = vcpu.run()
        assert (type(reason), reason.address, reason.access, reason.present) == (PageFault, 0x40000, "read", False)


def test_permissions_change_while_the_guest_lives(engine):
    """A page made read-only refuses the next store, and takes it again afterwards."""
    with Vcpu.open(engine, bytes.fromhex("88 03 f4")) as vcpu:
        vcpu.memory.map(0x20000, 4096, "rw")
        vcpu.regs.rbx = 0x20000
        kinds = []
        for permissions in ("rw", "r", "rw"):
            vcpu.memory.protect(0x20000, 4096, permissions)
            vcpu.regs.rip = START
            kinds.append(type(vcpu.run()))
        assert kinds == [Hlt, PageFault, Hlt]


def test_code_that_the_vmm_rewrites_is_executed_anew(engine):
    """Binary translation patches code that has run already."""
    with Vcpu.open(engine, bytes.fromhex("b001 f4")) as vcpu:
        vcpu.run()
        vcpu.memory.write(START + 1, b"\x02")
        vcpu.regs.rip = START
        vcpu.run()
        assert vcpu.regs.al == 2


def test_a_guest_that_wrecks_everything_is_contained(engine):
    """Random bytes as code, with random registers: some exit within the budget, and the CPU's owner is well."""
    chance = random.Random(7)
    for _ in range(15):
        with Vcpu.open(engine, chance.randbytes(4096), budget=Budget(exits=40, seconds=1)) as vcpu:
            vcpu.regs.update({name: chance.getrandbits(64) for name in ("rax", "rbx", "rsi", "rdi", "rbp", "rsp")})
            while not (reason := vcpu.run(seconds=0.2)).final:
                vcpu.regs.rip = reason.next + isinstance(reason, Preempted)
                if isinstance(reason, Fault | PageFault):
                    vcpu.regs.rip = START + chance.randrange(4000)
        assert reason.final


def test_best_takes_the_first_that_is_here():
    """Every machine has one: Unicorn is a dependency."""
    with Vcpu.open(code=b"\xf4") as vcpu:
        assert isinstance(vcpu.run(), Hlt)


def test_an_unknown_engine_is_refused():
    """The message names those that there are."""
    with pytest.raises(UsageError, match="ptrace, kvm, unicorn"):
        Vcpu.open("bochs")


def test_a_forked_process_cannot_use_its_parents_cpu():
    """Two processes on one engine would mix their answers up."""
    with Vcpu.open("unicorn", HELLO) as vcpu:
        child = os.fork()
        if child == 0:
            try:
                vcpu.run()
            except VcpuError:
                vcpu.close()
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7  # and it has closed its own copy only
        assert isinstance(vcpu.run(), Io)


@pytest.mark.parametrize(
    ("address", "size", "permissions"),
    [(0x10001, 4096, "rw"), (0, 4096, "rw"), (0x3FFFF000, 8192, "rw"), (START, 4096, "rw"), (0x20000, 4096, "w"),
     (0x20000, 1 << 30, "rw"), (0x20000, 0, "rw")],
)  # fmt: skip
def test_memory_that_cannot_be_is_refused(address, size, permissions):
    """Not a page, out of range, taken already, no such permissions, too much, nothing."""
    with Vcpu.open("unicorn", HELLO) as vcpu, pytest.raises(UsageError):
        vcpu.memory.map(address, size, permissions)


def test_reading_where_no_ram_is_refused():
    """The message names the address; nothing is written by half."""
    with Vcpu.open("unicorn", HELLO, ram_kib=4) as vcpu:
        with pytest.raises(UsageError, match="0x101000"):
            vcpu.memory.write(START + 4000, bytes(200))
        assert vcpu.memory.read(START + 4000, 96) == bytes(96)


def test_parts_of_registers_follow_the_manual():
    """Writing 32 bits clears the upper half; 16 and 8 bits keep the rest."""
    with Vcpu.open("unicorn", HELLO) as vcpu:
        regs = vcpu.regs
        regs.rax = 0x1122334455667788
        regs.ah = 0x99
        assert (regs.rax, regs.ax, regs.al, regs.ah) == (0x1122334455669988, 0x9988, 0x88, 0x99)
        regs.eax = 0xFFFFFFFF
        assert regs.rax == 0xFFFFFFFF
        regs.rflags = 0x3000
        assert regs.rflags == 0x202
        with pytest.raises(AttributeError):
            _ = regs.cr3
        with pytest.raises(UsageError, match="rax"):
            regs["xyz"] = 1


def test_without_ptrace_the_engine_says_why():
    """Where the kernel refuses ptrace, as many containers do, the reason is there and best takes another engine."""
    from tests.vcpu.refusal import in_child_without_ptrace

    def attempt():
        try:
            Vcpu.open("ptrace", HELLO)
        except CapabilityError as error:
            reason = error.why
        with Vcpu.open("best", HELLO) as vcpu:
            return f"{bool(reason)} {vcpu.engine != 'ptrace'} {vcpu.run().reason}"

    assert in_child_without_ptrace(attempt) == "True True Io"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else; the other tests run unprivileged")
def test_unprivileged_users_have_ptrace_and_unicorn(engine):
    """As nobody: two engines work, KVM says that it may not be used."""
    from tests.vcpu.refusal import in_child

    def attempt():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            with Vcpu.open(engine, HELLO) as vcpu:
                return vcpu.run().reason
        except CapabilityError as error:
            return error.capability

    expected = "Io" if engine != "kvm" else "the engine kvm"
    assert in_child(attempt) == expected


def test_a_long_string_goes_out_in_pieces(engine):
    """As with KVM, one exit offers 4096 bytes at most; the instruction goes on until rcx is 0."""
    text = bytes(n & 255 for n in range(9000))
    with Vcpu.open(engine, bytes.fromhex("f36e f4")) as vcpu:
        vcpu.memory.map(0x20000, len(text), "r", text)
        vcpu.regs.update(rsi=0x20000, rcx=len(text), rdx=0xE9)
        pieces = []
        while isinstance(reason := vcpu.run(), Io):
            pieces.append(reason.data)
            vcpu.complete(reason)
        assert (b"".join(pieces), [len(piece) for piece in pieces]) == (text, [4096, 4096, 808])
        assert (type(reason), vcpu.regs.rcx, vcpu.regs.rsi) == (Hlt, 0, 0x20000 + len(text))


def test_a_string_that_leaves_memory_faults_where_it_does(engine):
    """What is there goes out; then the missing page is named. A hostile rcx costs nothing."""
    with Vcpu.open(engine, bytes.fromhex("f36e f4")) as vcpu:
        vcpu.memory.map(0x20000, 4096, "r")
        vcpu.regs.update(rsi=0x20FF0, rcx=(1 << 64) - 1)
        first = vcpu.run()
        vcpu.complete(first)
        second = vcpu.run()
        assert (len(first.data), type(second), second.address) == (16, PageFault, 0x21000)


def test_an_instruction_that_no_device_understands_is_a_shutdown(engine):
    """Arithmetic on a device's page: the VMM says that it cannot, as KVM does with what it cannot emulate."""
    with Vcpu.open(engine, bytes.fromhex("0103")) as vcpu:  # add dword ptr [rbx], eax
        vcpu.memory.device(0x20000, 4096)
        vcpu.regs.rbx = 0x20000
        reason = vcpu.run()
        assert (type(reason), "add dword ptr" in reason.why) == (Shutdown, True)


def test_a_ptrace_cpu_belongs_to_its_thread():
    """Another thread gets a clear message instead of a process that seems gone."""
    if not find("ptrace"):
        pytest.skip(find("ptrace").why)
    with Vcpu.open("ptrace", HELLO) as vcpu:
        caught = []

        def attempt():
            try:
                vcpu.run()
            except UsageError as error:
                caught.append(str(error))

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert "thread" in caught[0]
        assert isinstance(vcpu.run(), Io)


@pytest.mark.parametrize("seed", range(8))
def test_random_arithmetic_ends_alike_on_all_engines(engine, seed):
    """Straight-line code of random arithmetic leaves the registers that the emulator leaves."""
    code = _arithmetic(random.Random(seed))
    ends = []
    for name in ("unicorn", engine):
        with Vcpu.open(name, code) as vcpu:
            assert isinstance(vcpu.run(), Hlt)
            ends.append({**vcpu.regs, "rflags": 0})
    assert ends[0] == ends[1]


def _arithmetic(chance):
    """One hundred instructions ``op r64, r64`` (add, or, adc, sbb, and, sub, xor, mov) on registers with values."""
    registers = [number for number in range(16) if number != 4]
    code = b"".join(
        bytes([0x48 | number >> 3, 0xB8 | number & 7]) + chance.randbytes(8) for number in registers
    )  # movabs
    for _ in range(100):
        source, target = chance.choice(registers), chance.choice(registers)
        operation = chance.choice((b"\x01", b"\x09", b"\x11", b"\x19", b"\x21", b"\x29", b"\x31", b"\x89"))
        prefix = chance.choice((0x48, 0x40)) | (source >> 3) << 2 | target >> 3
        code += b"\xf8" + bytes([prefix]) + operation + bytes([0xC0 | (source & 7) << 3 | target & 7])  # clc first
    return code + b"\xf4"
