"""Judgements on `ring`: a device's side of a virtio queue, with honest, busy and malicious drivers."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...vcpu import virtqueue
from ...vcpu.virtqueue import Driver
from ..answer import Outcome
from ..compare import shorten
from ..exercise import Trial

KEYS = {"output": bytes, "writes": list, "last": int, "interrupt": bool, "broken": bool}


def judge_shape(trial: Trial, done: Any) -> dict[str, Any]:
    """The result has the keys and types that the lesson asks for."""
    if not isinstance(done, dict) or set(done) != set(KEYS):
        trial.wrong("wrong-shape", f"ring returned {shorten(done)}.", f"Return a dict with the keys {', '.join(KEYS)}.")
    for key, kind in KEYS.items():
        got = done[key]
        if type(got) is not kind and not (kind is list and isinstance(got, tuple)):
            name, wanted = type(got).__name__, kind.__name__
            trial.wrong("wrong-type", f"{key!r} is {name} {shorten(got)}; expected {wanted}.", "Look at the docstring.")
    for write in done["writes"]:
        fits = isinstance(write, tuple | list) and len(write) == 2
        if not (fits and type(write[0]) is int and isinstance(write[1], bytes)):
            trial.wrong("wrong-type", f"A write is {shorten(write)}; expected (address, bytes).", "See the docstring.")
    return done


def kick(trial: Trial, driver: Driver, last: int, what: str) -> dict[str, Any]:
    """Let the answer serve a kick of an honest driver; its result has the right shape and writes where it may."""
    reply = judge_shape(trial, trial.call(bytes(driver.memory), dict(driver.queue), last))
    _judge_honest(trial, reply, what)
    low, high = driver.queue["used"], driver.queue["used"] + 4 + 8 * driver.queue["size"]
    for address, data in reply["writes"]:
        trial.expect(
            low <= address and address + len(data) <= high,
            "writes-elsewhere",
            f"{what} A write of {len(data)} bytes at {address:#x}; the used ring lies at {low:#x} to {high - 1:#x}.",
            "A device may write to the used ring only: which part of the address has to wrap?",
        )
    return reply


def _judge_honest(trial: Trial, reply: dict[str, Any], what: str) -> None:
    trial.expect(
        not reply["broken"],
        "honest-called-broken",
        f"{what} Everything in the queue is as it must be; broken is True.",
        "Which of your tests says no? Look at the limits: a full queue and the last byte of memory are legal.",
    )


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a driver offers before a kick.

    Attributes:
        buffers: each a list of parts.
        quiet: the driver does not want an interrupt.
        wraps: idx goes past 65535 with it.
    """

    buffers: list[list[bytes]]
    quiet: bool = False
    wraps: bool = False


def judge_batch(trial: Trial, driver: Driver, last: int, batch: Batch, what: str) -> int:
    """Offer buffers, kick, and judge output, give-back and interrupt; return the device's new `last`."""
    heads = [driver.offer(*parts, flags=virtqueue.NO_INTERRUPT if batch.quiet else 0) for parts in batch.buffers]
    reply = kick(trial, driver, last, what)
    output = reply["output"]
    _judge_output(trial, batch, output, what)
    back = driver.apply(reply["writes"])
    _judge_back(trial, Given(heads, back, driver, reply["writes"]), what)
    expected = (last + len(heads)) & 0xFFFF
    trial.expect(
        reply["last"] == expected,
        "last-is-wrong",
        f"{what} {len(heads)} buffers were served after last={last}; expected last={expected}, got {reply['last']}.",
        "last counts buffers since the beginning, in 16 bits, as the driver's idx does.",
    )
    wanted = bool(heads) and not batch.quiet
    if reply["interrupt"] != wanted:
        if batch.quiet:
            why, hint = "the driver had set flag 1 in the available ring", "An interrupt is an exit, too: who asked?"
        else:
            why = f"{len(heads)} buffers were given back and the driver had not set flag 1"
            hint = "How does the driver learn that its buffers are free again?"
        name = "interrupts-unasked" if reply["interrupt"] else "never-interrupts"
        trial.wrong(name, f"{what} interrupt is {reply['interrupt']}, but {why}.", hint)
    return int(reply["last"])


