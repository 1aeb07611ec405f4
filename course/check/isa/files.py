"""Checks of answers about program files: headers, dumped structs, density, running foreign programs."""

from __future__ import annotations

import contextlib
import math
import os
import random
import stat
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ... import isa
from ...error import CapabilityError
from ...isa.disassembler import decode
from ...isa.elf import with_sections
from ...isa.programs import record_layout
from ...isa.userland import is_native
from ..compare import shorten
from ..exercise import Exercise, Trial

MACHINES = {3: "x86", 62: "x86_64", 20: "ppc", 21: "ppc64", 40: "arm", 183: "aarch64", 243: "riscv", 22: "s390x",
            4: "m68k", 8: "mips"}  # fmt: skip

Kind = tuple[str, int, str]

# ── isa_of ──────────────────────────────────────────────────────────────────────────────────────────────────────────

isa_of = Exercise("isa_of")


def kind_of(name: str) -> Kind:
    """What `isa_of` has to say of a program for `name`."""
    row = isa.lookup(name)
    return (MACHINES[row.machine], row.bits, row.endian)


@contextlib.contextmanager
def files(contents: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """Write files to a folder of their own; yields their paths."""
    with tempfile.TemporaryDirectory(prefix="course-isa-") as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
            (Path(folder) / name).chmod(0o755)
        yield {name: str(Path(folder) / name) for name in contents}


def judge_file(trial: Trial, path: str, want: Kind | None, *, what: str) -> None:
    """Compare one answer with the header."""
    done = trial.attempt(path)
    if want is None and done.outcome.name == "RAISED":
        trial.wrong("raises-on-others", f"{what}: isa_of raised {done.error}: {done.detail}", "Such files give None.")
    got = trial.call(path, none_is_an_answer=want is None or want[2] == "big")
    got = tuple(got) if isinstance(got, list) else got
    if got == want:
        return
    head = Path(path).read_bytes()[:20].hex(" ")
    shown = f"{what}, first 20 bytes {head or '(none)'}: expected {want}, obtained {shorten(got)}."
    if want is None:
        trial.wrong("accepts-others", shown, "The first four bytes of every ELF file are 7f 45 4c 46.")
    if got is None and want[2] == "big":
        trial.wrong(
            "always-little",
            shown,
            "Byte 5 says in which order the numbers of the header are written, e_machine included.",
        )
    if isinstance(got, tuple) and len(got) == 3:
        if got[0] == want[0] and got[2] == want[2]:
            trial.wrong("class-ignored", shown, "Byte 4 says 32 or 64 bits; the machine number alone does not.")
        if got[:2] == want[:2]:
            trial.wrong("endian-ignored", shown, "Byte 5 is 1 for little endian, 2 for big endian.")
        if got[0] != want[0] and got[0] in Path(path).name:
            trial.wrong("believes-the-name", shown, "A name can be anything. The header is what the kernel reads.")
    trial.wrong("wrong-kind", shown, "e_machine is the 16-bit number at offset 18.")


@isa_of.step("programs of four machines are told apart")
def _four(trial: Trial) -> None:
    names = ["x86_64", "x86", "ppc", trial.rng.choice(["aarch64", "riscv64"])]
    with files({f"program{at}": isa.hello(name) for at, name in enumerate(names)}) as paths:
        for path, name in zip(paths.values(), names, strict=True):
            judge_file(trial, path, kind_of(name), what=f"a program for {isa.lookup(name).title}")


@isa_of.step("a file that is no ELF program gives None")
def _none(trial: Trial) -> None:
    with files({"script": b"#!/bin/sh\necho hello\n"}) as paths:
        judge_file(trial, paths["script"], None, what="a shell script")


# ── parse_record ────────────────────────────────────────────────────────────────────────────────────────────────────

parse_record = Exercise("parse_record")
RECORD_ISAS = ("ppc", "x86", "x86_64", "aarch64")


def dumped(name: str, values: dict[str, Any]) -> bytes:
    """What a program of `name` writes; made by running it, or, without its emulator, from its C layout."""
    try:
        return isa.run(isa.record(name, values["tag"], values["weight"], values["delta"], values["serial"])).stdout
    except CapabilityError:
        row, layout = isa.lookup(name), record_layout(name)
        order = "<" if row.endian == "little" else ">"
        blob = bytearray(layout.size)
        struct.pack_into(order + "b", blob, layout.tag, values["tag"])
        struct.pack_into(order + "d", blob, layout.weight, values["weight"])
        struct.pack_into(order + "h", blob, layout.delta, values["delta"])
        struct.pack_into(order + ("i" if row.bits == 32 else "q"), blob, layout.serial, values["serial"])
        return bytes(blob)


def some_values(rng: random.Random) -> dict[str, Any]:
    """A record whose numbers show every mistake: negative, and different in every byte."""
    return {
        "tag": rng.randrange(65, 91),
        "weight": -rng.randrange(1, 10**6) / 64,
        "delta": -rng.randrange(300, 30000),
        "serial": -rng.randrange(1 << 24, 1 << 30),
    }


def judge_record(trial: Trial, name: str, values: dict[str, Any]) -> None:
    """Compare all four members; recognise order, layout and sign."""
    blob = dumped(name, values)
    got = trial.call(blob, name)
    if not isinstance(got, dict):
        trial.wrong("not-a-dict", f"{name}: obtained {shorten(got)}.", f"Return a dict with the keys {list(values)}.")
    if {key: got.get(key) for key in values} == values:
        return
    key = next(key for key in values if got.get(key) != values[key])
    row, layout = isa.lookup(name), record_layout(name)
    shown = (
        f"{name} ({row.endian} endian, {row.bits} bits) wrote {blob.hex(' ')}\n"
        f"{key}: expected {values[key]!r}, obtained {shorten(got.get(key))}"
    )
    if key not in got:
        trial.wrong("member-missing", shown, f"Return a dict with the keys {list(values)}.")
    size = {"delta": 2, "serial": row.word_bytes}.get(key, 0)
    if size and got[key] == values[key] % (1 << 8 * size):
        trial.wrong("unsigned", shown, "short and long are signed in C.")
    if key == "serial" and got[key] == values[key] % (1 << 32):
        trial.wrong("unsigned", shown, "long is signed in C.")
    raw = blob[getattr(layout, key) :][: {"weight": 8, "delta": 2, "serial": row.word_bytes}.get(key, 1)]
    other = {"weight": "d", "delta": "h", "serial": "i" if row.bits == 32 else "q"}.get(key, "b")
    swapped = struct.unpack((">" if row.endian == "little" else "<") + other, raw)[0]
    if got[key] == swapped or (isinstance(got[key], float) and math.isnan(got[key]) and math.isnan(swapped)):
        trial.wrong("native-order", shown, f"{name} is {row.endian} endian. Which sign says so in a struct format?")
    if name == "x86":
        trial.wrong(
            "double-alignment",
            f"{shown}\nweight lies at offset {layout.weight} there, the whole struct has {layout.size} bytes",
            "The C compiler of 32-bit x86 Linux aligns a double inside a struct to 4 bytes, all others to 8.",
        )
    if key == "serial":
        trial.wrong("long-size", shown, "A long is as wide as an address, and aligned to its own width.")
    trial.wrong("layout", shown, "Each member starts at a multiple of its alignment. Write the offsets down.")


@parse_record.step("a struct is read as its machine wrote it")
def _records(trial: Trial) -> None:
    for name in RECORD_ISAS:
        judge_record(trial, name, some_values(trial.rng))


# ── density ─────────────────────────────────────────────────────────────────────────────────────────────────────────

density = Exercise("density")


def true_density(text: bytes, name: str) -> float:
    """Bytes per decoded instruction of a section; bytes that are no instruction are stepped over."""
    unit = {"x86": 1, "x86_64": 1, "riscv32": 2, "riscv64": 2, "s390x": 2, "m68k": 2}.get(name, 4)
    at = used = count = 0
    while at < len(text):
        before = at
        for found in decode(text[at:], name, 0):
            used, count, at = used + len(found.code), count + 1, at + len(found.code)
        at += unit if at == before or at < len(text) else 0
    return used / count


def some_program(rng: random.Random, name: str, *, hole: bool = False) -> bytes:
    """An ELF file with random code in ``.text``, perhaps with data amid it, and more data behind it."""
    lines = {
        "ppc": ["addi r3, r3, {n}", "add r3, r4, r5", "lwz r3, 8(r1)", "blr"],
        "aarch64": ["add w0, w1, w2", "mov w1, {n}", "ldr x0, [sp, #8]", "ret"],
        "riscv64": ["addi a0, a1, {n}", "add a0, a1, a2", ".half 0x852e", ".half 0x9532", "ret"],
        "x86_64": ["mov eax, {n}", "push rbx", "add eax, ecx", "mov rax, [rsp+{n}]", "ret"],
        "x86": ["mov eax, {n}", "push ebx", "add eax, ecx", "mov eax, [esp+{n}]", "ret"],
    }[name]
    body = [rng.choice(lines).format(n=rng.randrange(1, 100)) for _ in range(rng.randrange(200, 400))]
    text = isa.assemble("\n".join(body), name)
    if hole:  # a table of addresses, as compilers put it between functions: no instruction on any of these machines
        filler = {"ppc": b"\x00" * 4, "aarch64": b"\x00" * 4, "riscv64": b"\x00" * 4}.get(name, b"\x06" * 4)
        text = text[:80] + filler * 12 + isa.assemble("\n".join(body[::-1]), name)
    return with_sections(name, {".text": text, ".rodata": rng.randbytes(3000), ".data": rng.randbytes(2000)})


def judge_density(trial: Trial, content: bytes, name: str, what: str, tolerance: float = 0.02) -> None:
    """Compare with our own count."""
    with files({"program": content}) as paths:
        offset, size, _ = isa.facts(paths["program"]).sections[".text"]
        text = content[offset : offset + size]
        want, got = true_density(text, name), trial.call(paths["program"], name)
    if not isinstance(got, int | float) or isinstance(got, bool):
        trial.wrong("not-a-number", f"{what}: obtained {shorten(got)}.", "Bytes per instruction is one number.")
    if math.isclose(got, want, rel_tol=tolerance):
        return
    decoded = list(decode(text, name, 0))
    shown = f"{what}: expected {want:.3f} bytes per instruction, obtained {got:.3f}."
    if math.isclose(got, 1 / want, rel_tol=tolerance):
        trial.nearly("inverse", f"{shown} That is instructions per byte.", "Which of the two is divided by the other?")
    if decoded and math.isclose(got, len(text) / len(decoded), rel_tol=tolerance):
        done = sum(len(i.code) for i in decoded)
        trial.wrong(
            "stops-at-data",
            f"{shown} The disassembler stopped after {done} of {len(text)} bytes, at data amid the code.",
            "Count only bytes that were decoded, or let capstone skip what is none: Cs.skipdata.",
        )
    if got > want:
        trial.wrong(
            "counts-data",
            f"{shown} The file has {len(content)} bytes, its .text section {size}.",
            "Only the .text section holds instructions.",
        )
    trial.wrong("wrong-density", shown, "How many bytes did you count, and how many instructions?")


@density.step("bytes per instruction of a small program are counted in its .text section")
def _density(trial: Trial) -> None:
    for name in ("ppc", "x86_64", "riscv64"):
        judge_density(trial, some_program(trial.rng, name), name, f"a program for {isa.lookup(name).title}")


# ── run_anywhere ────────────────────────────────────────────────────────────────────────────────────────────────────

run_anywhere = Exercise("run_anywhere", deadline_s=20.0)


@contextlib.contextmanager
def witnessed_emulators(names: Sequence[str]) -> Iterator[Path]:
    """Put recording stand-ins for the emulators first on the PATH; yields the record, one started emulator a line."""
    with tempfile.TemporaryDirectory(prefix="course-isa-") as folder:
        record = Path(folder) / "record"
        record.touch()
        for name in names:
            real = isa.emulator(name)
            script = Path(folder) / real.name
            script.write_text(f'#!/bin/sh\necho {real.name} >> {record}\nexec {real} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield record
        finally:
            os.environ["PATH"] = before


def judge_run(trial: Trial, name: str, message: str, status: int, arguments: Sequence[str]) -> None:
    """Run one program through the answer and watch which emulators it starts."""
    installed = [other for other in isa.ISAS if _has(other)]
    trial.expect(name in installed, "no-emulator", f"qemu-{isa.lookup(name).suffix} is not installed here.")
    with files({"program": isa.hello(name, message, status)}) as paths, witnessed_emulators(installed) as record:
        got = trial.call(paths["program"], list(arguments))
        started = record.read_text().split()
    want = (status + len(arguments), message.encode())
    got = tuple(got) if isinstance(got, list) else got
    what = f"a program for {isa.lookup(name).title} with arguments {list(arguments)}"
    shown = f"{what}: expected {want}, obtained {shorten(got)}; emulators started: {started or 'none'}."
    if isinstance(got, tuple) and len(got) == 2:
        if got[1] == want[1] and got[0] != want[0]:
            lost = got[0] == 0 or got[0] == status
            trial.wrong(
                "status-lost" if got[0] == 0 else "arguments-lost" if lost else "wrong-status",
                shown,
                "The exit status counts the arguments here: both have to pass through.",
            )
        if got == (want[0], message):
            trial.nearly("text-for-bytes", shown, "A program's output is bytes; do not decode it.")
    trial.expect(got == want, "wrong-result", shown, "What does the program's header say, and what did you start?")
    suffix = isa.lookup(name).suffix
    others = [s for s in started if s.removesuffix("-static") != f"qemu-{suffix}"]
    if others or len(started) > 1:
        trial.wrong(
            "trial-and-error",
            f"{shown} The right result came after trying.",
            "A program may delete files or send mail each time it is started. Look at the header first.",
        )


def _has(name: str) -> bool:
    try:
        isa.emulator(name)
    except CapabilityError:
        return False
    return True


def runnable() -> list[str]:
    """ISAs whose programs can run here by an emulator, foreign ones first."""
    return sorted((name for name in isa.ISAS if _has(name)), key=is_native)


@run_anywhere.step("three foreign programs run, with their output and exit status")
def _foreign(trial: Trial) -> None:
    for name in trial.rng.sample([name for name in runnable() if not is_native(name)], 3):
        judge_run(trial, name, f"here is {name}\n", trial.rng.randrange(1, 100), ["a"] * trial.rng.randrange(1, 4))
