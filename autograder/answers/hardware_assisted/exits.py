"""Answers to `predict_exits` and `count_accesses`."""

from __future__ import annotations

import itertools
import re
from collections import Counter

from autograder.answers import alternative, mutant
from course.vcpu import riscv_guest

MEMORY = 0x200000


def _walk(steps, counts, *, own=False, memory=False, devices=True, once=False, goes_on=False, ending=True, both=False):
    """Add the exits of the steps; return True when the guest has ended."""
    for kind, *rest in steps:
        cause, ends = None, False
        if kind == "repeat":
            for _ in range(1 if once else rest[0]):
                options = {"own": own, "memory": memory, "devices": devices, "once": once, "goes_on": goes_on}
                if _walk(rest[1], counts, **options, ending=ending, both=both):
                    return True
        elif kind == "ecall":
            cause, ends = 10, rest[0] == 0
        elif kind in ("store", "load"):
            outside = rest[0] >= MEMORY
            if (outside and devices) or memory:
                cause, ends = (23 if kind == "store" else 21), kind == "load" and outside
        elif kind in ("read", "write") and rest[0] in ("mstatus", "hgatp"):
            cause, ends = (22 if rest[0] == "hgatp" and not both else 2), True
        elif kind in ("read", "write", "fence") and own:
            cause = 2
        if cause and (ending or not ends):
            counts[cause] += 1
        if ends and not goes_on:
            return True
    return False


def _predict(steps, **mistakes):
    counts = Counter()
    _walk(steps, counts, **mistakes)
    return dict(counts)


@alternative("predict_exits")
def recursive(steps):
    return _predict(steps)


@alternative("predict_exits")
def flattened(steps):
    def flat(inner):
        for step in inner:
            if step[0] == "repeat":
                yield from itertools.chain.from_iterable(flat(step[2]) for _ in range(step[1]))
            else:
                yield step

    table = {"ecall": 10, "load": 21, "store": 23}
    causes = []
    for step in flat(steps):
        if step[0] == "ecall" or (step[0] in ("load", "store") and step[1] >= MEMORY):
            causes.append(table[step[0]])
        elif step[1:] in (("mstatus",), ("hgatp",)):
            causes.append(22 if "hgatp" in step else 2)
        if step == ("ecall", 0) or (causes and step[0] in ("load", "read", "write") and causes[-1] in (2, 21, 22)):
            break
    return {cause: causes.count(cause) for cause in (2, 10, 21, 22, 23)}


@mutant("predict_exits", "privileged-means-exit")
def as_trap_and_emulate(steps):
    return _predict(steps, own=True)


@mutant("predict_exits", "every-store-exits")
def all_accesses(steps):
    return _predict(steps, memory=True)


@mutant("predict_exits", "devices-do-not-exit")
def only_calls(steps):
    return _predict(steps, devices=False)


@mutant("predict_exits", "repeat-counted-once")
def loops_once(steps):
    return _predict(steps, once=True)


@mutant("predict_exits", "goes-on-after-the-end")
def never_ends(steps):
    return _predict(steps, goes_on=True)


@mutant("predict_exits", "last-exit-lost")
def the_end_is_silent(steps):
    return _predict(steps, ending=False)


@mutant("predict_exits", "one-cause-for-both")
def all_illegal(steps):
    return _predict(steps, both=True)


@mutant("predict_exits", "measured-not-predicted")
def runs_the_guest(steps):
    return riscv_guest.histogram(riscv_guest.measure(steps))


def _rounds(steps, *, edge=0, load=21, store=23, repeats=True):
    """Multiply the exits of a repeat: right as long as no guest ends within one."""
    counts = Counter()
    for kind, *rest in steps:
        if kind == "repeat" and repeats:
            for cause, times in _rounds(rest[1], edge=edge, load=load, store=store).items():
                counts[cause] += times * rest[0]
        elif kind == "store" and rest[0] >= MEMORY + edge:
            counts[store] += 1
        elif kind in ("ecall", "load") and (kind == "ecall" or rest[0] >= MEMORY + edge):
            counts[10 if kind == "ecall" else load] += 1
            if kind == "load" or rest[0] == 0:
                break
        elif kind in ("read", "write") and rest[0] in ("mstatus", "hgatp"):
            counts[2 if rest[0] == "mstatus" else 22] += 1
            break
    return dict(counts)


