"""Tiny executables: read back by pyelftools, disassembled by capstone, started by whatever runs x86-64 here."""

from __future__ import annotations

import io

import pytest
from elftools.elf.elffile import ELFFile

from course.error import UsageError
from course.kernel import program, tracer


def test_headers_are_what_pyelftools_reads():
    """An independent reader finds one loaded segment and the entry behind the headers."""
    image = program.elf(b"\x90" * 10, entry=3)
    elf = ELFFile(io.BytesIO(image))
    (segment,) = elf.iter_segments()
    assert (elf["e_machine"], elf["e_type"], elf.elfclass, elf.little_endian) == ("EM_X86_64", "ET_EXEC", 64, True)
    assert elf["e_entry"] == program.BASE + 120 + 3
    assert (segment["p_type"], segment["p_flags"], segment["p_filesz"]) == ("PT_LOAD", 5, len(image))


def test_layout_reads_what_elf_writes():
    """The two directions agree."""
    seen = program.layout(program.elf(b"\x90\x90", entry=1, flags=program.READ))
    assert seen.entry == program.BASE + program.HEADER_BYTES + 1
    segment = seen.segment_of(seen.entry)
    assert segment is not None
    assert segment.flags == program.READ
    assert seen.segment_of(program.BASE - 1) is None


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "begins with nothing"),
        (b"#!/bin/sh\n", "begins with 23 21 2f 62"),
        (b"\x7fELF" + bytes(20), "64 bytes"),
        (b"\x7fELF" + bytes([1, 1]) + bytes(200), "EI_CLASS (64 bits is 2) is 1"),
        (program.elf(b"")[:100], "do not fit"),
    ],
)
def test_layout_names_what_is_wrong(image, says):
    """A file that is no x86-64 executable is refused with the field and its value."""
    with pytest.raises(UsageError) as caught:
        program.layout(image)
    assert says in str(caught.value)


def test_layout_refuses_another_isa():
    """A 64-bit ELF file for Arm is not taken for ours."""
    image = bytearray(program.elf(b""))
    image[18] = 183
    with pytest.raises(UsageError, match="e_machine"):
        program.layout(bytes(image))


@pytest.mark.parametrize("engine", tracer.engines())
def test_asking_makes_exactly_the_calls_wanted(engine):
    """Every engine sees the calls in their order, and the exit code."""
    seen = tracer.run(program.asking([39, 110, 39], 9), engine=engine)
    assert ([c.number for c in seen.calls], seen.exitcode) == ([39, 110, 39, 60], 9)


def test_copying_reads_and_writes_every_block():
    """Each block costs one read and one write, all of them full."""
    if not {"ptrace", "qemu"} & set(tracer.engines()):
        pytest.skip("copying opens files: it needs a kernel, not an emulated CPU alone")
    seen = tracer.run(program.copying(100, 7))
    assert [c.result for c in seen.calls if c.name in ("read", "write")] == [100] * 14
    assert seen.exitcode == 0


@pytest.mark.parametrize(("block", "count"), [(0, 1), (65537, 1), (1, 0)])
def test_copying_refuses_sizes_out_of_range(block, count):
    """The message names the values."""
    with pytest.raises(UsageError, match=f"block_bytes={block}, count={count}"):
        program.copying(block, count)
