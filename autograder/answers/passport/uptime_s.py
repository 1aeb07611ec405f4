"""`uptime_s`: read the first number of /proc/uptime."""

import re

from .. import alternative, mutant


@mutant("uptime_s", "unanswered")
def untouched(text):
    raise NotImplementedError


@mutant("uptime_s", "idle-time")
def second_number(text):
    return float(text.split()[1])


@mutant("uptime_s", "text-not-number")
def first_string(text):
    return text.split()[0]


@mutant("uptime_s", "whole-list")
def both_numbers(text):
    return [float(field) for field in text.split()]


@mutant("uptime_s", "lost-decimals")
def whole_seconds(text):
    return int(float(text.split()[0]))


@mutant("uptime_s", "sum")
def sum_of_both(text):
    return sum(float(field) for field in text.split())


@mutant("uptime_s", "printed")
def prints_it(text):
    print(float(text.split()[0]))


@mutant("uptime_s", "forgot-return")
def forgets_return(text):
    float(text.split()[0])


@mutant("uptime_s", "another-number")
def constant(text):
    return 4711.0


@mutant("uptime_s", "raised")
def converts_the_whole_text(text):
    return float(text)


@alternative("uptime_s")
def with_partition(text):
    return float(text.partition(" ")[0])


@alternative("uptime_s")
def with_a_pattern(text):
    return float(re.match(r"[\d.]+", text)[0])


@alternative("uptime_s")
def with_unpacking(text):
    up, _idle = map(float, text.split())
    return up
