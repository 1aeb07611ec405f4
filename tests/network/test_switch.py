"""The learning switch: who gets which frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.network.bucket import Bucket
from course.network.packet import Packet
from course.network.switch import FLOOD_BURST, PASS, Port, Switch, Verdict

from ..cluster.steady import steady

ALL = b"\xff" * 6


def card(number: int) -> bytes:
    """Return a card's address."""
    return b"\x02\0\0\0\0" + bytes((number,))


def frame(src: int, dst: int | None, vlan: int | None = None, data: bytes = b"hello") -> bytes:
    """Return a frame; without a target, for all."""
    tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
    return (ALL if dst is None else card(dst)) + card(src) + tag + b"\x88\xb5" + data


class Bench:
    """A switch with ports whose frames are kept."""

    def __init__(self, *names: str, **options):
        self.switch = Switch("vmbr0", **options)
        self.got = {name: [] for name in names}
        for name in names:
            self.switch.plug(Port(name, lambda out, name=name: self.got[name].append(out) or True))

    def __getitem__(self, name):
        return self.switch.ports[name]

    def send(self, name, data, now=0.0):
        """Send a frame into a port and return what came out where."""
        for out in self.got.values():
            out.clear()
        self.switch.receive(self[name], data, now)
        return {name: list(out) for name, out in self.got.items() if out}


def test_an_unknown_target_is_asked_everywhere_and_then_known():
    """The first frame goes to all but its sender; the answer, and all that follows, to one."""
    bench = Bench("a", "b", "c")
    assert set(bench.send("a", frame(1, 2))) == {"b", "c"}
    assert set(bench.send("b", frame(2, 1))) == {"a"}
    assert set(bench.send("a", frame(1, 2))) == {"b"}


def test_a_card_that_moves_is_found_at_its_new_port():
    """One frame from the new port is enough, as after a migration."""
    bench = Bench("a", "b", "c")
    bench.send("b", frame(2, None))
    assert set(bench.send("a", frame(1, 2))) == {"b"}
    bench.send("c", frame(2, None))
    assert set(bench.send("a", frame(1, 2))) == {"c"}


def test_an_address_is_forgotten_after_its_time():
    """Five minutes of silence, and the target is asked for everywhere again."""
    bench = Bench("a", "b", "c")
    bench.send("b", frame(2, None), now=10)
    assert set(bench.send("a", frame(1, 2), now=310)) == {"b"}
    assert set(bench.send("a", frame(1, 2), now=311)) == {"b", "c"}


def test_a_pulled_cable_is_forgotten_at_once():
    """What was behind an unplugged port is unknown."""
    bench = Bench("a", "b", "c")
    bench.send("b", frame(2, None))
    bench.switch.unplug("b")
    assert set(bench.send("a", frame(1, 2))) == {"c"}


def test_a_frame_for_its_own_port_goes_nowhere():
    """Two cards behind one port need no switch."""
    bench = Bench("a", "b")
    bench.send("a", frame(2, None))
    assert bench.send("a", frame(1, 2)) == {}


def test_virtual_lans_are_worlds_of_their_own():
    """Ports of one tag hear each other, without tags; the trunk hears all, with tags."""
    bench = Bench("a", "b", "c", "trunk")
    bench["a"].tag = bench["b"].tag = 10
    bench["c"].tag = 20
    out = bench.send("a", frame(1, None))
    assert out == {"b": [frame(1, None)], "trunk": [frame(1, None, 10)]}
    assert bench.send("trunk", frame(9, None, 20)) == {"c": [frame(9, None)]}


def test_one_address_in_two_virtual_lans_is_two():
    """The table is by virtual LAN: the same card behind two ports does not move between them."""
    bench = Bench("a", "b", "trunk")
    bench["a"].tag, bench["b"].tag = 10, 20
    bench.send("a", frame(1, None))
    bench.send("b", frame(1, None))
    assert set(bench.send("trunk", frame(9, 1, 10))) == {"a"}
    assert set(bench.send("trunk", frame(9, 1, 20))) == {"b"}


def test_a_tagged_frame_at_a_tagged_port_is_dropped():
    """A guest cannot leave its virtual LAN by putting a tag on its frames."""
    bench = Bench("a", "trunk")
    bench["a"].tag = 10
    assert bench.send("a", frame(1, None, 20)) == {}
    assert bench["a"].drops == {"vlan": 1}


def test_a_trunk_carries_what_it_was_given():
    """Frames of other virtual LANs neither enter nor leave; those without a tag do."""
    bench = Bench("a", "b")
    bench["a"].trunks = {10}
    assert bench.send("a", frame(1, None, 20)) == {}
    assert set(bench.send("a", frame(1, None, 10))) == {"b"}
    assert bench.send("b", frame(2, None, 20)) == {}
    assert set(bench.send("b", frame(2, None))) == {"a"}


def test_a_cable_that_is_out_is_out_both_ways():
    """Nothing comes in and nothing goes out."""
    bench = Bench("a", "b", "c")
    bench["b"].up = False
    assert set(bench.send("a", frame(1, None))) == {"c"}
    assert bench.send("b", frame(2, None)) == {}
    assert bench["b"].drops == {"link down": 2}


def test_a_storm_ends():
    """A port may flood only so much; frames to known cards go on, and so does the time."""
    bench = Bench("a", "b")
    bench.send("b", frame(2, None))
    out = sum(bool(bench.send("a", frame(1, None))) for _ in range(int(FLOOD_BURST) + 500))
    assert out == FLOOD_BURST
    assert bench["a"].drops == {"storm": 500}
    assert set(bench.send("a", frame(1, 2))) == {"b"}
    assert set(bench.send("a", frame(1, None), now=1)) == {"b"}


