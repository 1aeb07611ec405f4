"""What a terminal's client may send, in whatever pieces it comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.vm import console
from course.cluster.vm.console import Keys
from course.error import ClusterError


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 7))
def test_keys_come_through_in_any_pieces(typed: list[bytes], piece: int) -> None:
    """Lengths count bytes; sizes and signs of life between them are no keys."""
    stream = b"1:80:24:" + b"2".join(b"0:%d:%s" % (len(keys), keys) for keys in typed)
    keys = Keys()
    got = b"".join(keys.feed(stream[start : start + piece]) for start in range(0, len(stream), piece))
    assert got == b"".join(typed)


@pytest.mark.parametrize("nonsense", [b"hello", b"0:x:abc", b"9:1:a", b"1:80:24"[:2] + b"\xff", b"0" * 50])
def test_nonsense_is_no_key_and_does_no_harm(nonsense: bytes) -> None:
    """After it, what can be meant is read again."""
    keys = Keys()
    assert keys.feed(nonsense) == b""
    assert keys.feed(b"0:2:ok") in (b"ok", b"")
    assert keys.feed(b"0:2:ok") == b"ok"


def test_ports_are_each_for_one() -> None:
    """A hundred consoles may wait, each for one client and one machine."""
    consoles = console.Consoles()
    waiting = [consoles.wait(100, Path("/none"), "root@pam", "t", terminal=True) for _ in range(100)]
    assert [each.port for each in waiting] == list(range(5900, 6000))
    with pytest.raises(ClusterError, match="unable to find free port"):
        consoles.wait(100, Path("/none"), "root@pam", "t", terminal=True)
    assert consoles.take(5907, 100) is waiting[7]
    for port, vmid in ((5907, 100), (5908, 101)):
        with pytest.raises(ClusterError, match="Connection refused"):
            consoles.take(port, vmid)
