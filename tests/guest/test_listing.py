"""Each instruction of the hand-written programs against a disassembler."""

from __future__ import annotations

import re
import struct

import capstone
import pytest

from course.guest import baremetal, bootcounter, bootsector, diskwriter, listing, ramcounter

PROGRAMS = {
    "boot sector": (bootsector.LISTING, capstone.CS_MODE_16, 0x7C00),
    "counting CD": (bootcounter.LISTING, capstone.CS_MODE_16, 0x7C00),
    "hello": (baremetal.HELLO, capstone.CS_MODE_32, 0x100020),
    "counter": (baremetal.COUNTER, capstone.CS_MODE_32, 0x100020),
    "dirty": (baremetal.DIRTY, capstone.CS_MODE_32, 0x100020),
    "disk writer": (diskwriter.WRITER, capstone.CS_MODE_32, 0x100020),
    "ramcounter": (ramcounter.LISTING, capstone.CS_MODE_64, 0x400078),
}
# Names that stand for numbers outside the code, with values that no instruction has by chance.
OUTSIDE = {
    name: 0x7E00 + 0x11 * number
    for number, name in enumerate(
        ("text", "gdtr", "idtr", "gate", "gate_high", "from", "pages", "path", "pause", "sectors", "buffer", "end"),
        start=1,
    )
}


def _numbers(text: str, names: dict[str, int]) -> str:
    """Write every name and number of an instruction in hexadecimal, and the address size of memory away."""
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", hex(value), text)
    return re.sub(r"\b(\d+)\b(?!x)", lambda found: hex(int(found[1])), text)


@pytest.mark.parametrize("program", PROGRAMS)
def test_listing_says_what_the_bytes_do(program: str) -> None:
    """Capstone reads each instruction as its comment says, at the same length."""
    text, mode, origin = PROGRAMS[program]
    names, address, instructions = dict(OUTSIDE), origin, []
    for line in listing.parse(text):
        if line.label:
            names[line.label] = address
        else:
            instructions.append((address, line.size, line.text))
            address += line.size
    code = listing.link(text, origin, constants=OUTSIDE)
    assert len(code) == address - origin
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, mode)
    read = [(i.address, i.size, f"{i.mnemonic} {i.op_str}".strip()) for i in disassembler.disasm(code, origin)]
    assert len(read) == len(instructions)
    for expected, obtained in zip(instructions, read, strict=True):
        said = re.split(r"\s{2,}", expected[2])[0]  # what follows two blanks is an explanation
        assert obtained[:2] == expected[:2]
        assert _numbers(obtained[2], {}) == _numbers(said, names)


def test_link_places_data_after_the_code() -> None:
    """Addresses, jumps both ways and data come out as counted by hand."""
    text = """
    begin:
        be {word:2}     ; mov si, word
        eb {end:r}      ; jmp end
        eb {begin:r}    ; jmp begin
    end:
        68 {seven:4}    ; push seven
    """
    made = listing.link(text, 0x7C00, data={"first": b"xy", "word": b"hi"}, constants={"seven": 7})
    assert made == bytes.fromhex("be0e7c eb02 ebf9 6807000000".replace(" ", "")) + b"xyhi"


def test_link_refuses_a_jump_too_far() -> None:
    """A jump of one byte reaches 127 bytes, not more."""
    far = "eb {end:r} ; jmp end\n" + "90 ; nop\n" * 128 + "end:\n"
    with pytest.raises(OverflowError):
        listing.link(far, 0)


def test_ramcounter_is_an_executable() -> None:
    """Pyelftools finds a static x86-64 program whose entry lies in its one loadable segment."""
    import io

    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(ramcounter.program()))
    assert (elf["e_type"], elf["e_machine"]) == ("ET_EXEC", "EM_X86_64")
    (segment,) = elf.iter_segments()
    assert segment["p_type"] == "PT_LOAD"
    assert segment["p_vaddr"] <= elf["e_entry"] < segment["p_vaddr"] + segment["p_filesz"]
    assert segment["p_filesz"] == len(ramcounter.program())


def test_multiboot_header_is_as_specified() -> None:
    """Magic, flags and checksum add up to 0, and the addresses cover the whole image."""
    image = baremetal.multiboot(b"code")
    magic, flags, checksum, header, load, load_end, bss_end, entry = struct.unpack_from("<8I", image)
    assert magic == 0x1BADB002
    assert (magic + flags + checksum) & 0xFFFFFFFF == 0
    assert header == load == 0x100000
    assert load_end == bss_end == load + len(image)
    assert image[entry - load :] == b"code"