def _judge_output(trial: Trial, batch: Batch, output: bytes, what: str) -> None:
    buffers = batch.buffers
    whole = [b"".join(parts) for parts in buffers]
    expected = b"".join(whole)
    if output == expected:
        return
    misconception, hint = "wrong-output", "Print each descriptor that you read: address, length, flags, next."
    if batch.wraps and not output:
        misconception, hint = "counter-does-not-wrap", "idx is smaller than last: 16 bits are used up. Subtract modulo."
    elif output == b"".join(parts[0] for parts in buffers):
        misconception, hint = "chain-ignored", "What does flag 1 of a descriptor say, and the field next?"
    elif output == b"".join(whole[:-1]):
        misconception, hint = "one-short", "idx counts the buffers offered: if it is 1 and last is 0, how many wait?"
    elif output.startswith(expected) and len(output) > len(expected):
        misconception, hint = "one-too-many", "idx says where the next buffer *will* be put: nothing is there yet."
    elif output == b"".join(b"".join(reversed(parts)) for parts in buffers):
        misconception, hint = "chain-reversed", "The head is the first part."
    elif any(output == b"".join(whole[:n]) for n in range(len(whole))):
        misconception, hint = "some-left", "One kick may announce many buffers: serve all that wait."
    trial.equal(expected, output, misconception, f"{what} The device's output is not what was sent.", hint)


@dataclasses.dataclass(frozen=True)
class Given:
    """What came back from the device.

    Attributes:
        heads: that the driver had offered.
        back: elements (head, written) as the driver saw them.
        driver: after the device's writes.
        writes: of the device.
    """

    heads: list[int]
    back: list[tuple[int, int]]
    driver: Driver
    writes: list[tuple[int, bytes]]

    @property
    def turned(self) -> bool:
        """Whether an idx was written with its bytes in the other order."""
        at, idx = self.driver.queue["used"] + 2, self.driver.idx.to_bytes(2, "big")
        return idx != idx[::-1] and (at, idx) in [(address, bytes(data)) for address, data in self.writes]

    @property
    def in_the_end(self) -> list[int]:
        """The heads that stand in the used ring after all writes."""
        size, used = self.driver.queue["size"], self.driver.queue["used"]
        first = self.driver.idx - len(self.heads)
        slots = [(first + n) % size for n in range(len(self.heads))]
        return [virtqueue.ELEMENT.unpack_from(self.driver.memory, used + 4 + 8 * slot)[0] for slot in slots]


def _judge_back(trial: Trial, given: Given, what: str) -> None:
    heads, back = given.heads, given.back
    if [head for head, _ in back] == heads:
        for head, written in back:
            if written:
                trial.nearly(
                    "counts-what-it-read",
                    f"{what} Buffer {head} was given back with {written} bytes *written* by the device.",
                    "The number says how many bytes of the buffer the device has changed; this device only reads.",
                )
        return
    if not given.writes:
        trial.wrong(
            "not-given-back",
            f"{what} The output is right, but nothing was written to the used ring: the driver can never use the"
            f" buffers {heads} again.",
            "Each head goes into the used ring, then used.idx moves.",
        )
    if not back:
        trial.wrong(
            "not-announced",
            f"{what} The used ring was written, but used.idx did not move: the driver does not look.",
            "used.idx is at byte 2 of the used ring.",
        )
    if given.turned:
        trial.wrong(
            "bytes-turned-round",
            f"{what} used.idx should be {given.driver.idx}; its two bytes were written in the other order.",
            "The layout is little-endian, in what you read and in what you write.",
        )
    if len(back) > len(heads):
        trial.wrong(
            "idx-too-far",
            f"{what} {len(heads)} buffers were offered, and used.idx moved by {len(back)} or more.",
            "used.idx counts buffers since the beginning, modulo 2^16; it does not count bytes, or start again.",
        )
    if len(back) == len(heads) and given.in_the_end != heads:
        trial.wrong(
            "element-without-its-head",
            f"{what} The elements of the used ring name {[h for h, _ in back]}; the buffers began at {heads}.",
            "An element holds the number of the descriptor at which the buffer begins, not a place in a ring.",
        )
    if len(back) == len(heads):
        trial.wrong(
            "idx-before-element",
            f"{what} When used.idx moved, the driver read the heads {[h for h, _ in back]}; expected {heads}.",
            "Writes happen in the order of your list, and the driver may look after each. Which must come first?",
        )
    trial.wrong(
        "some-not-given-back",
        f"{what} The driver got back {[h for h, _ in back]}; it had offered {heads}.",
        "Each head that you serve has to come back.",
    )


