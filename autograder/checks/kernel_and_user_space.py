"""Hidden checks of lesson 3, *Kernel and user space*."""

from __future__ import annotations

import errno

from course.check import Exercise, Outcome, Trial
from course.check.kernel_objects import (
    Links,
    judge_break,
    judge_links,
    judge_received,
    judge_rescue,
    judge_sent,
    names,
)
from course.check.kernel_programs import judge_count, judge_run, judge_simulated
from course.kernel import netlink, program, tracer
from course.kernel.holder import Held, Holder

make_elf = Exercise("make_elf", hidden=True, varies=True)
count_syscalls = Exercise("count_syscalls", hidden=True)
boundary = Exercise("boundary", hidden=True)
parse_links = Exercise("parse_links", deadline_s=4.0, hidden=True, varies=True)
break_parser = Exercise("break_parser", hidden=True)
send_fd = Exercise("send_fd", hidden=True)
recv_fd = Exercise("recv_fd", hidden=True)
rescue = Exercise("rescue", hidden=True)


# ── make_elf ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@make_elf.step("any bytes can be a message, zero bytes included")
def _any_bytes(trial: Trial) -> None:
    judge_run(trial, b"before\0after\n", trial.rng.randrange(100))
    judge_run(trial, trial.rng.randbytes(trial.rng.randrange(20, 100)), 3)


@make_elf.step("messages up to 200 bytes and exit codes up to 255 work")
def _extremes(trial: Trial) -> None:
    judge_run(trial, trial.rng.randbytes(trial.rng.randrange(130, 200)), trial.rng.randrange(128, 256))
    judge_run(trial, trial.rng.randbytes(200), 255)


@make_elf.step("an empty message is a message")
def _empty(trial: Trial) -> None:
    judge_run(trial, b"", trial.rng.randrange(256))


# ── count_syscalls ────────────────────────────────────────────────────────────────────────────────────────────────────


@count_syscalls.step("a program with a random number of calls is counted")
def _random_calls(trial: Trial) -> None:
    k, m = trial.rng.randrange(2, 40), trial.rng.randrange(2, 40)
    numbers = [110] * k + [39] * m
    trial.rng.shuffle(numbers)
    seen = tracer.run(program.asking(numbers))
    judge_count(trial, seen.stops, {110: k, 39: m, 60: 1}, f"A program made {k} getppid (110) and {m} getpid (39).")


@count_syscalls.step("calls that the kernel does not know are calls")
def _unknown_calls(trial: Trial) -> None:
    unknown, k = trial.rng.randrange(1000, 2000), trial.rng.randrange(2, 9)
    numbers = [39, 39, 39, *[unknown] * k]
    trial.rng.shuffle(numbers)
    seen = tracer.run(program.asking(numbers))
    what = f"A program made {k} calls of number {unknown}, which this kernel answers with ENOSYS (-38)."
    judge_count(trial, seen.stops, {unknown: k, 39: 3, 60: 1}, what)


@count_syscalls.step("results that look like numbers of calls do not confuse the count")
def _confusing_results(trial: Trial) -> None:
    # Made by hand, as a tracer could see it: read returns 1, write returns 0, dup returns 60.
    stops = [{"orig_rax": 59, "rax": 0}]
    counts: dict[int, int] = {}
    for number in trial.rng.choices([0, 1, 32, 257], k=60):
        result = {0: 1, 1: 0, 32: 60, 257: -38}[number]
        stops += [{"orig_rax": number, "rax": -38}, {"orig_rax": number, "rax": result}]
        counts[number] = counts.get(number, 0) + 1
    stops.append({"orig_rax": 231, "rax": -38})
    judge_count(trial, stops, counts | {231: 1}, "Sixty calls with confusing results, then exit_group (231).")


# ── boundary ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@boundary.step("on benches that are disturbed now and then, the costs are found all the same")
def _disturbed(trial: Trial) -> None:
    for _ in range(3):
        judge_simulated(trial, disturbed=True)


# ── parse_links ───────────────────────────────────────────────────────────────────────────────────────────────────────

_ALIGN = "Attributes begin at multiples of 4; their length does not count the padding."


