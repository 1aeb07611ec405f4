"""Whole programs: twelve greetings, six dumps of one struct, ELF files that others can read."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest

from course import isa
from course.error import CapabilityError, UsageError
from course.isa.elf import with_sections
from course.isa.programs import record_layout
from course.isa.userland import is_native, program_file

pytestmark = pytest.mark.qemu


def _need(name: str) -> None:
    try:
        isa.emulator(name)
    except CapabilityError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", isa.ISAS)
def test_a_greeting_is_a_program_of_its_isa(name):
    """QEMU runs it, its text arrives, its status counts the arguments."""
    _need(name)
    done = isa.run(isa.hello(name, f"hello from {name}\n", status=3), arguments=["a", "b"])
    assert (done.isa, done.stdout, done.status) == (name, f"hello from {name}\n".encode(), 5)
    assert len(isa.hello(name)) < 190


def test_a_native_program_runs_without_an_emulator():
    """The kernel itself accepts our ELF files."""
    native = [name for name in isa.ISAS if is_native(name)]
    if not native:
        pytest.skip("no ISA of ours is this machine's")
    with program_file(isa.hello(native[0], "here\n")) as path:
        assert subprocess.run([str(path)], capture_output=True, check=False).stdout == b"here\n"


@pytest.mark.parametrize("name", ["x86", "x86_64", "ppc", "ppc64", "aarch64", "riscv64"])
def test_a_record_lies_as_the_c_compiler_lays_it_out(name):
    """ctypes, which knows the host's C layout, reads back what the program stored."""
    _need(name)
    row = isa.lookup(name)
    dump = isa.run(isa.record(name, 65, -2.5, -2, -3)).stdout
    base = ctypes.LittleEndianStructure if row.endian == "little" else ctypes.BigEndianStructure

    class Record(base):
        _pack_ = 4 if name == "x86" else 8
        _layout_ = "ms"
        _fields_ = [  # noqa: RUF012 - ctypes wants a list
            ("tag", ctypes.c_int8),
            ("weight", ctypes.c_double),
            ("delta", ctypes.c_int16),
            ("serial", ctypes.c_int32 if row.bits == 32 else ctypes.c_int64),
        ]

    assert len(dump) == ctypes.sizeof(Record) == record_layout(name).size
    read = Record.from_buffer_copy(dump)
    assert (read.tag, read.weight, read.delta, read.serial) == (65, -2.5, -2, -3)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler as oracle")
@pytest.mark.parametrize(("name", "flag"), [("x86", "-m32"), ("x86_64", "-m64")])
def test_offsets_are_those_of_gcc(name, flag, tmp_path):
    """The compiler's own offsetof, read from its assembly (no headers, no linking)."""
    source = "struct r {char a; double b; short c; long d;};\n" + "".join(
        f"int o{i}[__builtin_offsetof(struct r, {member}) + 1];\n" for i, member in enumerate("abcd")
    )
    file = tmp_path / "r.c"
    file.write_text(source + "int size[sizeof(struct r)];\n")
    done = subprocess.run(["gcc", flag, "-S", "-o", "-", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this gcc does not know " + flag)
    sizes = [int(line.split(",")[1]) // 4 for line in done.stdout.splitlines() if line.strip().startswith(".size")]
    layout = record_layout(name)
    assert [s - 1 for s in sizes[:4]] + sizes[4:] == [0, layout.weight, layout.delta, layout.serial, layout.size]


def test_strace_lists_the_system_calls():
    """The emulator shows where instructions end and the kernel begins."""
    _need("ppc")
    said = isa.run(isa.hello("ppc", "hi\n"), strace=True).stderr
    assert "write(1" in said
    assert "exit(0)" in said


def test_facts_are_those_of_readelf(tmp_path):
    """Sections that we write are sections that binutils reads."""
    path = tmp_path / "odd.bin"
    path.write_bytes(with_sections("ppc", {".text": b"x" * 100, ".data": b"y" * 50}))
    facts = isa.facts(path)
    assert (facts.machine, facts.bits, facts.endian, facts.interpreter) == ("EM_PPC", 32, "big", None)
    assert facts.sections[".text"][1:] == (100, True)
    assert facts.sections[".data"][1:] == (50, False)
    if shutil.which("readelf"):
        done = subprocess.run(["readelf", "-hSW", str(path)], capture_output=True, text=True, check=True)
        assert "PowerPC" in done.stdout
        assert "Warning" not in done.stderr


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"MZ" + bytes(100), isa.hello("ppc")[:40]])
def test_what_is_no_elf_file_is_refused(content, tmp_path):
    """Empty, truncated, script, Windows: one error that says so."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(isa.NotElfError, match="not a complete ELF file"):
        isa.facts(path)
    with pytest.raises(isa.NotElfError):
        isa.run(path)


def test_a_program_that_does_not_end_is_stopped():
    """A time limit ends it and says so."""
    _need("ppc")
    forever = isa.write_elf(isa.assemble("l: b l", "ppc"), "ppc")
    with pytest.raises(UsageError, match=r"still running after 0\.5 s"):
        isa.run(forever, timeout_s=0.5)


def test_a_missing_emulator_is_named(monkeypatch):
    """The remedy names the package."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CapabilityError, match=r"qemu-ppc is not available here.*Install the package qemu-user"):
        isa.emulator("ppc")


def test_firmware_is_foreign():
    """What QEMU brings along are ELF files of other machines."""
    found = isa.firmware()
    if not found:
        pytest.skip("no QEMU, or one without firmware files")
    machines = {isa.facts(path).machine for path in found.values()}
    assert "EM_X86_64" not in machines
