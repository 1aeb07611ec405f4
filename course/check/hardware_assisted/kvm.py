"""Judgements on `run_guest`: 16-bit guests on the emulated KVM, each with what its run must give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ...vcpu.rawkvm import EXITS
from ..answer import Outcome
from ..exercise import Trial

DEVICE = "fake"
Result = dict[str, Any]
Blame = tuple[Callable[[Result], bool], str, str, str]


@dataclasses.dataclass(frozen=True)
class Program:
    """A guest.

    Attributes:
        words: what it does.
        code: 16-bit machine code, to lie at guest-physical 0x1000.
        output: what must come out.
        exits: the histogram.
        inputs: what its `in` and its loads get.
        blame: (does it explain the result?, misconception, message, hint), the first that fits is told.
        endless: misconception when the answer never comes back.
    """

    words: str
    code: bytes
    output: bytes
    exits: dict[str, int]
    inputs: bytes = b""
    blame: tuple[Blame, ...] = ()
    endless: str = "loop-ignores-the-reason"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text)


_CS: Blame = (
    lambda r: "INTERNAL_ERROR" in r["exits"] and "IO" not in r["exits"],
    "guest-not-where-cs-points",
    "KVM could not even fetch the first instruction.",
    "The address is cs.base + rip. Print sregs.cs.base after KVM_GET_SREGS: a PC begins just below 4 GiB.",
)
_LAST: Blame = (
    lambda r: "HLT" not in r["exits"] and set(r["exits"]) <= {"IO"},
    "last-exit-lost",
    "The HLT that ends the guest is not in the histogram.",
    "It is an exit like the others: count first, then decide what to do.",
)


_LOST_ITS_WAY: Blame = (
    lambda r: "IO" in r["exits"] and bool({"MMIO", "INTERNAL_ERROR", "SHUTDOWN"} & set(r["exits"])),
    "guest-lost-its-way",
    "After an IO exit the guest did not go on with its own next instruction: it met what its code does not hold.",
    "KVM completes the instruction at the next KVM_RUN. Which registers did you change, before the loop or in it?",
)


def alphabet(port: int = 0xE9, first: int = 65, count: int = 26) -> Program:
    """A loop of `count` out instructions."""
    code = b"\xba" + port.to_bytes(2, "little") + _bytes("b0") + bytes([first]) + b"\xee\xfe\xc0\x3c"
    code += bytes([first + count]) + _bytes("75f9f4")  # out dx, al; inc al; cmp al, end; jne to out; hlt
    output = bytes(range(first, first + count))
    blame: tuple[Blame, ...] = (
        _CS,
        _LOST_ITS_WAY,
        (
            lambda r: len(r["output"]) == count and r["output"] == bytes([r["output"][0]]) * count,
            "data-offset-ignored",
            f"There were {count} bytes, all the same: they were read from a place that does not change.",
            "run.io.data_offset says where in the mapping the byte lies; it is not behind the structure.",
        ),
        (
            lambda r: r["output"] == b"" and r["exits"].get("IO") == count,
            "output-lost",
            f"There were {count} IO exits, and no byte was kept.",
            "Which ports does the guest use? Not only one.",
        ),
        (
            lambda r: sum(r["exits"].values()) == 1,
            "one-exit-only",
            "The guest was entered once and left once.",
            "An exit is not the end: answer it and call KVM_RUN again.",
        ),
        _LAST,
    )
    words = f"A loop that sends {count} bytes to port {port:#x}"
    return Program(words, code, output, {"IO": count, "HLT": 1}, blame=blame)


def reader(inputs: bytes) -> Program:
    """Each `in` is answered and its byte is sent out again."""
    code = _bytes("e460 e680") * len(inputs) + b"\xf4"  # in al, 0x60; out 0x80, al
    blame: tuple[Blame, ...] = (
        _CS,
        (
            lambda r: len(r["output"]) > len(inputs),
            "in-taken-for-out",
            "Bytes were kept at exits where the guest wanted to *read*.",
            "run.io.direction tells KVM_EXIT_IO_IN from KVM_EXIT_IO_OUT.",
        ),
        (
            lambda r: set(r["output"]) <= {0, 0xFF} or len(set(r["output"])) == 1,
            "in-not-answered",
            "The guest did not get what inputs holds.",
            "For `in` the VMM writes into the mapping, at data_offset, before the next KVM_RUN.",
        ),
    )
    words = f"{len(inputs)} times: in from port 0x60, out of the same byte to port 0x80"
    return Program(words, code, inputs, {"IO": 2 * len(inputs), "HLT": 1}, inputs, blame)


def words_of_two(value: int) -> Program:
    """`out dx, ax`: two bytes at one exit."""
    code = b"\xb8" + value.to_bytes(2, "little") + _bytes("e742 f4")  # mov ax, value; out 0x42, ax
    blame: tuple[Blame, ...] = (
        (
            lambda r: len(r["output"]) == 1,
            "size-ignored",
            "One byte was kept of an access of two.",
            "run.io.size and run.io.count say how many bytes lie at data_offset.",
        ),
    )
    return Program("One out of 16 bits", code, value.to_bytes(2, "little"), {"IO": 1, "HLT": 1}, blame=blame)


def memory_mapped(inputs: bytes) -> Program:
    """A store and a load where no memory is, then out of what was loaded."""
    code = _bytes("b80080 8ed8 b05a a20000 a00100 e680 f4")  # ds = 0x8000; [0] = 0x5a; al = [1]; out 0x80, al
    blame: tuple[Blame, ...] = (
        (
            lambda r: "HLT" not in r["exits"] or r["exits"].get("MMIO", 0) < 2,
            "mmio-ends-the-guest",
            "The guest was not continued after an access to a place without memory.",
            "MMIO is an exit to be answered, as IO is: run.mmio has address, data, len and is_write.",
        ),
        (
            lambda r: r["output"][:1] == b"\x5a" and r["output"].endswith(inputs[:1]) and len(r["output"]) > 2,
            "mmio-length-ignored",
            "More bytes were kept of the store than the guest stored.",
            "run.mmio.data has room for 8 bytes; run.mmio.len says how many of them are meant.",
        ),
        (
            lambda r: r["output"][:1] == b"\x5a" and r["output"][1:] != inputs[:1],
            "mmio-load-not-answered",
            "The load did not get the byte of inputs.",
            "For a load the VMM writes into run.mmio.data.",
        ),
        (
            lambda r: r["output"] == inputs[:1],
            "mmio-store-lost",
            "The byte that was stored to the device is missing from the output.",
            "When run.mmio.is_write is set, run.mmio.data holds what the guest stored.",
        ),
    )
    words = "A store of 0x5a to 0x80000, a load from 0x80001, and out of what it got to port 0x80"
    return Program(words, code, b"\x5a" + inputs[:1], {"MMIO": 2, "IO": 1, "HLT": 1}, inputs, blame)


def triple_fault() -> Program:
    """An exception without a table of handlers: the processor gives up."""
    code = _bytes("b041 e680 0f011e 0b10 cc 000000000000")  # out 0x80, 'A'; lidt of zeros at 0x100b; int3
    words = "out of 'A', then an exception for which there is no handler"
    return Program(words, code, b"A", {"IO": 1, "SHUTDOWN": 1}, endless="only-hlt-ends")


def judge_run(trial: Trial, program: Program) -> None:
    """Let the answer run the guest and judge output and exits."""
    done = trial.attempt(DEVICE, program.code, program.inputs)
    told = f"{program.words}."
    spent = done.outcome is Outcome.RAISED and done.error == "BudgetSpentError"
    if spent or done.outcome is Outcome.TIMED_OUT:
        trial.wrong(
            program.endless,
            f"{told} run_guest called KVM_RUN again and again; the guest had ended with"
            f" {list(program.exits)[-1]} long before.",
            "Which exits end a guest? Leave the loop at every reason that you do not answer.",
        )
    if done.outcome is Outcome.RAISED and done.error == "OSError":
        trial.wrong(
            "refused-by-kvm",
            f"{told} KVM refused a call: {done.detail}",
            "EINVAL: a value in a structure cannot be. Addresses and sizes of memory are multiples of 4096.",
        )
    got: Any = trial.value_of(done, f'run_guest("{DEVICE}", …)')
    if not (isinstance(got, dict) and set(got) == {"output", "exits"} and isinstance(got["exits"], dict)):
        trial.wrong("wrong-shape", f"run_guest returned {got!r:.80}.", 'Return {"output": bytes, "exits": dict}.')
    trial.expect(
        isinstance(got["output"], bytes),
        "not-bytes",
        f"output is {type(got['output']).__name__}, expected bytes.",
        "Slices of page are bytes, and bytes add up: no number and no text is needed in between.",
    )
    unknown = sorted(str(name) for name in got["exits"] if name not in EXITS.values())
    trial.expect(
        not unknown,
        "unknown-reason",
        f"exits has the keys {', '.join(unknown)}.",
        f"The names are those of rawkvm.EXITS, such as {', '.join(program.exits)}.",
    )
    if (got["output"], got["exits"]) == (program.output, program.exits):
        return
    for explains, misconception, message, hint in program.blame:
        if explains(got):
            trial.wrong(misconception, f"{told} {message}\nThe exits: {got['exits']}.", hint)
    trial.equal(program.output, got["output"], "wrong-output", told, "Print run.io at every exit.")
    trial.equal(program.exits, got["exits"], "wrong-histogram", told, "Count each exit once, by its name in EXITS.")
