"""Page tables built here are page tables to those who wrote neither: Unicorn's MMU and QEMU's monitor."""

import struct

import pytest

from course.error import UsageError
from course.guest import baremetal
from course.machine import Machine
from course.vcpu import paging
from course.vcpu.paging import ADDRESS, GIB_1, MIB_2, NX, PAGE, PS, A, D, P, Recorder, Tables, U, W

SIZE = 8 << 20
ROOT = 0x400000
PAGES = {  # virtual: (physical, size)
    0x0: (0x0, MIB_2),  # the boot code, where it lies
    0x400000: (0x8000, PAGE),
    0x401000: (0x7000, PAGE),
    0x7FFFFFFFF000: (0x9000, PAGE),
    0x8000000000: (0x0, GIB_1),
    0xFFFF888000200000: (0x200000, MIB_2),
    0xFFFFFFFFFFFFF000: (0xA000, PAGE),
}
PROBES = [(0x400120, 0x8120), (0x401FF8, 0x7FF8), (0x12340, 0x12340), (0x7FFFFFFFFFF0, 0x9FF0),
          (0x8000200010, 0x200010), (0xFFFF888000200008, 0x200008), (0xFFFFFFFFFFFFF800, 0xA800), (0x402000, None),
          (0x600000, None), (0x9000000000, None), (0xFFFF888000000000, None)]  # fmt: skip
TURN_PAGING_ON = bytes.fromhex(
    "b8 00 00 40 00"  # mov eax, ROOT
    "0f 22 d8"  # mov cr3, eax
    "b8 20 00 00 00 0f 22 e0"  # cr4 = PAE
    "b9 80 00 00 c0 0f 32 0d 00 01 00 00 0f 30"  # EFER |= LME
    "0f 20 c0 0d 00 00 00 80 0f 22 c0"  # cr0 |= PG
    "66 ba f8 03 b0 47 ee f4"  # out 0x3f8, 'G'; hlt
)


def built(flags=P | W):
    """A memory with tables for PAGES."""
    ram = bytearray(SIZE)
    tables = Tables(ram, first=ROOT)
    for virtual, (physical, size) in PAGES.items():
        tables.map(virtual, physical, flags, size)
    return ram, tables


def test_unicorn_s_mmu_follows_the_tables():
    """An emulated processor with paging on finds each page where it was put, and faults elsewhere."""
    unicorn = pytest.importorskip("unicorn")
    from unicorn import x86_const as x86

    ram, tables = built()
    ram[:ROOT] = struct.pack(f"<{ROOT // 8}Q", *range(0, ROOT, 8))  # each word holds its own address
    ram[0x1000:0x1003] = bytes.fromhex("488b03")  # mov rax, [rbx]
    for virtual, physical in PROBES:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        uc.mem_map(0, SIZE)
        uc.mem_write(0, bytes(ram))
        for register, value in (("CR3", tables.root), ("CR4", 0x20), ("CR0", 0x80000011), ("RBX", virtual)):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{register}"), value)
        try:
            uc.emu_start(0x1000, 0x1003, count=1)
            got = uc.reg_read(x86.UC_X86_REG_RAX)
        except unicorn.UcError:
            got = None
        assert got == physical, f"{virtual:#x}"


@pytest.mark.qemu
def test_qemu_s_monitor_follows_the_tables(tmp_path):
    """``gva2gpa`` of a machine whose boot code loads the tables gives each page where it was put."""
    ram, tables = built(P | W | U | A | D)
    image, boot = tmp_path / "tables.bin", tmp_path / "boot.bin"
    image.write_bytes(ram[ROOT : tables.end])
    boot.write_bytes(baremetal.multiboot(TURN_PAGING_ON))
    loader = f"loader,file={image},addr={ROOT:#x},force-raw=on"
    with Machine("-M", "q35", "-m", "16", "-kernel", boot, "-device", loader) as vm:
        vm.console.expect("G", 30)
        assert f"CR3={ROOT:016x}" in vm.hmp("info registers")
        for virtual, physical in PROBES:
            said = vm.hmp(f"gva2gpa {virtual:#x}").strip()
            assert said == ("Unmapped" if physical is None else f"gpa: {physical:#x}"), f"{virtual:#x}"


def test_recorder_counts_reads_and_knows_where_memory_ends():
    """Each read is kept, and one outside of memory is an error that names it."""
    ram, tables = built()
    recorder = Recorder(ram)
    assert recorder(tables.root + 8 * 511) & ADDRESS
    assert recorder(tables.root) & P
    assert recorder.reads == [tables.root + 8 * 511, tables.root]
    with pytest.raises(UsageError, match=r"read number 3 was at 0x800000"):
        recorder(SIZE)
    by_function = Recorder(lambda address, size: bytes(ram[address : address + size]))
    assert by_function(tables.root) == Recorder(ram)(tables.root)


def test_entries_can_be_found_and_changed():
    """`entry` is where `map` wrote; `unmap` clears it."""
    _, tables = built()
    where = tables.map(0x402000, 0xB000, P | NX)
    assert where == tables.entry(0x402000)
    assert tables.read(where) == 0xB000 | P | NX
    assert paging.describe(tables.read(where)) == "0xb000 P NX"
    assert paging.describe(tables.read(tables.entry(0x0, 2))) == "0x0 P W PS"
    tables.unmap(0x402000)
    assert paging.describe(tables.read(where)) == "not present"


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_any_depth_has_one_table_per_level(levels):
    """One page under n levels takes n tables, and its entry lies in the last."""
    ram = bytearray(1 << 16)
    tables = Tables(ram, first=0x2000, levels=levels)
    where = tables.map(0x1000, 0x5000)
    assert tables.end - tables.root == levels * PAGE
    assert where == tables.end - PAGE + 8


def test_tables_may_begin_anywhere():
    """`base` tells which physical address the first byte of the memory has."""
    ram = bytearray(1 << 16)
    tables = Tables(ram, first=0x10001000, base=0x10000000)
    tables.map(0, 0x10008000)
    assert struct.unpack_from("<Q", ram, 0x1000)[0] == 0x10002000 | P | W | U


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.map(0, 0x1000, size=MIB_2), "2097152 bytes at 0x1000"),
        (lambda t: t.map(0, 0, size=12345), "12345 bytes"),
        (lambda t: t.entry(0x123456789000), "no table of level 3"),
        (lambda t: [t.map(n << 39, 0) for n in range(300)], "no memory for another table"),
        (lambda t: Tables(bytearray(8192), first=12), "0xc"),
        (lambda t: Tables(bytearray(8192), first=0, levels=6), "6 levels"),
    ],
)
def test_impossible_tables_are_refused(call, words):
    """What cannot be built says so, with the values."""
    with pytest.raises(UsageError, match=words):
        call(Tables(bytearray(1 << 20), first=0))


def test_large_pages_carry_the_bit():
    """PS is set by the builder where it belongs, and only there."""
    _, tables = built()
    assert tables.read(tables.entry(0x8000000000, 3)) & PS
    assert not tables.read(tables.entry(0x400000, 1)) & PS
