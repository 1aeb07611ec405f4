"""Netlink in bytes, with pyroute2, the kernel's own dump and the C library as oracles."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from course.check.kernel_objects import truth_of
from course.kernel import flawed, netlink

NAMES = st.binary(min_size=1, max_size=15).filter(
    lambda n: n not in (b".", b"..") and not any(c in b"\0/:" or bytes([c]).isspace() for c in n)
)


@settings(database=None)  # nothing is written where the tests happen to run
@given(st.integers(1, 1 << 30), NAMES, st.lists(st.binary(max_size=20), max_size=3))
def test_pyroute2_reads_what_we_build(index, name, extras):
    """An independent parser finds index and name, whatever stands before the name."""
    before = [netlink.attribute(999, payload) for payload in extras]
    (seen,) = MarshalRtnl().parse(netlink.link(index, name, before))
    found = seen.get_attr("IFLA_IFNAME")
    assert (seen["index"], found if isinstance(found, bytes) else found.encode()) == (index, name)
    netlink.validate([netlink.link(index, name, before) + netlink.done()])


def test_the_kernels_own_dump_obeys_the_rules():
    """What this kernel sends passes the validator, and pyroute2 reads the C library's interfaces in it."""
    datagrams = netlink.dump_links()
    netlink.validate(datagrams)
    kind, links = truth_of(datagrams)
    assert (kind, sorted(links)) == ("links", sorted(socket.if_nameindex()))


def test_the_kernels_own_refusal_obeys_the_rules():
    """A request that the kernel refuses comes back as an ERROR message like those we build."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        kernel.bind((0, 0))
        ask = netlink.message(netlink.GETLINK, netlink.IFINFO.pack(0, 0, 1 << 30, 0, 0), flags=netlink.REQUEST)
        kernel.send(ask)
        datagram = kernel.recv(4096)
    netlink.validate([datagram])
    kind, error = truth_of([datagram])
    assert (kind, error) == ("error", 19)  # ENODEV


def test_a_refusal_is_read_by_pyroute2():
    """Refusals carry their errno; an acknowledgement does not end in an error."""
    assert truth_of([netlink.link(1, b"lo"), netlink.failure(16)]) == ("error", 16)
    assert truth_of([netlink.link(1, b"lo") + netlink.failure(0) + netlink.done()]) == ("links", [(1, "lo")])


_GOOD = netlink.link(3, b"eth0")


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ([], "does not end with"),
        ([_GOOD], "does not end with"),
        ([netlink.done() + _GOOD], "after the end"),
        ([_GOOD[:-2]], "message length"),
        ([_GOOD + b"\0\0"], "2 bytes are left"),
        ([struct.pack("=IHHII", 0, 16, 0, 0, 0)], "message length 0"),
        ([netlink.message(99, b"") + netlink.done()], "message type 99"),
        ([netlink.link(3, b"eth0", [struct.pack("=HH", 0, 9)]) + netlink.done()], "attribute length 0"),
        ([netlink.link(3, b"eth0", [struct.pack("=HH", 99, 9)]) + netlink.done()], "attribute length 99"),
        ([netlink.link(3, b"a/b") + netlink.done()], "no interface name"),
        ([netlink.link(3, b"sixteen-letters-") + netlink.done()], "no interface name"),
        ([netlink.message(netlink.NEWLINK, bytes(16)) + netlink.done()], "0 names"),
    ],
)
def test_what_no_kernel_sends_is_refused(stream, says):
    """Each broken rule is named."""
    with pytest.raises(netlink.MalformedError, match=says):
        netlink.validate(stream)


@settings(database=None)  # nothing is written where the tests happen to run
@given(st.lists(st.binary(max_size=200), max_size=3))
def test_the_validator_survives_garbage(stream):
    """Any bytes are either valid or refused with our own error; nothing else happens."""
    try:
        netlink.validate(stream)
    except netlink.MalformedError:
        return


def test_the_flawed_parser_is_right_on_this_machine():
    """The bug hunt is only fair when the supplied parser works at first sight."""
    assert sorted(flawed.parse_links(netlink.dump_links())) == sorted(socket.if_nameindex())
