"""Guests that use instructions which ring 3 executes silently, built from pieces whose meaning is known.

An instruction is *sensitive* when it tells or changes what a VMM has to virtualize: the interrupt flag, the ring, where
tables lie. It is *silent* when ring 3 executes it without a trap. `Builder` writes guests for a perfect machine in ring
0 and keeps, beside the bytes, where the sensitive instructions are, where data lies, and what the guest will compute
there: no decoder is asked.

Source: Popek and Goldberg, CACM 17(7), 1974; Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a
Secure Virtual Machine Monitor", USENIX Security 2000, table 2.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from ..isa.assembler import symbols
from .cpu import START

SILENT = ("pushfq", "popfq", "sgdt", "sidt", "sldt", "str", "smsw", "mov from cs")
"""The sensitive instructions that the guests here use, and that no trap announces."""
_PUSHF, _POPF = ".byte 0x9c", ".byte 0x9d"
_OUT = ".byte 0xe7, 0xe9"  # out 0xe9, eax
_OUT_BYTE = ".byte 0xe6, 0xe9"  # out 0xe9, al


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest and the truth about it.

    Attributes:
        code: its image.
        base: where the image lies.
        data: ranges of addresses (begin, end) in the image that hold no instructions.
        sensitive: address → bytes of each silent sensitive instruction.
        result: ``eax`` at its end on a perfect machine.
        output: what it sends there.
    """

    code: bytes
    base: int
    data: list[tuple[int, int]]
    sensitive: dict[int, bytes]
    result: int
    output: bytes

    def about(self) -> dict[str, Any]:
        """Return what an exercise is told: code, base and data, as plain data."""
        return {"code": self.code, "base": self.base, "data": list(self.data)}


