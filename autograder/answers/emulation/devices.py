"""Answers to `uart` and `expose`."""

from __future__ import annotations

from collections import deque

from autograder.answers import alternative, mutant
from course import isa


def port(events, flaw=""):
    waiting, replies, sent, busy, overrun = [], [], bytearray(), 0, False
    for kind, *rest in events:
        if kind == "receive":
            if len(waiting) < 4 or flaw == "no limit":
                waiting.append(rest[0])
            else:
                overrun = True
                if flaw == "drops the oldest":
                    waiting = [*waiting[1:], rest[0]]
            continue
        ready, busy = busy == 0 or flaw == "always ready", max(0, busy - 1)
        if kind == "read" and rest[0] == 0:
            where = -1 if flaw == "last first" else 0
            replies.append(waiting.pop(where) if waiting else 0)
        elif kind == "read" and rest[0] == 4:
            replies.append(bool(waiting) + 2 * ready + 4 * overrun)
            if flaw == "status takes" and waiting:
                waiting.pop(0)
            if flaw == "status clears":
                overrun = False
        elif kind == "read":
            replies.append(0)
        elif rest[0] == 0:
            if ready or flaw == "sends while busy":
                sent.append(rest[1] & 0xFF)
                busy = 3
        elif rest[0] == 4 and rest[1] & 4:
            overrun = False
        if kind == "write" and flaw == "replies to writes":
            replies.append(0)
    return {"replies": replies, "sent": bytes(sent)}


@alternative("uart")
def one_loop(events):
    return port(events)


@alternative("uart")
def with_a_class(events):
    class Port:
        def __init__(self):
            self.fifo, self.out, self.clock, self.free, self.lost = deque(), [], 0, 0, 0

        def read(self, offset):
            if offset == 0:
                return self.fifo.popleft() if self.fifo else 0
            return (len(self.fifo) > 0) | (self.clock > self.free) << 1 | self.lost if offset == 4 else 0

        def write(self, offset, value):
            if offset == 0 and self.clock > self.free:
                self.out.append(value % 256)
                self.free = self.clock + 3
            elif offset == 4:
                self.lost &= ~value

    one, replies = Port(), []
    for event in events:
        if event[0] == "receive":
            if len(one.fifo) == 4:
                one.lost = 4
            else:
                one.fifo.append(event[1])
            continue
        one.clock += 1
        if event[0] == "read":
            replies.append(one.read(event[1]))
        else:
            one.write(event[1], event[2])
    return {"replies": replies, "sent": bytes(one.out)}


@mutant("uart", "always-ready")
def always_ready(events):
    return port(events, "always ready")


@mutant("uart", "sends-while-busy")
def sends_while_busy(events):
    return port(events, "sends while busy")


@mutant("uart", "status-takes")
def status_takes(events):
    return port(events, "status takes")


@mutant("uart", "wrong-order")
def last_comes_first(events):
    return port(events, "last first")


@mutant("uart", "no-overrun")
def endless_queue(events):
    return port(events, "no limit")


@mutant("uart", "no-overrun")
def drops_the_oldest(events):
    return port(events, "drops the oldest")


@mutant("uart", "no-overrun")
def reading_status_clears(events):
    return port(events, "status clears")


@mutant("uart", "reply-per-read")
def replies_to_writes(events):
    return port(events, "replies to writes")


@mutant("uart", "empty-is-not-zero")
def nothing_is_minus_one(events):
    done, waiting = port(events), 0
    replies = iter(done["replies"])
    given = []
    for kind, *rest in events:
        waiting += kind == "receive" and waiting < 4
        if kind == "read":
            given.append(next(replies) if waiting or rest[0] else [next(replies), -1][1])
            waiting -= rest[0] == 0 and waiting > 0
    return done | {"replies": given}


@mutant("uart", "other-bits-matter")
def only_the_number_4_clears(events):
    return port([("write", 4, 4 * (e[2] == 4)) if e[:2] == ("write", 4) else e for e in events])


@mutant("uart", "status-sets-ready")
def writing_bit_1_makes_ready(events):
    busy, kept = 0, []
    for event in events:
        kept.append(event)
        if event[0] == "receive":
            continue
        ready, busy = not busy, max(0, busy - 1)
        if event[:2] == ("write", 0) and ready:
            busy = 3
        if event[:2] == ("write", 4) and event[2] & 2:
            kept += [("write", 8, 0)] * busy
            busy = 0
    return port(kept)


@mutant("uart", "lost-byte-restarts")
def a_lost_byte_starts_the_time_again(events):
    busy, replies, done, ready = 0, [], port(events), []
    for event in events:
        if event[0] == "receive":
            continue
        ready.append(not busy)
        busy = max(0, busy - 1)
        if event[:2] == ("write", 0):
            busy = 3
    accesses = [event for event in events if event[0] != "receive"]
    sent = bytes(e[2] & 0xFF for e, now in zip(accesses, ready, strict=True) if e[:2] == ("write", 0) and now)
    states = [now for e, now in zip(accesses, ready, strict=True) if e[0] == "read"]
    for event, now, reply in zip((e for e in accesses if e[0] == "read"), states, done["replies"], strict=True):
        replies.append(reply & ~2 | now << 1 if event[1] == 4 else reply)
    return {"replies": replies, "sent": sent}


@mutant("uart", "receiving-takes-time")
def a_received_byte_is_an_access(events):
    return port([more for e in events for more in ([e, ("write", 8, 0)] if e[0] == "receive" else [e])])


# ── expose ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def sources(r):
    return {
        "carry": f"addi x1, zero, -1\nadd {r}, x1, x1\nebreak",
        "order": f"lui {r}, 0x80000\nblt {r}, zero, end\naddi x2, zero, 1\nend: ebreak",
        "byte": f"addi x2, zero, 255\nsw x2, 256(zero)\nlbu {r}, 256(zero)\nebreak",
        "link": f"addi {r}, zero, 12\njalr {r}, 0({r})\naddi x2, zero, 1\nebreak",
    }


@alternative("expose")
def short_programs(fault, register):
    return isa.assemble(sources(f"x{register}")[fault], "riscv32", 0)


@alternative("expose")
def an_endless_loop_on_the_broken_one(fault, register):
    r = f"x{register}"
    if fault == "order":
        return isa.assemble(
            f"addi {r}, zero, -5\nagain: blt zero, {r}, again\nblt {r}, zero, end\nj again\nend: ebreak", "riscv32", 0
        )
    return short_programs(fault, register)


@mutant("expose", "never-met")
def always_register_5(fault, register):
    return isa.assemble(sources("x4")[fault], "riscv32", 0)


@mutant("expose", "met-and-equal")
def harmless_operands(fault, register):
    r = f"x{register}"
    return isa.assemble(f"add {r}, zero, zero\nblt {r}, zero, end\nlbu {r}, 0(zero)\nend: ebreak", "riscv32", 0)


@mutant("expose", "astray")
def without_an_end(fault, register):
    return isa.assemble(sources(f"x{register}")[fault].replace("ebreak", "nop"), "riscv32", 0)


@mutant("expose", "not-code")
def returns_the_text(fault, register):
    return sources(f"x{register}")[fault]
