"""Answers to `parse_links` and `break_parser`."""

from __future__ import annotations

import os
import struct

from autograder.answers import alternative, mutant
from course.kernel import netlink


def _align(n):
    return (n + 3) & ~3


def _parse(datagrams, *, attribute_align=_align, message_kinds=(16,), errors=True, ack_is_error=False, stop=None):
    links = []
    for datagram in datagrams[:stop]:
        at = 0
        while at < len(datagram):
            size, kind = struct.unpack_from("=IH", datagram, at)
            if kind == 3:
                return links
            if kind == 2 and errors:
                code = -struct.unpack_from("=i", datagram, at + 16)[0]
                if code or ack_is_error:
                    raise OSError(code, os.strerror(code))
            if kind in message_kinds:
                index = struct.unpack_from("=i", datagram, at + 20)[0]
                here = at + 32
                while here < at + size:
                    length, what = struct.unpack_from("=HH", datagram, here)
                    if what == 3:
                        links.append((index, datagram[here + 4 : here + length - 1].decode()))
                    here += max(attribute_align(length), 4)
            at += _align(size)
    return links


@alternative("parse_links")
def offsets(datagrams):
    return _parse(datagrams)


@alternative("parse_links")
def generator(datagrams):
    for datagram in datagrams:
        view = memoryview(datagram)
        while view:
            size, kind, _, _, _ = netlink.HEADER.unpack_from(view)
            body = view[16:size]
            view = view[_align(size) :]
            if kind == 3:
                return
            if kind == 2 and (code := struct.unpack_from("=i", body)[0]):
                raise OSError(-code, "netlink")
            if kind != 16:
                continue
            index, body = struct.unpack_from("=i", body, 4)[0], body[16:]
            while body:
                length, what = struct.unpack_from("=HH", body)
                if what == 3:
                    yield index, bytes(body[4:length]).rstrip(b"\0").decode()
                body = body[_align(length) :]


@alternative("parse_links")
def as_a_dict(datagrams):
    return dict(_parse(datagrams))


@alternative("parse_links")
def with_pyroute2(datagrams):
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    links = []
    for datagram in datagrams:
        for message in MarshalRtnl().parse(datagram):
            header = message["header"]
            if header["type"] == 2 and getattr(header["error"], "code", 0):
                raise OSError(header["error"].code, "netlink")
            if header["type"] == 3:
                return links
            if header["type"] == 16:
                links.append([message["index"], message.get_attr("IFLA_IFNAME")])
    return links


@mutant("parse_links", "first-datagram-only")
def one_datagram(datagrams):
    return _parse(datagrams, stop=1)


@mutant("parse_links", "first-message-only")
def one_message_per_datagram(datagrams):
    links = []
    for datagram in datagrams:
        size, kind = struct.unpack_from("=IH", datagram)
        links += _parse([datagram[:size]])
    return links


@mutant("parse_links", "no-alignment")
def attributes_end_to_end(datagrams):
    return _parse(datagrams, attribute_align=lambda n: n)


@mutant("parse_links", "fixed-offset")
def name_at_36(datagrams):
    links = []
    for datagram in datagrams:
        at = 0
        while at < len(datagram):
            size, kind = struct.unpack_from("=IH", datagram, at)
            if kind == 2 and struct.unpack_from("=i", datagram, at + 16)[0]:
                raise OSError(1, "refused")
            if kind == 16:
                name = datagram[at + 36 : at + size].split(b"\0")[0].decode(errors="replace")
                links.append((struct.unpack_from("=i", datagram, at + 20)[0], name))
            at += _align(size)
    return links


@mutant("parse_links", "every-type-is-a-link")
def whatever_has_a_name(datagrams):
    return _parse(datagrams, message_kinds=(16, 17))