class Builder:
    """Writes a guest, piece by piece. It keeps a sum in ``ebx``, into which each piece mixes a value.

    Args:
        rng: chooses values.
        base: where the image will lie.
    """

    def __init__(self, rng: random.Random, base: int = START) -> None:
        self.rng = rng
        self.base = base
        self.sum = 0
        self._lines: list[str] = ["xor ebx, ebx"]
        self._names = 0
        self._output = b""

    def add(self, text: str) -> None:
        """Append assembly."""
        self._lines.append(text)

    def sensitive(self, text: str) -> None:
        """Append one silent sensitive instruction."""
        self._marked("s", text)

    def data(self, *directives: str) -> str:
        """Append data where the guest does not execute it; returns its label."""
        return self._marked("d", "\n".join(directives))

    def label(self) -> str:
        """Return a name that is not used yet."""
        self._names += 1
        return f"l{self._names}"

    def _marked(self, kind: str, text: str) -> str:
        name = f"{kind}_{self.label()}"
        self._lines.append(f"{name}:\n{text}\n{name}_end:")
        return name

    def mix(self, value: int) -> int:
        """Mix ``eax`` into the sum, both in the guest and here, where it is known to be `value`."""
        self.add("imul ebx, ebx, 31\nadd ebx, eax")
        self.sum = (self.sum * 31 + value) & 0xFFFFFFFF
        return value

    # ── pieces; each leaves a value in eax that it returns ──────────────────────────────────────────────────────────

    def flags(self) -> int:
        """Set IF by popf, and look at it by pushf."""
        wanted = self.rng.choice((0x002, 0x202))
        self.add(f"push {wanted}")
        self.sensitive(_POPF)
        self.add("nop" if self.rng.random() < 0.5 else "mov edi, 7")
        self.sensitive(_PUSHF)
        self.add("pop rax\nand eax, 512")
        return self.mix(wanted & 0x200)

    def cli(self) -> int:
        """Set IF by cli or sti, which trap, and look at it by pushf."""
        name = self.rng.choice(("cli", "sti"))
        self.add(name)
        self.sensitive(_PUSHF)
        self.add("pop rax\nand eax, 512")
        return self.mix(0x200 if name == "sti" else 0)

    def ring(self) -> int:
        """Read cs into some register, by one of three encodings."""
        number, name = self.rng.choice([(0, "eax"), (1, "ecx"), (2, "edx"), (6, "esi")])
        prefix = self.rng.choice(("", "0x48, "))
        self.sensitive(f".byte {prefix}0x8c, {0xC8 | number:#x}")
        self.add(f"mov eax, {name}" if number else "nop")
        return self.mix(0x08)

    def task(self, which: int | None = None) -> int:
        """Read the task register, the selector of the LDT, or the machine status word: 0, 1 or 2, or any of them."""
        known = [("0x0f, 0x00, 0xc8", 0), ("0x0f, 0x00, 0xc0", 0), ("0x0f, 0x01, 0xe0", 0x11)]
        code, value = self.rng.choice(known) if which is None else known[which]
        self.add("xor eax, eax")
        self.sensitive(f".byte {code}")
        self.add("and eax, 255")
        return self.mix(value)

    def descriptors(self, which: int | None = None) -> int:
        """Load gdtr or idtr (0 or 1, or any) with something, and store it again: seven or eight bytes each."""
        known = [(0x14, 0x04), (0x1C, 0x0C)]
        load, store = self.rng.choice(known) if which is None else known[which]
        limit, table = self.rng.randrange(1 << 16), self.rng.randrange(1 << 31)
        here, image = self.label(), ""
        self.add(f"jmp {here}")
        image = self.data(f".short {limit}", f".quad {table}")
        seen = self.data(".quad 0", ".short 0")
        self.add(f"{here}:\n.byte 0x0f, 0x01, {load:#x}, 0x25\n.long {image}")
        self.sensitive(f".byte 0x0f, 0x01, {store:#x}, 0x25\n.long {seen}")
        self.add(f"mov eax, [{seen} + 2]")
        return self.mix(table)

    def immediate(self) -> int:
        """Use a number whose bytes look like sensitive instructions."""
        look = [0x9C, 0x9D, 0x0F, 0x01, 0x8C, 0xC8, 0xCC]
        value = int.from_bytes(bytes(self.rng.choices(look, k=3)) + bytes([self.rng.choice((0x9C, 0x9D))]), "little")
        self.add(f"mov eax, {value:#x}")
        return self.mix(value)

    def hidden_data(self, tail: str = "") -> int:
        """Jump over data that looks like code, and read it."""
        look = [self.rng.choice((0x9C, 0x9D)), *self.rng.choices((0x9C, 0x9D, 0x8C, 0xC8), k=3)]
        value = int.from_bytes(bytes(look), "little")
        over = self.label()
        self.add(f"jmp {over}")
        where = self.data(f".long {value:#x}", *([tail] if tail else []))
        self.add(f"{over}:\nmov eax, [{where}]")
        return self.mix(value)

    def over(self, jump: str) -> int:
        """Jump over four bytes of data that look like code, `jump` ending with what jumps; then be sensitive."""
        over = self.label()
        self.add(f"{jump} {over}" if jump[-1].isalpha() else jump)
        self.data(f".byte {', '.join(map(str, self.rng.choices((0x9C, 0x9D, 0x8C, 0xC8), k=4)))}")
        self.add(f"{over}:")
        return self.flags()

    def function(self) -> int:
        """Call a function that does something sensitive; behind its ret is data, then the program goes on."""
        begin, over = self.label(), self.label()
        self.add(f"call {begin}\njmp {over}\n{begin}:")
        value = self.flags()
        self.add("ret")
        self.data(f".byte {', '.join(map(str, self.rng.choices((0x9C, 0x9D, 0xB8, 0xC8), k=5)))}")
        self.add(f"{over}:")
        return value

    def switch(self, rounds: int, tails: Sequence[str]) -> None:
        """Loop over a jump: its table stands behind it, each case does something sensitive, and looks like data."""
        top, following, table = self.label(), self.label(), self.label()
        cases = [self.label() for _ in tails]
        self.add(f"mov ecx, {rounds}\n{top}:\nmov eax, ecx\nand eax, {len(tails) - 1}")
        self.add(f"jmp [{table} + rax*8]")
        self.data(f"{table}: .quad {', '.join(cases)}", tails[0])
        before, values = self.sum, []
        for case, tail in zip(cases, [*tails[1:], ""], strict=True):
            self.add(f"{case}:\npush rcx")
            values.append(self.rng.choice((self.flags, self.task, self.cli, self.immediate))())
            self.add(f"pop rcx\njmp {following}")
            if tail:
                self.data(tail)
        self.add(f"{following}:\ndec ecx\njnz {top}")
        self.sum = before
        for count in range(rounds, 0, -1):
            self.sum = (self.sum * 31 + values[count % len(values)]) & 0xFFFFFFFF

    def build(self) -> Guest:
        """Append the end, which sends the sum, and return the guest."""
        end = f"mov eax, ebx\n{_OUT}\nhlt"
        code, labels = symbols("\n".join([*self._lines, end]), "x86_64", self.base)
        spans = {name: (at, labels[f"{name}_end"]) for name, at in labels.items() if f"{name}_end" in labels}
        sensitive = {
            begin: code[begin - self.base : stop - self.base]
            for name, (begin, stop) in sorted(spans.items(), key=lambda item: item[1])
            if name.startswith("s_")
        }
        data = sorted(span for name, span in spans.items() if name.startswith("d_"))
        return Guest(code, self.base, data, sensitive, self.sum, self._output + self.sum.to_bytes(4, "little"))


