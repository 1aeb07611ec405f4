"""Answers to `steal`."""

from __future__ import annotations

import struct

from autograder.answers import alternative, mutant


def _one(queue, address, length, *, flags=0, following=0, idx=1, slot=0):
    descriptor = struct.pack("<QIHH", address, length, flags, following)
    return [(queue["desc"] + 16 * slot, descriptor), (queue["avail"], struct.pack("<HHH", 0, idx, slot))]


@alternative("steal")
def sum_is_two_to_the_32(queue, size):
    return _one(queue, size, 0x100000000 - size)


@alternative("steal")
def address_far_above_wraps_alone(queue, size):
    # The last page of the guest's own memory first, then on across its end.
    return _one(queue, size - 16, 0x100000000 - size + 16 + 5)


@alternative("steal")
def second_part_of_a_chain(queue, size):
    rest = (queue["desc"] + 16, struct.pack("<QIHH", size, 0x100000000 - size + 100, 0, 0))
    return [*_one(queue, 0x13000, 8, flags=1, following=1), rest]


@mutant("steal", "device-noticed")
def a_long_buffer(queue, size):
    return _one(queue, size, 48)


@mutant("steal", "device-noticed")
def the_longest_buffer(queue, size):
    return _one(queue, 0x13000, 0xFFFFFFFF - size)


@mutant("steal", "own-memory-only")
def reads_its_own(queue, size):
    return _one(queue, size - 64, 64)


@mutant("steal", "too-far-behind")
def address_of_two_to_the_32(queue, size):
    return _one(queue, 0x100000000, 16)


@mutant("steal", "begins-too-late")
def leaves_a_gap(queue, size):
    return _one(queue, size + 16, 0x100000000 - size - 16)


@mutant("steal", "nothing-served")
def forgets_to_announce(queue, size):
    return _one(queue, size, 0x100000000 - size, idx=0)


@mutant("steal", "outside-its-memory")
def writes_behind_its_memory(queue, size):
    return [*_one(queue, size - 64, 64), (size, b"mine")]


@mutant("steal", "not-writes")
def only_a_length(queue, size):
    return 0x100000000 - size


@mutant("steal", "unanswered")
def steal_untouched(queue, size):
    raise NotImplementedError