def test_the_table_is_bounded():
    """A guest that sends from ever new addresses makes the switch forget the oldest, not grow."""
    bench = Bench("a", "b", addresses=100)
    for number in range(1000):
        source = b"\x02" + number.to_bytes(5, "big")
        bench.send("a", ALL + source + b"\x88\xb5", now=number / 1000)
    assert len(bench.switch.table) <= 100
    assert bench.switch.where(b"\x02" + (999).to_bytes(5, "big"), now=1.0) is bench["a"]


def test_a_rate_limits_bytes_each_way():
    """Frames beyond the rate are dropped and counted, at the port that has the limit."""
    bench = Bench("a", "b")
    bench["b"].limit_in, bench["b"].limit_out = Bucket(100, 100), Bucket(100, 100)
    long = frame(1, None, data=bytes(86))
    assert [bool(bench.send("a", long, now)) for now in (0, 0, 1)] == [True, False, True]
    assert [bool(bench.send("b", frame(2, None, data=bytes(86)), now)) for now in (1, 1, 2)] == [True, False, True]
    assert bench["b"].drops == {"rate": 2}


class OnlyOdd:
    """A guard that lets frames with odd data pass, and answers the others."""

    def leaving(self, packet, now):
        """Judge by the last bit."""
        return PASS if packet.frame[-1] & 1 else Verdict(False, "even", frame(2, 1, data=b"\x01"))

    arriving = leaving


def test_a_guard_decides_and_its_answer_goes_back():
    """A refused frame goes nowhere, is counted with the rule, and the guard's answer reaches its sender."""
    bench = Bench("a", "b")
    bench["b"].guard = OnlyOdd()
    assert set(bench.send("a", frame(1, None, data=b"\x01"))) == {"b"}
    assert bench.send("a", frame(1, None, data=b"\x02")) == {"a": [frame(2, 1, data=b"\x01")]}
    assert bench["b"].drops == {"even": 1}
    assert bench.switch.history[-1].drops == (("b", "even"),)


def test_a_spoofed_sender_is_not_learned():
    """A frame that the guard of its own port refuses teaches the switch nothing."""
    bench = Bench("a", "b", "c")
    bench.send("c", frame(3, None, data=b"\x01"))
    bench["a"].guard = OnlyOdd()
    bench.send("a", frame(3, None, data=b"\x02"))
    assert set(bench.send("b", frame(2, 3, data=b"\x01"))) == {"c"}


def test_frames_that_are_too_short_are_dropped():
    """A runt, and a tag that ends too early."""
    bench = Bench("a", "b")
    assert bench.send("a", b"short") == {}
    assert bench.send("a", (frame(1, None, 5)[:16])) == {}
    assert bench["a"].drops == {"runt": 2}


def test_history_tells_who_got_what():
    """Each frame leaves a line: where it came in, where it went, why not elsewhere."""
    bench = Bench("a", "b", "c")
    bench["c"].up = False
    bench.send("a", frame(1, None), now=3.5)
    seen = bench.switch.history[-1]
    assert (seen.time, seen.port, seen.sent, seen.drops) == (3.5, "a", ("b",), (("c", "link down"),))
    assert seen.frame == frame(1, None)


def test_the_table_reads_like_one():
    """People see address, port and age; an empty switch says what it will do."""
    bench = Bench("tap169i0", "eno1")
    assert "no address yet" in bench.switch.describe(0)
    bench.send("tap169i0", frame(1, None), now=1)
    bench["eno1"].tag = 20
    bench.send("eno1", frame(2, None), now=5)
    assert bench.switch.describe(6).splitlines() == [
        "vmbr0: 2 ports, 2 addresses",
        "VLAN  address            port      last seen",
        "-     02:00:00:00:00:01  tap169i0  5 s ago",
        "20    02:00:00:00:00:02  eno1      1 s ago",
    ]


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 5), st.none() | st.integers(1, 5), st.sampled_from([0, 10, 20])),
    max_size=40,
)


@steady
@given(STEPS)
def test_a_frame_never_leaves_its_virtual_lan_nor_returns(steps):
    """Whatever came before: nobody gets its own frame or one of another virtual LAN, and nobody misses one for all."""
    bench = Bench(*"abcd", "trunk")
    tags = {"a": 10, "b": 10, "c": 20, "d": 0}
    for name, tag in tags.items():
        bench[name].tag = tag
    for name, src, dst, vlan in steps:
        tagged = vlan or None
        out = bench.send(name, frame(src, dst, None if tags[name] else tagged))
        lan = tags[name] or vlan
        assert name not in out
        assert all(tags[other] in (0, lan) for other in out if other != "trunk")
        if dst is None:
            assert "trunk" in out
            assert {other for other, tag in tags.items() if tag and tag == lan and other != name} <= set(out)


def test_a_known_target_costs_no_other_port():
    """The counters of a port that has nothing to do with a conversation stay."""
    bench = Bench("a", "b", "c")
    bench.send("a", frame(1, None))
    bench.send("b", frame(2, None))
    before = bench["c"].frames_out
    for _ in range(10):
        bench.send("a", frame(1, 2))
        bench.send("b", frame(2, 1))
    assert bench["c"].frames_out == before
    assert bench["a"].counters() == {
        "frames_in": 11,
        "bytes_in": 11 * 19,
        "frames_out": 11,
        "bytes_out": 11 * 19,
        "dropped": 0,
    }


@pytest.mark.parametrize("data", [b"", bytes(14), ALL * 4])
def test_a_guard_may_be_asked_about_anything(data):
    """What is no IP has no addresses for a filter, and reading it raises nothing."""
    packet = Packet(data.ljust(14, b"\0"))
    assert (packet.version, packet.src) == (0, 0)