_SELF_TEST = """
        xor ebp, ebp
        push 2                      ; flags without IF
{popf}
{pushf}
        pop rax
        test eax, 0x200             ; still set?
        jz flags_right
        inc ebp
        mov eax, 'f'
        jmp flags_told
flags_right:
        mov eax, 'F'
flags_told:
        .byte 0xe6, 0xe9            ; out 0xe9, al
{cs}
        test eax, 3                 ; the ring
        jz ring_right
        inc ebp
        mov eax, 'c'
        jmp ring_told
ring_right:
        mov eax, 'C'
ring_told:
        .byte 0xe6, 0xe9
        .byte 0x0f, 0x01, 0x14, 0x25    ; lgdt [table]
        .long table
{sgdt}
        mov rax, [seen + 2]
        cmp rax, [table + 2]
        jz table_right
        inc ebp
        mov eax, 'g'
        jmp table_told
table_right:
        mov eax, 'G'
table_told:
        .byte 0xe6, 0xe9
        mov edi, 0x9d9c9d9c         ; a number, not instructions
        mov esi, 0x4ece4ece
        add esi, esi
        cmp esi, edi
        jz number_right
        inc ebp
        mov eax, 'n'
        jmp number_told
number_right:
        mov eax, 'N'
number_told:
        .byte 0xe6, 0xe9
        xor eax, eax
        cmp ebp, 0
        jnz done
        inc eax
done:   hlt
d_all:
table:  .short 0x7f
        .quad 0xabcd0
seen:   .quad 0
        .short 0
d_all_end:
"""


def self_test(base: int = START) -> Guest:
    """Return a guest that tests whether its machine is a real one: result 1, or 0 when anything is wrong.

    It sends one letter per test, a capital when all is right: F for popf, C for cs, G for sgdt, N for a number that
    looks like instructions.
    """
    pieces = {
        "popf": _POPF,
        "pushf": _PUSHF,
        "cs": ".byte 0x8c, 0xc8",
        "sgdt": ".byte 0x0f, 0x01, 0x04, 0x25\n.long seen",
    }
    text = _SELF_TEST.format(**{name: f"s_{name}: {piece}\ns_{name}_end:" for name, piece in pieces.items()})
    code, labels = symbols(text, "x86_64", base)
    sensitive = {
        labels[f"s_{name}"]: code[labels[f"s_{name}"] - base : labels[f"s_{name}_end"] - base] for name in pieces
    }
    return Guest(code, base, [(labels["d_all"], labels["d_all_end"])], dict(sorted(sensitive.items())), 1, b"FCGN")


def straight(rng: random.Random, pieces: int = 8) -> Guest:
    """Return a guest that runs from its first byte to its last, jumping only over data; each kind of piece occurs."""
    builder = Builder(rng)
    kinds = [builder.flags, builder.ring, builder.descriptors, builder.immediate, builder.hidden_data, builder.task]
    chosen = [*kinds, *rng.choices([*kinds, builder.cli], k=max(0, pieces - len(kinds)))]
    rng.shuffle(chosen)
    builder.hidden_data()
    for piece in chosen:
        piece()
    return builder.build()


def every_kind(rng: random.Random, base: int = START) -> Guest:
    """Return a guest in which each silent sensitive instruction of the lesson occurs, in any order."""
    builder = Builder(rng, base)
    pieces: list[Callable[[], int]] = [builder.flags, builder.ring, builder.hidden_data, builder.immediate]
    pieces += [functools.partial(builder.task, which) for which in range(3)]
    pieces += [functools.partial(builder.descriptors, which) for which in range(2)]
    rng.shuffle(pieces)
    for piece in pieces:
        piece()
    return builder.build()


def wandering(rng: random.Random, base: int = START) -> Guest:
    """Return a guest that leaves its path in every way: calls, returns, jumps on conditions and on a counter."""
    builder = Builder(rng, base)
    ways: list[Callable[[], int]] = [
        builder.function,
        functools.partial(builder.over, "xor eax, eax\njz"),
        functools.partial(builder.over, "mov ecx, 9\n.byte 0x39, 0xc9\njae"),  # cmp ecx, ecx
        functools.partial(builder.over, "mov ecx, 5\n.byte 0xe2, 4"),
        builder.function,
    ]
    rng.shuffle(ways)
    builder.hidden_data()
    for way in ways:
        way()
    return builder.build()


def switching(rng: random.Random, rounds: int = 24) -> Guest:
    """Return a guest with jump tables among its code, so that whoever sweeps over it loses the instructions' rhythm."""
    builder = Builder(rng)
    tails = [".byte 0xb8", ".byte 0x06", ".byte 0x48, 0xb8", ".byte 0x9c, 0x69"]
    rng.shuffle(tails)
    builder.ring()
    builder.flags()
    builder.hidden_data(".byte 0xb9")
    builder.switch(rounds, tails)
    builder.cli()
    return builder.build()