def judge_guest(trial: Trial, message: bytes, size: int, chunk: int) -> None:
    """A real guest sends a message through the answer; count its exits."""

    def device(memory: bytes, queue: Any, last: int) -> Any:
        reply = judge_shape(trial, trial.call(memory, dict(queue), last))
        _judge_honest(trial, reply, f"Kick at last={last} of a guest that sends {len(message)} bytes.")
        return reply

    done = virtqueue.send(device, message, chunk=chunk, size=size)
    what = f"A guest sent {len(message)} bytes in buffers of {chunk} through a queue of {size}"
    if done.stuck:
        trial.wrong(
            "guest-stuck",
            f"{what}; after kick {done.kicks} the buffers did not come back ({len(done.output)} bytes so far).",
            "The driver looks at used.idx after each kick. Is it equal to what it has offered?",
        )
    if done.output != message:
        name = "ring-does-not-wrap" if done.output[: size * chunk] == message[: size * chunk] else "wrong-output"
        hint = "The second round uses the same entries of the ring again: which entry is number last?"
        trial.equal(message, done.output, name, f"{what}; the output differs.", hint)
    limit = -(-len(message) // 64)
    trial.expect(
        sum(done.exits.values()) <= limit,
        "too-many-exits",
        f"{what}: {sum(done.exits.values())} exits; at most {limit} were allowed.",
        "Serve all that waits at one kick.",
    )


@dataclasses.dataclass(frozen=True)
class Attack:
    """A queue that no honest driver would make.

    Attributes:
        driver: with the malicious entries in place.
        last: the device's own count.
        honest: what honest buffers before the bad one hold: the output may be any prefix, by buffer.
        words: what is wrong with it.
        misconception: of an answer that does not notice.
        hint: where to look.
    """

    driver: Driver
    last: int
    honest: list[bytes]
    words: str
    misconception: str
    hint: str


def judge_attack(trial: Trial, attack: Attack) -> None:
    """The answer must notice, must not crash, hang, or hand out anything of the bad buffer."""
    driver = attack.driver
    done = trial.attempt(bytes(driver.memory), dict(driver.queue), attack.last)
    told = f"A malicious guest: {attack.words}."
    if done.outcome is Outcome.RAISED:
        trial.wrong(
            "guest-crashes-device",
            f"{told} ring raised {done.error}: {done.detail}. A guest has ended its hypervisor.",
            attack.hint,
        )
    if done.outcome in (Outcome.TIMED_OUT, Outcome.DIED, Outcome.NOT_PLAIN):
        trial.wrong(
            "guest-hangs-device",
            f"{told} ring did not come back ({done.outcome.value}). A guest holds its hypervisor up.",
            attack.hint,
        )
    reply = judge_shape(trial, trial.value_of(done, "ring(…)"))
    if not reply["broken"]:
        trial.wrong(
            attack.misconception,
            f"{told} ring did not notice: broken is False, {len(reply['output'])} bytes came out.",
            attack.hint,
        )
    allowed = [b"".join(attack.honest[:n]) for n in range(len(attack.honest) + 1)]
    if reply["output"] not in allowed:
        trial.wrong(
            "leaks-before-it-looks",
            f"{told} broken is True, but {len(reply['output'])} bytes came out that belong to no honest buffer.",
            "Look at the whole chain first, then let its bytes out.",
        )
