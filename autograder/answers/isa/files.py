"""Answers about program files."""

import os
import shutil
import struct
import subprocess
import sys

import capstone
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from autograder.answers import alternative, mutant

MACHINES = {3: "x86", 62: "x86_64", 20: "ppc", 21: "ppc64", 40: "arm", 183: "aarch64", 243: "riscv", 22: "s390x",
            4: "m68k", 8: "mips"}  # fmt: skip


@alternative("isa_of")
def with_struct(path):
    with open(path, "rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    order = {1: "<", 2: ">"}[head[5]]
    name = MACHINES.get(struct.unpack_from(order + "H", head, 18)[0])
    return name and (name, {1: 32, 2: 64}[head[4]], {"<": "little", ">": "big"}[order])


@alternative("isa_of")
def with_pyelftools(path):
    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
        except (ELFError, struct.error, Exception):
            return None
        raw = elf.header["e_ident"]
        file.seek(18)
        number = int.from_bytes(file.read(2), "little" if elf.little_endian else "big")
    return (MACHINES[number], elf.elfclass, "little" if elf.little_endian else "big") if number in MACHINES else None


@alternative("isa_of")
def as_a_list(path):
    found = with_struct(path)
    return list(found) if found else None


@mutant("isa_of", "always-little")
def little_only(path):
    head = open(path, "rb").read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    name = MACHINES.get(head[18] | head[19] << 8)
    return name and (name, head[4] * 32, "little" if head[5] == 1 else "big")


@mutant("isa_of", "class-ignored")
def guesses_bits(path):
    found = with_struct(path)
    return found and (found[0], 64 if found[0] in ("x86_64", "aarch64", "ppc64", "s390x") else 64, found[2])


@mutant("isa_of", "endian-ignored")
def all_little(path):
    found = with_struct(path)
    return found and (found[0], found[1], "little")


@mutant("isa_of", "believes-the-name")
def by_name(path):
    found = with_struct(path)
    for name in sorted(MACHINES.values(), key=len, reverse=True):
        if found and name in os.path.basename(path):
            return (name, found[1], found[2])
    return found


@mutant("isa_of", "raises-on-others")
def without_care(path):
    head = open(path, "rb").read(20)
    order = {1: "<", 2: ">"}[head[5]]
    return (MACHINES[struct.unpack_from(order + "H", head, 18)[0]], head[4] * 32, "little" if order == "<" else "big")


@mutant("isa_of", "accepts-others")
def no_magic(path):
    head = open(path, "rb").read(20).ljust(20, b"\0")
    order = ">" if head[5] == 2 else "<"
    name = MACHINES.get(struct.unpack_from(order + "H", head, 18)[0], "unknown")
    return (name, head[4] * 32, "little" if order == "<" else "big")


# ── parse_record ──


def _parse(blob, isa, order=None, double=None, short="h", long=None, gap=None):
    order = order or (">" if isa == "ppc" else "<")
    wide = long or (4 if isa in ("ppc", "x86") else 8)
    weight = double or (4 if isa == "x86" else 8)
    delta = weight + 8
    serial = delta + (gap or wide)
    return {
        "tag": blob[0],
        "weight": struct.unpack_from(order + "d", blob, weight)[0],
        "delta": struct.unpack_from(order + short, blob, delta)[0],
        "serial": struct.unpack_from(order + {4: "i", 8: "q"}[wide], blob, serial)[0],
    }


@alternative("parse_record")
def offsets(blob, isa):
    return _parse(blob, isa)


@alternative("parse_record")
def formats(blob, isa):
    pattern = {"ppc": ">b7xdh2xi", "x86": "<b3xdh2xi", "x86_64": "<b7xdh6xq", "aarch64": "<b7xdh6xq"}[isa]
    return dict(zip(("tag", "weight", "delta", "serial"), struct.unpack_from(pattern, blob)))


@alternative("parse_record")
def by_hand(blob, isa):
    if isa == "ppc":
        order, w, d, s, n = "big", 8, 16, 20, 4
    elif isa == "x86":
        order, w, d, s, n = "little", 4, 12, 16, 4
    else:
        order, w, d, s, n = "little", 8, 16, 24, 8
    bits = int.from_bytes(blob[w : w + 8], order)
    return {
        "tag": blob[0],
        "weight": struct.unpack("=d", struct.pack("=Q", bits))[0],
        "delta": int.from_bytes(blob[d : d + 2], order, signed=True),
        "serial": int.from_bytes(blob[s : s + n], order, signed=True),
        "note": "extra keys do no harm",
    }


@mutant("parse_record", "native-order")
def order_of_this_machine(blob, isa):
    return _parse(blob, isa, order="=" if sys.byteorder == "little" else "<")


@mutant("parse_record", "double-alignment")
def eight_everywhere(blob, isa):
    return _parse(blob.ljust(40, b"\0"), isa, double=8)


@mutant("parse_record", "unsigned")
def no_sign(blob, isa):
    return _parse(blob, isa, short="H")


@mutant("parse_record", "long-size")
def long_is_four(blob, isa):
    return _parse(blob, isa, long=4)


@mutant("parse_record", "layout")
def no_padding(blob, isa):
    return _parse(blob.ljust(40, b"\0"), isa, double=1)


@mutant("parse_record", "member-missing")
def three_members(blob, isa):
    found = _parse(blob, isa)
    del found["serial"]
    return found


# ── density ──

_ENGINES = {
    "ppc": (capstone.CS_ARCH_PPC, capstone.CS_MODE_32 | capstone.CS_MODE_BIG_ENDIAN),
    "x86": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    "riscv64": (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC),
}


def _text(path):
    with open(path, "rb") as file:
        return ELFFile(file).get_section_by_name(".text").data()


@alternative("density")
def with_skipdata(path, isa):
    engine = capstone.Cs(*_ENGINES[isa])
    engine.skipdata = True
    sizes = [i.size for i in engine.disasm(_text(path), 0) if i.id]
    return sum(sizes) / len(sizes)


@alternative("density")
def step_by_step(path, isa):
    engine, text = capstone.Cs(*_ENGINES[isa]), _text(path)
    at = used = count = 0
    while at < len(text):
        found = next(engine.disasm(text[at : at + 16], 0, 1), None)
        if found:
            used, count = used + found.size, count + 1
        at += found.size if found else {"ppc": 4, "aarch64": 4, "riscv64": 2}.get(isa, 1)
    return used / count


@mutant("density", "counts-data")
def whole_file(path, isa):
    return os.path.getsize(path) / sum(1 for _ in capstone.Cs(*_ENGINES[isa]).disasm(_text(path), 0))


@mutant("density", "stops-at-data")
def until_the_table(path, isa):
    text = _text(path)
    return len(text) / sum(1 for _ in capstone.Cs(*_ENGINES[isa]).disasm(text, 0))


@mutant("density", "inverse")
def upside_down(path, isa):
    return 1 / with_skipdata(path, isa)


@mutant("density", "wrong-density")
def always_four(path, isa):
    return 4.0 if isa in ("ppc", "aarch64") else 1.5


# ── run_anywhere ──

_QEMU = {"x86": "i386", "riscv": "riscv"}


def _suffix(path):
    name, bits, endian = with_struct(path)
    if name == "ppc64" and endian == "little":
        return "ppc64le"
    if name == "riscv":
        return f"riscv{bits}"
    return {"x86": "i386"}.get(name, name)


@alternative("run_anywhere")
def header_first(path, arguments):
    done = subprocess.run([f"qemu-{_suffix(path)}", path, *arguments], stdout=subprocess.PIPE)
    return done.returncode, done.stdout


@alternative("run_anywhere")
def native_where_it_can(path, arguments):
    suffix = _suffix(path)
    command = [] if suffix == os.uname().machine else [shutil.which(f"qemu-{suffix}")]
    done = subprocess.run([*command, path, *arguments], capture_output=True)
    return done.returncode, done.stdout


@mutant("run_anywhere", "status-lost")
def output_only(path, arguments):
    return 0, subprocess.run([f"qemu-{_suffix(path)}", path, *arguments], stdout=subprocess.PIPE).stdout


@mutant("run_anywhere", "arguments-lost")
def no_arguments(path, arguments):
    done = subprocess.run([f"qemu-{_suffix(path)}", path], stdout=subprocess.PIPE)
    return done.returncode, done.stdout


@mutant("run_anywhere", "trial-and-error")
def tries_all(path, arguments):
    for suffix in (
        "s390x",
        "mips",
        "m68k",
        "ppc64",
        "ppc64le",
        "arm",
        "aarch64",
        "riscv32",
        "riscv64",
        "i386",
        "x86_64",
        "ppc",
    ):
        done = subprocess.run([f"qemu-{suffix}", path, *arguments], capture_output=True)
        if done.stdout:
            return done.returncode, done.stdout
    return None


@mutant("run_anywhere", "text-for-bytes")
def decodes(path, arguments):
    status, output = header_first(path, arguments)
    return status, output.decode()


@mutant("run_anywhere", "raised")
def believes_check(path, arguments):
    done = subprocess.run([f"qemu-{_suffix(path)}", path, *arguments], stdout=subprocess.PIPE, check=True)
    return done.returncode, done.stdout
