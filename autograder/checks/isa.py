"""Hidden checks of lesson 02: the same judges, on more and nastier inputs."""

from __future__ import annotations

import struct

from course import isa
from course.check import Exercise, Trial
from course.check.isa.decoding import FORMS, capstone_says, judge_proof, judge_words, proofs, random_words
from course.check.isa.files import (
    dumped,
    files,
    judge_density,
    judge_file,
    judge_record,
    judge_run,
    kind_of,
    runnable,
    some_program,
    some_values,
)
from course.check.isa.machine_code import (
    MOST_BYTES,
    NAMES,
    double_code,
    judge_affine,
    judge_desync,
    judge_entries,
    judge_natively,
    random_stream,
    sources,
)
from course.check.isa.suspects import SUSPECTS
from course.isa.userland import is_native

__all__ = [
    "affine", "counterexamples", "decode_fixed", "density", "desync", "isa_of", "parse_record", "run_anywhere",
    "two_in_one",
]  # fmt: skip

affine = Exercise("affine", hidden=True)


@affine.step("each function returns 3a + b modulo 2^32 for 50 pairs, and keeps its caller's registers")
def _many(trial: Trial) -> None:
    texts = sources(trial)
    edges = [(0, 0), (1, 0), (0, 1), (0x55555556, 1), (0x80000000, 0x80000000), (0xFFFFFFFF, 0xFFFFFFFF)]
    pairs = edges + [(trial.rng.getrandbits(32), trial.rng.getrandbits(32)) for _ in range(50 - len(edges))]
    for name in NAMES:
        judge_affine(trial, name, texts[name], pairs[: 50 if name == "x86" else 25])


two_in_one = Exercise("two_in_one", hidden=True, varies=True)


@two_in_one.step("both entries return their number whatever the registers hold, here and on a real processor")
def _entries(trial: Trial) -> None:
    code = double_code(trial)
    judge_entries(trial, code, [trial.rng.getrandbits(30) for _ in range(8)])
    judge_natively(trial, code, [0, trial.rng.getrandbits(30)])
    trial.expect(len(code) <= MOST_BYTES, "too-long", f"{len(code)} bytes; at most {MOST_BYTES} are wanted.")


desync = Exercise("desync", hidden=True)


@desync.step("50 random streams meet where capstone says")
def _streams(trial: Trial) -> None:
    for _ in range(50):
        judge_desync(trial, random_stream(trial))
    for _ in range(6):
        judge_desync(trial, trial.rng.randbytes(trial.rng.randrange(6, 24)))
    judge_desync(trial, bytes.fromhex("b8c3909090"))


decode_fixed = Exercise("decode_fixed", hidden=True, varies=True)


@decode_fixed.step("2,000 random words are decoded as capstone does")
def _words(trial: Trial) -> None:
    for name in FORMS:
        judge_words(trial, random_words(trial, name, 1000), name)


counterexamples = Exercise("counterexamples", hidden=True)


@counterexamples.step("each word convicts its suspect, whatever registers it names")
def _convictions(trial: Trial) -> None:
    for name, word in proofs(trial).items():
        judge_proof(trial, name, word, SUSPECTS[name])
        masks = {"addi": 0x03FF0000, "beq": 0x01FF8000, "add": 0x03FFF800}
        order = "little" if name == "beq" else "big"
        value = int.from_bytes(word, "little" if order == "little" else "big")
        for _ in range(5):  # the same evidence with other registers: it must not depend on a lucky field
            other = value & ~masks[name] | trial.rng.getrandbits(32) & masks[name]
            judge_proof(trial, name, other.to_bytes(4, "little" if order == "little" else "big"), SUSPECTS[name])
        target = "riscv32" if name == "beq" else "ppc"
        truth = capstone_says(word, target)
        said = SUSPECTS[name](word)
        trial.expect(said is not None or truth is not None, "agrees", f"{word.hex(' ')} says nothing about {name}.")


isa_of = Exercise("isa_of", hidden=True, varies=True)


@isa_of.step("programs of twelve machines are told apart, under misleading names")
def _twelve(trial: Trial) -> None:
    others = list(isa.ISAS)
    trial.rng.shuffle(others)
    names = {f"hello-{other}-{at}": name for at, (name, other) in enumerate(zip(isa.ISAS, others, strict=True))}
    with files({path: isa.hello(name) for path, name in names.items()}) as paths:
        for path, name in names.items():
            judge_file(trial, paths[path], kind_of(name), what=f"a program for {isa.lookup(name).title}")


@isa_of.step("truncated, empty and foreign files give None")
def _others(trial: Trial) -> None:
    program = isa.hello("ppc")
    windows = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x14C) + bytes(200)
    unknown = bytearray(program)
    unknown[18:20] = struct.pack(">H", 0xFEED)
    contents = {
        "empty": b"", "four": program[:4], "nineteen": program[:19], "windows.elf": windows,
        "script": b"#!/bin/sh\nexit 0\n" + bytes(30), "almost": b"\x7fELG" + program[4:], "unheard-of": bytes(unknown),
    }  # fmt: skip
    with files(contents) as paths:
        for what, path in paths.items():
            judge_file(trial, path, None, what=f"the file {what}")


parse_record = Exercise("parse_record", hidden=True, varies=True)


@parse_record.step("structs of four machines are read, positive and negative")
def _records(trial: Trial) -> None:
    for name in ("ppc", "x86", "x86_64", "aarch64"):
        judge_record(trial, name, some_values(trial.rng))
        judge_record(trial, name, {"tag": 66, "weight": 0.1, "delta": 1, "serial": 0x01020304})
        assert dumped(name, {"tag": 66, "weight": 0.1, "delta": 1, "serial": 5})[0] == 66


density = Exercise("density", hidden=True)


@density.step("programs of five machines, with data before, behind and amid the code")
def _programs(trial: Trial) -> None:
    for name in ("ppc", "aarch64", "riscv64", "x86", "x86_64"):
        judge_density(trial, some_program(trial.rng, name), name, f"a program for {isa.lookup(name).title}")
    for name in ("ppc", "x86_64"):
        content = some_program(trial.rng, name, hole=True)
        judge_density(trial, content, name, f"a program for {isa.lookup(name).title} with a table amid its code")


run_anywhere = Exercise("run_anywhere", hidden=True, deadline_s=20.0)


@run_anywhere.step("programs of every machine run once, with output and exit status")
def _everywhere(trial: Trial) -> None:
    names = runnable()
    trial.rng.shuffle(names)
    for name in names[:8] + [name for name in names[8:] if is_native(name)]:
        text = f"{trial.rng.getrandbits(64):x} é\n"
        judge_run(trial, name, text, trial.rng.randrange(1, 100), ["x"] * trial.rng.randrange(4))
