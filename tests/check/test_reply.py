"""Replies that were made to keep their reader busy."""

from __future__ import annotations

import sys

import pytest

from course.check import reply

MODULUS = sys.hash_info.modulus


def forged(keys):
    """Return a pickled dict with these integers as keys, which `reply.encode` would take hours to make."""
    parts = [b"\x80\x04}("]
    for key in keys:
        data = key.to_bytes(key.bit_length() // 8 + 1, "little")
        parts.append(b"\x8a" + bytes([len(data)]) + data + b"N")
    return b"".join(parts) + b"u."


@pytest.mark.parametrize(
    "value",
    [
        [number * MODULUS for number in range(100)],
        [complex(1_000_003 * (900 - number), number) for number in range(900)],
        [("key", (number * MODULUS,)) for number in range(100)],
        {"deep": {"er": [[number * MODULUS for number in range(100)]]}},
    ],
    ids=["integers", "complex", "tuples", "nested"],
)
def test_values_with_one_hash_are_refused(value):
    """Whoever counted or sought them would look at each for each."""
    with pytest.raises(reply.NotPlainError, match="the same hash"):
        reply.decode(reply.encode(value))


def test_keys_with_one_hash_do_not_keep_the_reader_busy():
    """A large table is read in a child first, which ends in time."""
    with pytest.raises(reply.NotPlainError, match="the same hash"):
        reply.decode(forged(number * MODULUS for number in range(1, 200_000)))


@pytest.mark.parametrize(
    "value",
    [
        [0] * 100_000,
        [-1, -2] * 1000,
        list(range(50_000)),
        dict.fromkeys(range(50_000)),
        [2**64 - number for number in range(1000)],
        [(number, [number]) for number in range(1000)],
        [number / 7 for number in range(20_000)],
        {2**900 + number for number in range(300)},
        b"x" * 300_000,
    ],
)
def test_honest_replies_cross(value):
    """Many values, equal ones, large ones."""
    assert reply.decode(reply.encode(value)) == value
