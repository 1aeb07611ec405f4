"""Visible checks of lesson 3, *Kernel and user space*; the judgements are in `kernel_programs` and `kernel_objects`."""

from __future__ import annotations

import socket

from ..kernel import holder, netlink, program, tracer
from .exercise import Exercise, Trial
from .kernel_objects import judge_break, judge_links, judge_received, judge_rescue, judge_sent, names, pairs
from .kernel_programs import judge_count, judge_layout, judge_native, judge_run, judge_simulated

# ── make_elf ─────────────────────────────────────────────────────────────────────────────────────────────────────────

make_elf = Exercise("make_elf")


@make_elf.step("the file is a static x86-64 executable of at most 400 bytes")
def _elf_layout(trial: Trial) -> None:
    judge_layout(trial, b"Hello, kernel\n", 0)


@make_elf.step("the program writes its message, exits with its code, and asks the kernel for nothing else")
def _elf_runs(trial: Trial) -> None:
    judge_run(trial, b"Hello, kernel\n", 0)
    judge_run(trial, bytes(trial.rng.randrange(32, 127) for _ in range(20)), trial.rng.randrange(1, 100))


# ── count_syscalls ───────────────────────────────────────────────────────────────────────────────────────────────────

count_syscalls = Exercise("count_syscalls", deadline_s=4.0)


@count_syscalls.step("three getppid and an exit are four calls")
def _count_few(trial: Trial) -> None:
    seen = tracer.run(program.asking([110, 110, 110]))
    judge_count(trial, seen.stops, {110: 3, 60: 1}, "A program made 3 getppid (110) and 1 exit (60).")


@count_syscalls.step("small blocks cost many calls, large blocks few")
def _count_copy(trial: Trial) -> None:
    for block, count in ((1, 1000), (1000, 1)):
        seen = tracer.run(program.copying(block, count))
        expected = {0: count, 1: count, 2: 2, 231: 1}
        what = f"A program copied 1000 bytes in blocks of {block}: open (2), read (0), write (1), exit_group (231)."
        judge_count(trial, seen.stops, expected, what)


# ── boundary ─────────────────────────────────────────────────────────────────────────────────────────────────────────

boundary = Exercise("boundary", deadline_s=30.0)


@boundary.step("on a quiet bench with known costs, each is found within 25 %")
def _boundary_quiet(trial: Trial) -> None:
    judge_simulated(trial, disturbed=False)


@boundary.step("on a bench that is disturbed now and then, they are found as well")
def _boundary_disturbed(trial: Trial) -> None:
    judge_simulated(trial, disturbed=True)


@boundary.step("on this machine's CPU, a call costs less than the vDSO, and that less than a system call")
def _boundary_native(trial: Trial) -> None:
    judge_native(trial)


# ── parse_links ──────────────────────────────────────────────────────────────────────────────────────────────────────

parse_links = Exercise("parse_links", deadline_s=4.0)


@parse_links.step("one interface in one datagram is found")
def _links_one(trial: Trial) -> None:
    stream = [netlink.link(1, b"lan") + netlink.done()]
    got = trial.call(stream)
    if got == []:
        trial.wrong("nothing-found", "The datagram holds one interface, lan; the answer is an empty list.")
    judge_links(trial, stream, [(1, "lan")], "wrong-fields", "Look at the drawing: what is at byte 20, what at 32?")


@parse_links.step("several messages in a datagram, and several datagrams, are all read")
def _links_many(trial: Trial) -> None:
    links = names(trial, 3, lengths=(3, 7, 11))
    stream = [b"".join(netlink.link(i, n.encode()) for i, n in links) + netlink.done()]
    hint = "A datagram holds one message after the other: where does the next one begin?"
    judge_links(trial, stream, links, "first-message-only", hint)
    links = names(trial, 6, lengths=(3, 7, 11))
    parts = [b"".join(netlink.link(i, n.encode()) for i, n in links[k : k + 2]) for k in (0, 2, 4)]
    hint = "A long answer comes in several datagrams; only a DONE message ends it."
    judge_links(trial, [*parts, netlink.done()], links, "first-datagram-only", hint)


@parse_links.step("names of every length are read")
def _links_padded(trial: Trial) -> None:
    links = names(trial, 8)
    after = [netlink.attribute(netlink.IFLA_MTU, bytes(4))]
    stream = [b"".join(netlink.link(i, n.encode(), after=after) for i, n in links) + netlink.done()]
    hint = "Attributes begin at multiples of 4; their length does not count the padding."
    judge_links(trial, stream, links, "no-alignment", hint)


@parse_links.step("this machine's interfaces are those that the C library finds")
def _links_live(trial: Trial) -> None:
    if not hasattr(socket, "AF_NETLINK"):
        return
    for retry in (False, True):
        expected, datagrams = socket.if_nameindex(), netlink.dump_links()
        if retry or sorted(pairs(trial.call(datagrams))) == sorted(expected):
            break
    hint = "Print one datagram with .hex(' ', 4) and follow the drawing."
    judge_links(trial, datagrams, [(int(i), n) for i, n in expected], "live-differs", hint)


# ── break_parser ─────────────────────────────────────────────────────────────────────────────────────────────────────

break_parser = Exercise("break_parser")


@break_parser.step("the stream obeys the rules of netlink, and the supplied parser misreads it")
def _broken(trial: Trial) -> None:
    judge_break(trial)


# ── send_fd and recv_fd ──────────────────────────────────────────────────────────────────────────────────────────────

send_fd = Exercise("send_fd")
recv_fd = Exercise("recv_fd")


@send_fd.step("one memfd with the content arrives, and nothing stays open behind it")
def _sent(trial: Trial) -> None:
    judge_sent(trial, trial.rng.randbytes(1000))


@recv_fd.step("the hash of what the descriptor stands for is returned, and nothing stays open")
def _received(trial: Trial) -> None:
    judge_received(trial, trial.rng.randbytes(1000), 0)


# ── rescue ───────────────────────────────────────────────────────────────────────────────────────────────────────────

rescue = Exercise("rescue")


@rescue.step("a deleted file is found among the open files of a process")
def _rescued(trial: Trial) -> None:
    files = [holder.Held(n, trial.rng.randbytes(200)) for n in ("first.log", "thesis.txt", "last.log")]
    hint = "ls -l /proc/PID/fd shows what each descriptor stands for. Which one is yours?"
    judge_rescue(trial, files, "thesis.txt", "another-descriptor", hint)
