"""The filter, run by a small BPF machine here, and its numbers beside those that others wrote down."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from autograder.sandbox import seccomp

ALLOW, EPERM, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x50001, 0x50026, 0x50061
ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}


def verdict(code: bytes, arch: str, number: int, argument: int = 0) -> int:
    """Run the filter on one call. Source: linux/filter.h, linux/bpf_common.h."""
    data = struct.pack("<IIQQ", number, ARCH[arch], 0, argument) + bytes(40)
    program = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    place = word = 0
    while True:
        operation, if_true, if_false, value = program[place]
        place += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
            continue
        taken = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[operation]
        place += if_true if taken else if_false


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "x86_64"), ("x86_64", "i386"), ("aarch64", "aarch64")])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine, arch):
    """Every number up to 600, for each kind of processor that the filter knows."""
    code = seccomp.program(machine)
    clone, unshare, socket = seccomp._FLAGGED[arch]
    listed = set(seccomp.denied(arch).values())
    for number in range(600):
        expected = EPERM if number in listed else ENOSYS if number == 435 else ALLOW
        if number == socket:
            expected = EAFNOSUPPORT  # family 0
        assert verdict(code, arch, number) == expected, number
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(code, arch, clone, flag | 17) == EPERM
        assert verdict(code, arch, unshare, flag) == EPERM
    assert verdict(code, arch, unshare, 0x80) == EPERM  # a time namespace
    assert verdict(code, arch, clone, 0x11 | 0x01200000) == ALLOW  # fork
    assert verdict(code, arch, clone, 0x003D0F00) == ALLOW  # a thread
    for family in range(50):
        assert verdict(code, arch, socket, family) == (ALLOW if family in (1, 2, 10, 16) else EAFNOSUPPORT)


def test_other_processors_and_x32_are_refused():
    """A call made for a processor that the filter does not know is not let through."""
    code = seccomp.program("x86_64")
    assert verdict(code, "aarch64", 63) == EPERM
    assert verdict(code, "x86_64", 0x40000000) == EPERM
    with pytest.raises(OSError, match="no filter for vax"):
        seccomp.program("vax")


@pytest.mark.parametrize(
    ("arch", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("i386", "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_those_of_the_kernels_headers(arch, header):
    """Written by others; calls newer than the header are not in it."""
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    known = {name: int(number) for name, number in found}
    wrong = {
        name: (number, known[name])
        for name, number in seccomp.denied(arch).items()
        if name in known and known[name] != number
    }
    assert wrong == {}