@mutant("parse_links", "looks-inside-attributes")
def searches_four_bytes_at_a_time(datagrams):
    links = []
    for datagram in datagrams:
        at = 0
        while at < len(datagram):
            size, kind = struct.unpack_from("=IH", datagram, at)
            if kind == 3:
                return links
            if kind == 2 and struct.unpack_from("=i", datagram, at + 16)[0]:
                raise OSError(1, "refused")
            if kind == 16:
                index = struct.unpack_from("=i", datagram, at + 20)[0]
                here = at + 32
                while here < at + size:
                    length, what = struct.unpack_from("=HH", datagram, here)
                    if what == 3:
                        links.append((index, datagram[here + 4 : here + length - 1].decode()))
                    nested = what & 0x8000
                    here += 4 if nested else _align(length)
            at += _align(size)
    return links


@mutant("parse_links", "error-ignored")
def refusals_are_the_end(datagrams):
    return _parse(datagrams, errors=False)


@mutant("parse_links", "acknowledgement-raised")
def every_error_message_is_a_refusal(datagrams):
    return _parse(datagrams, ack_is_error=True)


@mutant("parse_links", "other-exception")
def raises_a_value_error(datagrams):
    try:
        return _parse(datagrams)
    except OSError as error:
        raise ValueError(str(error)) from None


@mutant("parse_links", "zero-kept")
def keeps_the_zero(datagrams):
    return [(index, name + "\0") for index, name in _parse(datagrams)]


@mutant("parse_links", "nothing-found")
def wrong_message_type(datagrams):
    return _parse(datagrams, message_kinds=(18,))


@mutant("parse_links", "wrong-fields")
def index_from_the_flags(datagrams):
    return [(0x1043, name) for _, name in _parse(datagrams)]


@mutant("parse_links", "wrong-fields")
def asks_the_c_library(datagrams):
    import socket

    return [(index + 1000, name) for index, name in socket.if_nameindex()]


@mutant("parse_links", "endless")
def never_advances(datagrams):
    at = 0
    while at < len(datagrams[0]):
        pass


@mutant("parse_links", "forgot-return")
def links_forgets_return(datagrams):
    _parse(datagrams)


@mutant("parse_links", "unanswered")
def links_untouched(datagrams):
    raise NotImplementedError


@alternative("break_parser")
def odd_attribute_before_the_name():
    return [netlink.link(7, b"eth0", [netlink.attribute(netlink.IFLA_QDISC, b"abcde")]) + netlink.done()]


@alternative("break_parser")
def name_that_is_not_utf8():
    return [netlink.link(7, b"\xff\xfe") + netlink.done()]


@alternative("break_parser")
def refusal():
    return [netlink.link(1, b"lo"), netlink.failure(16)]


@alternative("break_parser")
def by_hand():
    fixed = struct.pack("=BxHiII", 0, 1, 3, 0, 0)
    body = fixed + struct.pack("=HH5s3x", 9, 6, b"noop\0") + struct.pack("=HH3sx", 7, 3, b"e0\0")
    return [struct.pack("=IHHII", 16 + len(body), 16, 2, 1, 0) + body, struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)]


@mutant("break_parser", "parser-survives")
def this_machine():
    return netlink.dump_links()


@mutant("break_parser", "parser-survives")
def many_interfaces():
    return [b"".join(netlink.link(i, f"eth{i}".encode()) for i in range(1, 60)), netlink.done()]


@mutant("break_parser", "no-kernel-sends-this")
def garbage():
    return [bytes(range(200))]


@mutant("break_parser", "no-kernel-sends-this")
def length_of_zero():
    return [netlink.link(1, b"lo") + struct.pack("=IHHII", 0, 16, 0, 0, 0)]


@mutant("break_parser", "no-kernel-sends-this")
def truncated():
    return [netlink.link(1, b"lo")[:-3]]


@mutant("break_parser", "no-kernel-sends-this")
def no_end():
    return [netlink.link(1, b"lo", [netlink.attribute(6, b"abcde")])]


@mutant("break_parser", "no-kernel-sends-this")
def attribute_of_length_zero():
    return [netlink.link(1, b"lo", [struct.pack("=HH", 0, 9)]) + netlink.done()]


@mutant("break_parser", "not-datagrams")
def one_datagram_without_a_list():
    return netlink.link(7, b"\xff\xfe") + netlink.done()


@mutant("break_parser", "not-datagrams")
def nothing():
    return []


@mutant("break_parser", "unanswered")
def break_untouched():
    raise NotImplementedError
