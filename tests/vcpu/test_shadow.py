"""Guests with page tables of their own: what their builder promises, an MMU that nobody here wrote confirms."""

import random
import struct

import pytest

from course.error import UsageError
from course.vcpu import paged
from course.vcpu.paging import ADDRESS, PAGE, P, W, index
from course.vcpu.shadow import WINDOW, ShadowGuest


def on_unicorn_s_mmu(machine):
    """Run a guest in ring 0 of an emulated CPU with its own tables and no VMM at all; returns its output and faults."""
    unicorn = pytest.importorskip("unicorn")
    from unicorn import x86_const as x86

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
    uc.mem_map(0, len(machine["ram"]))
    uc.mem_write(0, machine["ram"])
    for register, value in (("CR3", machine["cr3"]), ("CR4", 0x20), ("CR0", 0x80010011)):  # WP: ring 0 obeys W
        uc.reg_write(getattr(x86, f"UC_X86_REG_{register}"), value)
    output, faults, stop = bytearray(), [], []
    uc.hook_add(
        unicorn.UC_HOOK_INSN,
        lambda _uc, _port, size, value, _: output.extend(value.to_bytes(size, "little")),
        None, 1, 0, x86.UC_X86_INS_OUT,
    )  # fmt: skip

    def on_interrupt(_uc, number, _):
        stop.append(number)
        uc.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INTR, on_interrupt)
    pc = machine["entry"]
    clean = uc.context_save()
    for _ in range(200):
        stop.clear()
        try:
            uc.emu_start(pc, machine["handler"])
        except unicorn.UcError:
            stop.append(14)
        if not stop:
            return bytes(output), faults
        assert stop[0] == 14
        saved = {n: uc.reg_read(getattr(x86, f"UC_X86_REG_{n}")) for n in ("RAX", "R11", "R12", "CR2", "RIP", "CR3")}
        uc.context_restore(clean)
        for name in ("RAX", "R11", "R12", "CR3"):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), saved[name])
        faults.append(saved["CR2"])
        output += struct.pack("<I", saved["CR2"])
        entry = walk_to(uc, saved["CR3"], saved["R12"])
        uc.mem_write(entry, struct.pack("<Q", saved["R11"]))
        uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)
        pc = saved["RIP"]
    raise AssertionError("the guest does not end")


def walk_to(uc, cr3, address):
    """Physical address of a virtual one, small pages only."""
    table = cr3
    for level in (4, 3, 2, 1):
        table = int.from_bytes(uc.mem_read((table & ADDRESS) + 8 * index(address, level), 8), "little")
        assert table & P
    return table & ADDRESS | address % PAGE


def life(seed):
    """A guest that stores, loads and changes its tables."""
    rng = random.Random(seed)
    guest = paged.Paged(rng)
    pages = [paged.DATA + n * PAGE for n in range(6)]
    for number, page in enumerate(pages):
        if number == 5:
            guest.hole(page)
        else:
            guest.page(page, writable=rng.random() < 0.6, value=rng.randrange(1 << 32))
    for _ in range(25):
        page, how = rng.choice(pages), rng.choice(("invlpg", "cr3"))
        match rng.choice("ssllmrf"):
            case "s":
                guest.store(page, rng.randrange(1 << 31))
            case "l":
                guest.load(page)
            case "m":
                guest.move(page, how)
            case "r":
                guest.remove(page, how)
            case "f":
                guest.forbid(page, how)
    return guest


@pytest.mark.parametrize("seed", range(6))
def test_a_builder_promises_what_an_mmu_does(seed):
    """Output and page faults of a guest are those of an emulated CPU that walks the guest's own tables."""
    guest = life(seed)
    output, faults = on_unicorn_s_mmu(guest.machine())
    assert output == guest.output
    assert faults == [address for address, _ in guest.injected]


def test_faults_and_announcements_are_told(engine):
    """A missing page, a forbidden write, invlpg and cr3 come out; what is mapped goes by in silence."""
    guest = paged.Paged(random.Random(1))
    frame = guest.page(paged.DATA, writable=True)
    guest.store(paged.DATA, 7)
    guest.announce(paged.DATA, "invlpg")
    guest.announce(paged.DATA, "cr3")
    machine = guest.machine()
    with ShadowGuest(engine, **machine) as vm:
        assert vm.run() == ("fault", paged.CODE, False)
        vm.map(paged.CODE, code_of(vm), writable=False)
        assert vm.run() == ("fault", paged.DATA, True)
        vm.map(paged.DATA, frame, writable=False)
        assert vm.run() == ("fault", paged.DATA, True)
        vm.map(paged.DATA, frame, writable=True)
        assert vm.run() == ("invlpg", paged.DATA, False)
        assert vm.read(frame) == 7
        assert vm.run() == ("cr3", machine["cr3"], False)
        vm.unmap_all()
        assert vm.run() == ("fault", paged.CODE + len_before_hlt(machine), False)
        vm.map(paged.CODE, code_of(vm), writable=False)
        assert vm.run() is None
        report = vm.report()
    assert report["ended"] == "hlt"
    assert len(report["faults"]) == 4
    assert report["injected"] == []


def code_of(vm):
    """Physical address of the first page of code, from the guest's own tables."""
    table = vm.cr3
    for level in (4, 3, 2, 1):
        table = vm.read((table & ADDRESS) + 8 * index(paged.CODE, level))
    assert not table & W
    return table & ADDRESS


def len_before_hlt(machine):
    """Offset of hlt, the last instruction before the handler."""
    return machine["handler"] - machine["entry"] - 1


def test_an_injected_fault_reaches_the_handler(engine):
    """The handler finds the address in r14, the way back in r15, and a 1 for a write in r13."""
    machine = paged.example().machine()
    with ShadowGuest(engine, **machine) as vm:
        _, address, write = vm.run()
        vm.inject(address, write)
        assert (vm.vcpu.regs.r14, vm.vcpu.regs.r15, vm.vcpu.regs.r13) == (paged.CODE, paged.CODE, 0)
        assert vm.run() == ("fault", machine["handler"], False)


def test_what_cannot_be_mapped_is_refused():
    """Memory that the guest does not have, and addresses that the VMM keeps for itself."""
    with ShadowGuest("unicorn", **paged.example().machine()) as vm:
        with pytest.raises(UsageError, match="none at guest-physical"):
            vm.map(paged.DATA, 1 << 30, True)
        with pytest.raises(UsageError, match="none at guest-physical"):
            vm.read(-8)
        with pytest.raises(UsageError, match="0x30000000"):
            vm.map(WINDOW, 0, True)


def test_a_vmm_that_does_nothing_runs_out_of_exits():
    """Fuel ends the guest, and says where it faulted last."""
    with ShadowGuest("unicorn", **paged.example().machine(), exits=20) as vm:
        while vm.run():
            pass
        assert "used up its exits; the last fault was at 0x400000" in vm.report()["ended"]
