"""Answers to `cpu_busy`."""

from __future__ import annotations

import collections
import re

from .. import alternative, mutant

FIELDS = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]


def _read(text):
    """CPU → field → ticks, zero where the kernel writes no such column."""
    cpus = {}
    for line in text.splitlines():
        name, *ticks = line.split()
        if re.fullmatch(r"cpu\d+", name):
            cpus[name] = dict(zip(FIELDS, [*map(int, ticks), *[0] * 10]))
    return cpus


def _spent(before, after):
    first, second = _read(before), _read(after)
    for cpu in first.keys() & second.keys():
        yield cpu, {f: max(0, second[cpu][f] - first[cpu][f]) for f in FIELDS}


def _busy(before, after, idle=("idle", "iowait"), fields=FIELDS[:8]):
    busy = {}
    for cpu, spent in _spent(before, after):
        total = sum(spent[f] for f in fields)
        busy[cpu] = 100 * (total - sum(spent[f] for f in idle)) / total if total else 0.0
    return busy


@mutant("cpu_busy", "cumulative")
def since_boot(before, after):
    return _busy(re.sub(r"\b\d+\b", "0", before), after)


@mutant("cpu_busy", "iowait-busy")
def iowait_is_busy(before, after):
    return _busy(before, after, idle=("idle",))


@mutant("cpu_busy", "guest-twice")
def all_columns(before, after):
    return _busy(before, after, fields=FIELDS)


@mutant("cpu_busy", "average-of-cpus")
def average(before, after):
    busy = _busy(before, after)
    return sum(busy.values()) / len(busy)


@mutant("cpu_busy", "total-line")
def with_total_line(before, after):
    return {"cpu": 50.0, **_busy(before, after)}


@mutant("cpu_busy", "fraction")
def fraction(before, after):
    return {cpu: percent / 100 for cpu, percent in _busy(before, after).items()}


@mutant("cpu_busy", "user-only")
def user_only(before, after):
    return {cpu: 100 * spent["user"] / (sum(spent[f] for f in FIELDS[:8]) or 1) for cpu, spent in _spent(before, after)}


@mutant("cpu_busy", "steal-idle")
def steal_is_idle(before, after):
    return _busy(before, after, idle=("idle", "iowait", "steal"))


@mutant("cpu_busy", "steal-idle")
def steal_forgotten(before, after):
    return _busy(before, after, fields=FIELDS[:7])


@mutant("cpu_busy", "went-backwards")
def negative_ticks(before, after):
    first, second = _read(before), _read(after)
    busy = {}
    for cpu in first.keys() & second.keys():
        spent = {f: second[cpu][f] - first[cpu][f] for f in FIELDS[:8]}
        total = sum(spent.values())
        busy[cpu] = 100 * (total - spent["idle"] - spent["iowait"]) / total if total else 0.0
    return busy


@mutant("cpu_busy", "no-time")
def divides_by_nothing(before, after):
    return {
        cpu: 100 * (1 - (spent["idle"] + spent["iowait"]) / sum(spent[f] for f in FIELDS[:8]))
        for cpu, spent in _spent(before, after)
    }


@mutant("cpu_busy", "new-cpu")
def every_new_cpu_was_there(before, after):
    first, second = _read(before), _read(after)
    assert all(cpu in first for cpu in second)
    return _busy(before, after)


@mutant("cpu_busy", "cpu-extra")
def lines_in_parallel(before, after):
    rows = [[line.split() for line in text.splitlines() if re.match(r"cpu\d", line)] for text in (before, after)]
    busy = {}
    for old, new in zip(*rows):
        ticks = [max(0, int(b) - int(a)) for a, b in zip(old[1:9], new[1:9])]
        busy[new[0]] = 100 * (1 - (ticks[3] + ticks[4]) / sum(ticks)) if sum(ticks) else 0.0
    return busy


@mutant("cpu_busy", "columns")
def always_ten_columns(before, after):
    for line in before.splitlines():
        if line.startswith("cpu"):
            _, *ticks = line.split()
            assert ticks[9]
    return _busy(before, after)


@mutant("cpu_busy", "cpu-missing")
def first_cpu_only(before, after):
    return {cpu: percent for cpu, percent in _busy(before, after).items() if cpu == "cpu0"}


@mutant("cpu_busy", "not-a-dict")
def list_of_numbers(before, after):
    return list(_busy(before, after).values())


@mutant("cpu_busy", "printed")
def prints(before, after):
    print(_busy(before, after))


@alternative("cpu_busy")
def as_psutil_does(before, after):
    Times = collections.namedtuple("Times", FIELDS)

    def parse(text):
        found = (re.findall(r"\S+", line) for line in text.splitlines() if re.match(r"cpu\d+ ", line))
        return {name: Times(*(int(x) for x in [*ticks, *["0"] * 10][:10])) for name, *ticks in found}

    first, second, result = parse(before), parse(after), {}
    for name, new in second.items():
        if name in first:
            delta = Times(*(max(0, b - a) for a, b in zip(first[name], new)))
            total = sum(delta) - delta.guest - delta.guest_nice
            result[name] = round(100 * (total - delta.idle - delta.iowait) / total, 1) if total else 0.0
    return result


@alternative("cpu_busy")
def one_minus_idle(before, after):
    def rows(text):
        return {w[0]: [int(x) for x in w[1:9]] for w in map(str.split, text.splitlines()) if w and w[0][3:].isdigit()}

    a, b = rows(before), rows(after)
    out = {}
    for cpu in a:
        if cpu in b:
            d = [max(0, y - x) for x, y in zip(a[cpu], b[cpu])]
            out[cpu] = 100.0 - 100.0 * sum(d[3:5]) / sum(d) if any(d) else 0
    return out


@alternative("cpu_busy")
def whole_percent(before, after):
    return {cpu: round(percent) for cpu, percent in _busy(before, after).items()}
