"""Judgements of lesson 3 on what the kernel hands out: links, descriptors, files; for visible and hidden checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from ..kernel import descriptors, flawed, holder, netlink
from .answer import Answer, Outcome, call, call_each
from .compare import shorten
from .exercise import Trial

# ── parse_links ──────────────────────────────────────────────────────────────────────────────────────────────────────

Links = list[tuple[int, str]]


def pairs(got: Any) -> Any:
    """A dict, or pairs as lists, say the same as tuples."""
    if isinstance(got, dict):
        got = list(got.items())
    return [tuple(p) if isinstance(p, list | tuple) else p for p in got] if isinstance(got, list | tuple | set) else got


def judge_links(trial: Trial, datagrams: list[bytes], expected: Links, misconception: str, hint: str) -> None:
    """Let the answer parse a stream; an exception counts as the misconception that the stream was made for."""
    done = trial.attempt(datagrams)
    if done.outcome in (Outcome.RAISED, Outcome.TIMED_OUT, Outcome.DIED):
        trial.wrong(misconception, f"On {len(datagrams)} datagram(s): {done.error}: {done.detail}".rstrip(": "), hint)
    got = pairs(done.value if done.value is not None else trial.call(datagrams))
    if isinstance(got, list) and got == [(i, n + "\0") for i, n in expected] and expected:
        misconception, hint = "zero-kept", "Names in the kernel end with a zero byte; Python strings do not."
    trial.equal(
        expected, got, misconception, f"Number of datagrams: {len(datagrams)}; of interfaces: {len(expected)}.", hint
    )


def names(trial: Trial, count: int, *, lengths: Sequence[int] = range(1, 16)) -> Links:
    """Make up interfaces: rising numbers with gaps, names of the given lengths.

    With lengths of 3, 7 and 11 the attribute needs no padding.
    """
    index, links = 0, []
    for _ in range(count):
        index += trial.rng.randrange(1, 9)
        letters = "".join(trial.rng.choice("abcdefghijklmnopqrstuvwxyz0123456789.-_") for _ in range(14))
        links.append((index, ("n" + letters)[: trial.rng.choice(lengths)]))
    return links


# ── break_parser ─────────────────────────────────────────────────────────────────────────────────────────────────────


def truth_of(datagrams: list[bytes]) -> tuple[str, Any]:
    """Say what a stream means, by pyroute2's parser: ("links", pairs) or ("error", errno)."""
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # noqa: PLC0415 - 0.2 s, only this exercise needs it

    links: Links = []
    for datagram in datagrams:
        for message in MarshalRtnl().parse(datagram):
            kind, error = message["header"]["type"], message["header"]["error"]
            if kind == netlink.ERROR and error is not None and getattr(error, "code", 0):
                return "error", error.code
            if kind == netlink.DONE:
                return "links", links
            if kind == netlink.NEWLINK:
                links.append((message["index"], os.fsdecode(message.get_attr("IFLA_IFNAME"))))
    return "links", links


def judge_break(trial: Trial) -> list[bytes]:
    """Let the answer make a stream, see that it is one, and that the supplied parser fails on it."""
    stream = trial.call()
    well = isinstance(stream, list) and all(isinstance(d, bytes) for d in stream) and bool(stream)
    trial.expect(well, "not-datagrams", f"Expected a list of datagrams (bytes), got {shorten(stream)}.")
    try:
        netlink.validate(stream)
    except netlink.MalformedError as error:
        trial.wrong(
            "no-kernel-sends-this",
            f"The stream breaks the rules of netlink: {error}.",
            "Breaking a parser with garbage proves little. Stay within the rules and use what they allow.",
        )
    kind, truth = truth_of(stream)
    done = call(flawed.parse_links, stream, deadline_s=1.0)
    survived = done.outcome is Outcome.RETURNED and kind == "links" and pairs(done.value) == truth
    trial.expect(
        not survived,
        "parser-survives",
        f"The supplied parser reads your stream correctly: {shorten(truth)}.",
        "Compare it with yours, line by line: what does yours do that it does not?",
    )
    return list(stream)


# ── send_fd and recv_fd ──────────────────────────────────────────────────────────────────────────────────────────────


_CALLS = 12