@mutant("predict_exits", "end-stays-in-the-repeat")
def multiplies_the_rounds(steps):
    return _rounds(steps)


@mutant("predict_exits", "first-address-outside-lost")
def outside_is_greater(steps):
    return _rounds(steps, edge=1)


@mutant("predict_exits", "load-and-store-exchanged")
def causes_exchanged(steps):
    return _rounds(steps, load=23, store=21)


@mutant("predict_exits", "repeats-left-out")
def knows_no_repeat(steps):
    return _rounds(steps, repeats=False)


@mutant("predict_exits", "wrong-prediction")
def every_instruction(steps):
    return {10: len(steps), 23: 1}


@mutant("predict_exits", "not-a-histogram")
def only_a_number(steps):
    return sum(_predict(steps).values())


@mutant("predict_exits", "unanswered")
def predict_untouched(steps):
    raise NotImplementedError


LINE = re.compile(r"memory_region_ops_(read|write) .*addr (\S+) value (\S+) .*name '(.*)'")


def _lines(log):
    return [found.groups() for found in map(LINE.match, log.splitlines()) if found]


def _own(log, *, first=1, last=0, value="0xb8"):
    lines = _lines(log)
    begin = next(n for n, line in enumerate(lines) if line[1] == "0x80" and value in line[2])
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == "0xf4")
    return lines[begin + first : end + last]


def _count(lines):
    return dict(Counter(line[3] for line in lines))


@alternative("count_accesses")
def with_a_pattern(log):
    return _count(_own(log))


@alternative("count_accesses")
def with_split(log):
    counts, inside = {}, False
    for line in log.splitlines():
        if not line.startswith("memory_region_ops_"):
            continue
        words, name = line.split(), line.split("'")[1]
        address, value = words[words.index("addr") + 1], words[words.index("value") + 1]
        if address == "0xf4" and inside:
            break
        if inside:
            counts[name] = counts.get(name, 0) + 1
        inside = inside or ("write" in words[0] and (address, value) == ("0x80", "0xb8"))
    return counts


@alternative("count_accesses")
def cut_the_text(log):
    middle = log.split("addr 0x80 value 0xb8 size 1 name 'ioport80'\n", 1)[1]
    return Counter(re.findall(r"^memory_region_ops_.* name '(.*)'$", middle.rsplit("\n", 2)[0], re.MULTILINE))


@mutant("count_accesses", "firmware-counted")
def the_whole_log(log):
    return _count(_lines(log))


@mutant("count_accesses", "marks-counted")
def with_both_marks(log):
    return _count(_own(log, first=0, last=1))


@mutant("count_accesses", "last-mark-counted")
def with_the_last_mark(log):
    return _count(_own(log, last=1))


@mutant("count_accesses", "equal-lines-are-one")
def rep_is_one(log):
    return _count([key for key, _ in itertools.groupby(_own(log))])


@mutant("count_accesses", "reads-forgotten")
def only_writes(log):
    return _count([line for line in _own(log) if line[0] == "write"])


@mutant("count_accesses", "any-write-to-port-80")
def first_post_code(log):
    return _count(_own(log, value="0x"))


@mutant("count_accesses", "any-write-to-port-80")
def marks_are_passed_over(log):
    return _count([line for line in _own(log, value="0x") if line[1] != "0x80"])


@mutant("count_accesses", "any-write-of-b8")
def first_b8(log):
    lines = _lines(log)
    begin = next(n for n, line in enumerate(lines) if line[2] == "0xb8")
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == "0xf4")
    return _count(lines[begin + 1 : end])


@mutant("count_accesses", "line-of-another-kind")
def from_the_last_mark(log):
    rest = log[log.rindex("addr 0x80 value 0xb8") :]
    return _count([line for line in _lines(rest) if line[1] != "0xf4"])


@mutant("count_accesses", "quotes-kept")
def last_word_with_its_quotes(log):
    return dict(Counter(f"'{line[3]}'" for line in _own(log)))


@mutant("count_accesses", "wrong-count")
def first_word_of_the_name(log):
    return dict(Counter(line[3].split()[0] for line in _own(log)))


@mutant("count_accesses", "not-a-dict")
def how_many(log):
    return len(_own(log))


@mutant("count_accesses", "unanswered")
def count_untouched(log):
    raise NotImplementedError
