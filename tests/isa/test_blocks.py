"""Blocks of translated code: what is let through, and what never is."""

from __future__ import annotations

import pytest

from course.isa import blocks

HEAD = "def block(x, memory, cache):\n    "


def test_a_block_computes():
    """Registers, memory in both directions, signed comparison, the cache."""
    text = (
        HEAD + 'x[5] = int.from_bytes(memory[4:8], "little") + 1 & 0xFFFFFFFF\n'
        '    memory[0:4] = x[5].to_bytes(4, "little")\n    cache.clear()\n    return 8 if signed(x[6]) < 0 else None'
    )
    x, memory, cache = [0] * 32, bytearray(b"\0\0\0\0\1\2\3\4"), {0: None}
    x[6] = 0xFFFFFFFF
    assert blocks.load(text)(x, memory, cache) == 8
    assert (x[5], bytes(memory[:4]), cache) == (0x04030202, b"\2\2\3\4", {})


@pytest.mark.parametrize(
    "body",
    [
        "import os",
        "open('x')",
        "x.__class__",
        "return memory.extend(b'')",
        "return [c for c in x]",
        "return (lambda: 1)()",
        "while True: pass",
        "for n in x: pass",
        "return 9 ** 9 ** 9",
        "return 1 << x[5]",
        "x[5] <<= 100000000",
        "return x * 99999999",
        "return x[5].to_bytes(99999999)",
        "return f'{x}'",
        "return '{0.__class__}'",
        "global y",
        "int = 5",
        "return __builtins__",
        "try: pass\n    except: pass",
        "def inner(): pass",
        "return getattr(x, 'a')",
        "return cache.pop(1)",
        "return (y := 5)",
        "await x",
        "return 1.5",
    ],
)
def test_what_a_block_has_no_use_for_is_refused(body):
    """Names, attributes, statements and large numbers beyond arithmetic are refused before anything runs."""
    with pytest.raises(blocks.BlockError):
        blocks.load(HEAD + body)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import os\n" + HEAD + "return 4", "expected one function"),
        ("def other(x, memory, cache): return 4", "expected one function"),
        ("def block(x, memory): return 4", "expected def block"),
        ("def block(x, memory, cache=open('f')): return 4", "without defaults"),
        ("def block(x: open('f'), memory, cache): return 4", "without annotations"),
        ("@print\n" + HEAD + "return 4", "expected def block"),
        (HEAD + "return (4", "this is no Python"),
        (None, "a block is text"),
        ("#" * 300_000, "characters are too many"),
    ],
)
def test_what_is_no_block_is_named(text, says):
    """The shape of the text is part of the contract."""
    with pytest.raises(blocks.BlockError, match=says):
        blocks.load(text)


def test_signed_numbers():
    """The upper half of 32 bits is negative."""
    assert [blocks.signed(v) for v in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)] == [0, 1, 2**31 - 1, -(2**31), -1]