def leaked(answer: Answer, other: descriptors.Mailbox | descriptors.Dispenser, *arguments: Any) -> str:
    """Call the answer again and again in one child; returns which descriptors it has left open there, or nothing.

    What the child says of itself is compared with what the other end saw when the child came: some descriptors may have
    been on their way out, but a leak grows with each call. A child that waits for the other end cannot hide one; who
    only sends may have ended before it was looked at.
    """
    before = len(other.seen)
    left = call_each(answer, [(other.path, *arguments)] * _CALLS, deadline_s=10.0, descriptors=True).left_open
    if left:
        return ", ".join(f"{count} × {kind}" for kind, count in sorted(left.items()))
    seen = [kinds for kinds in other.seen[before:] if kinds]
    grown = {kind: max(one[kind] for one in seen) - min(one[kind] for one in seen) for kind in set().union(*seen)}
    return ", ".join(f"one {kind} more for each call" for kind, count in sorted(grown.items()) if count > _CALLS // 2)


def judge_sent(trial: Trial, content: bytes) -> None:
    """Receive what the answer sends and judge it."""
    with descriptors.Mailbox() as mailbox:
        trial.call(mailbox.path, content, none_is_an_answer=True)
        deliveries = mailbox.wait(1)
        if not deliveries:
            trial.wrong(
                "nothing-arrived", "The mailbox got no connection.", "What do you connect, and to which address?"
            )
        got = deliveries[0]
        if not got.contents:
            if content and content in got.data:
                trial.wrong("content-in-band", "The bytes came through the socket themselves, without a descriptor.")
            trial.wrong(
                "number-is-not-a-descriptor",
                f"The message was {shorten(got.data)}, and no descriptor came with it.",
                "A number or a path means something only in your process. What does the kernel have to pass on?",
            )
        trial.expect(len(got.contents) == 1, "several", f"{len(got.contents)} descriptors arrived; expected one.")
        trial.expect(
            got.kinds[0].startswith("/memfd:"),
            "not-a-memfd",
            f"The descriptor stands for {got.kinds[0]!r}; expected a memfd, a file that exists in memory only.",
            "os.memfd_create makes one.",
        )
        hint = "Has everything been written before the descriptor leaves?"
        trial.equal(content, got.contents[0], "wrong-content", "The receiver reads another content.", hint)
        left = leaked(trial.answer, mailbox, content)
        trial.expect(
            not left,
            "leak",
            f"After eleven more calls your process still has open: {left}.",
            "Passing a descriptor opens a second one for the receiver. Who closes yours?",
        )


def judge_received(trial: Trial, content: bytes, position: int) -> None:
    """Hand out a descriptor and compare the hash that the answer makes of it."""
    with descriptors.Dispenser(content, position=position) as dispenser:
        got = trial.call(dispenser.path)
        models = [
            (content[position:], "shared-position", "The position in the file is shared with the sender. Where is it?"),
            (b"parcel", "hash-of-the-message", "The message only comes along. Read from the descriptor."),
            *((content[at : at + n], "one-read", "One read returns at most what was asked for. Where is the end?")
              for n in (4096, 1 << 16, 1 << 20) for at in (0, position)),
        ]  # fmt: skip
        if got != hashlib.sha256(content).hexdigest():
            for data, misconception, hint in models:
                if got == hashlib.sha256(data).hexdigest():
                    said = f"Of {len(content)} bytes (position {position}), {len(data)} were hashed."
                    trial.wrong(misconception, said, hint)
        said = f"The SHA-256 of the {len(content)} bytes of the file was expected."
        trial.equal(hashlib.sha256(content).hexdigest(), got, "wrong-hash", said)
        left = leaked(trial.answer, dispenser)
        trial.expect(
            not left,
            "leak",
            f"After eleven more calls your process still has open: {left}.",
            "The kernel opened a new descriptor for you. It stays open until somebody closes it.",
        )


# ── rescue ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def judge_rescue(trial: Trial, files: Sequence[holder.Held], name: str, misconception: str, hint: str) -> None:
    """Let a process hold `files` open; the answer has to bring back the deleted one called `name`."""
    wanted = next(f for f in files if f.name == name and f.deleted)
    with holder.Holder(files) as process:
        done = trial.attempt(process.pid, str(process.path(name)))
        if done.outcome is Outcome.RAISED and done.error == "FileNotFoundError":
            trial.wrong(misconception, f"{name!r} is deleted, but open in the process: {done.detail}", hint)
        got = done.value if done.outcome is Outcome.RETURNED and done.value is not None else trial.call(
            process.pid, str(process.path(name))
        )  # fmt: skip
    if isinstance(got, str):
        trial.wrong("text-not-bytes", f"Expected bytes, got the string {shorten(got)}.", "A file holds bytes.")
    for other in files:
        if got == other.replaced_by and got != wanted.content:
            trial.wrong(
                "opens-the-name",
                f"{name!r} was deleted and a new file took its name; the content of the new one came back.",
                "The name leads to whatever bears it now. What leads to the open file?",
            )
        if got == other.content and other is not wanted:
            said = (
                f"The content of {other.name!r} ({'' if other.deleted else 'not '}deleted) came back; wanted {name!r}."
            )
            trial.wrong(misconception, said, hint)
    trial.equal(wanted.content, got, misconception, f"The content of {name!r} was expected.", hint)