@parse_links.step("forty interfaces in many datagrams are all found, in order")
def _forty(trial: Trial) -> None:
    links = names(trial, 40)
    messages = [_decorated(trial, i, n, odd=False) for i, n in links]
    stream, rest = [], messages
    while rest:
        n = trial.rng.randrange(1, 6)
        stream.append(b"".join(rest[:n]))
        rest = rest[n:]
    judge_links(trial, [*stream, netlink.done()], links, "first-datagram-only", "Only DONE ends the answer.")


@parse_links.step("the name is found wherever it stands among the attributes")
def _anywhere(trial: Trial) -> None:
    links = names(trial, 5, lengths=(3, 7, 11))
    fixed = [netlink.link(i, n.encode(), [netlink.attribute(netlink.IFLA_MTU, bytes(4))]) for i, n in links]
    hint = "Nothing promises that the name comes first: look at the type of each attribute."
    judge_links(trial, [b"".join(fixed), netlink.done()], links, "fixed-offset", hint)
    links = names(trial, 5)
    odd = [_decorated(trial, i, n, odd=True) for i, n in links]
    judge_links(trial, [b"".join(odd), netlink.done()], links, "no-alignment", _ALIGN)


@parse_links.step("messages and attributes of other types are passed over")
def _others(trial: Trial) -> None:
    links = names(trial, 4)
    others = [
        netlink.message(netlink.NOOP, b""),
        netlink.message(netlink.NEWADDR, bytes(8) + netlink.attribute(3, b"label\0")),
        netlink.message(netlink.DELLINK, netlink.IFINFO.pack(0, 1, 77, 0, 0) + netlink.attribute(3, b"gone\0")),
    ]
    stream = []
    for index, name in links:
        stream.append(trial.rng.choice(others) + netlink.link(index, name.encode()))
    stream.insert(2, b"".join(others))
    hint = "Which message types describe an interface that exists?"
    judge_links(trial, [*stream, netlink.done()], links, "every-type-is-a-link", hint)
    # Attribute types carry two flag bits; an unknown attribute may even have the number of the name plus a flag bit.
    nested = netlink.attribute(0x8000 | 18, netlink.attribute(netlink.IFLA_IFNAME, b"inner\0"))
    unknown = netlink.attribute(999, trial.rng.randbytes(7))
    odd = [netlink.link(i, n.encode(), [unknown], [nested]) for i, n in links]
    hint = "What an attribute contains is its own affair: step over it."
    judge_links(trial, [b"".join(odd), netlink.done()], links, "looks-inside-attributes", hint)


@parse_links.step("a refusal is raised, an acknowledgement is not")
def _refusals(trial: Trial) -> None:
    links = names(trial, 2)
    first = b"".join(netlink.link(i, n.encode()) for i, n in links)
    for code in (errno.EPERM, errno.EBUSY):
        done = trial.attempt([first, netlink.failure(code)])
        if done.outcome is Outcome.RETURNED:
            trial.wrong(
                "error-ignored",
                f"The second datagram is an ERROR message with errno {code}; the answer returned {done.value!r}.",
                "A parser that returns half an answer lies. How does Python say that a system call was refused?",
            )
        trial.expect(done.outcome is Outcome.RAISED, "error-ignored", f"On an ERROR message: {done.outcome.value}.")
        if not _is_os_error(done.error):
            trial.nearly(
                "other-exception", f"{done.error} was raised; OSError(errno, …) was asked for, here with errno {code}."
            )
    acknowledged = [first + netlink.failure(0) + netlink.done()]
    hint = "An ERROR message with errno 0 says that all is well."
    judge_links(trial, acknowledged, links, "acknowledgement-raised", hint)


def _is_os_error(name: str) -> bool:
    import builtins  # noqa: PLC0415 - used only here

    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, OSError)


def _decorated(trial: Trial, index: int, name: str, *, odd: bool) -> bytes:
    """Build a link with unrelated attributes around its name; with `odd`, one of odd length stands before it."""
    size = trial.rng.choice([5, 6, 7, 9, 13]) if odd else 8
    before = [netlink.attribute(netlink.IFLA_QDISC, trial.rng.randbytes(size))] if odd else []
    after = [netlink.attribute(netlink.IFLA_ADDRESS, trial.rng.randbytes(6)), netlink.attribute(50, bytes(size))]
    return netlink.link(index, name.encode(), before, after)


# ── break_parser ──────────────────────────────────────────────────────────────────────────────────────────────────────


def reference(datagrams: list[bytes]) -> Links:
    """Parse a dump as the lesson's own answer does."""
    links: Links = []
    for whole in datagrams:
        datagram = whole
        while datagram:
            size, kind, *_ = netlink.HEADER.unpack_from(datagram)
            if kind == netlink.DONE:
                return links
            if kind == netlink.ERROR and (code := -int.from_bytes(datagram[16:20], "little", signed=True)):
                raise OSError(code, "the kernel refused")
            if kind == netlink.NEWLINK:
                index, attributes = netlink.IFINFO.unpack_from(datagram, 16)[2], datagram[32:size]
                while attributes:
                    length, what = netlink.ATTRIBUTE.unpack_from(attributes)
                    if what == netlink.IFLA_IFNAME:
                        links.append((index, attributes[4 : length - 1].decode(errors="surrogateescape")))
                    attributes = attributes[netlink.align(length) :]
            datagram = datagram[netlink.align(size) :]
    return links


@break_parser.step("a parser that follows the rules reads the same stream without harm")
def _reference_reads(trial: Trial) -> None:
    stream = judge_break(trial)
    try:
        reference(stream)
    except OSError:
        return
    except Exception as error:  # the check's own reading must agree, whatever the stream is
        trial.wrong("ambiguous", f"The course's own parser cannot read the stream either: {error!r}.")


# ── send_fd, recv_fd, rescue ──────────────────────────────────────────────────────────────────────────────────────────


@send_fd.step("large and empty contents arrive whole")
def _large(trial: Trial) -> None:
    judge_sent(trial, trial.rng.randbytes(trial.rng.randrange(2 << 20, 3 << 20)))
    judge_sent(trial, b"")


@recv_fd.step("the whole file is hashed, wherever its position is")
def _position(trial: Trial) -> None:
    content = trial.rng.randbytes(trial.rng.randrange(500, 5000))
    judge_received(trial, content, len(content))
    judge_received(trial, content, trial.rng.randrange(1, len(content)))


@recv_fd.step("a large file is read to its end")
def _large_file(trial: Trial) -> None:
    judge_received(trial, trial.rng.randbytes(3 << 20), 0)


@rescue.step("a new file under the same name is not mistaken for the old one")
def _replaced(trial: Trial) -> None:
    random = trial.rng.randbytes
    files = [Held("notes", random(90)), Held("thesis.txt", random(300), replaced_by=random(300)), Held("x", random(9))]
    judge_rescue(trial, files, "thesis.txt", "another-descriptor", "Look at what each descriptor stands for.")


@rescue.step("names that begin or end alike are told apart, whatever the order of the descriptors")
def _alike(trial: Trial) -> None:
    random = trial.rng.randbytes
    files = [Held("log.1", random(50)), Held("my log", random(50)), Held("log", random(50), mode="a"), Held("lo", b"")]
    trial.rng.shuffle(files)
    judge_rescue(trial, files, "log", "name-only-resembles", "Compare whole names, not parts of them.")


@rescue.step("a file that really is called '… (deleted)' is no trap")
def _honest_suffix(trial: Trial) -> None:
    hint = "The kernel appends ' (deleted)' to the name; a person can, too. How many names has the open file?"
    random = trial.rng.randbytes
    alive = Held("report (deleted)", random(80), deleted=False)
    judge_rescue(trial, [alive, Held("report", random(80))], "report", "suffix-in-a-real-name", hint)
    files = [Held("report", random(80), deleted=False), Held("report (deleted)", random(80))]
    judge_rescue(trial, files, "report (deleted)", "suffix-in-a-real-name", hint)


@rescue.step("what the process does not have open, or what is not deleted, is FileNotFoundError")
def _absent(trial: Trial) -> None:
    with Holder([Held("here", b"alive", deleted=False), Held("gone", b"dead")]) as process:
        for name in ("elsewhere", "here"):
            done = trial.attempt(process.pid, str(process.path(name)))
            if done.outcome is Outcome.RETURNED:
                what = "is not deleted" if name == "here" else "is unknown to the process"
                trial.wrong(
                    "found-anything",
                    f"{name!r} {what}; expected FileNotFoundError, got {done.value!r}.",
                    "What does your loop do when no descriptor fits?",
                )
            raised = done.outcome is Outcome.RAISED and done.error == "FileNotFoundError"
            if not raised:
                trial.nearly("other-exception", f"Expected FileNotFoundError, got {done.error}: {done.detail}")
