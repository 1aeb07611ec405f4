"""A virtio queue's driver, in Python and in machine code, and the port that it replaces."""

import struct

import pytest

from course.error import UsageError
from course.vcpu import virtqueue
from course.vcpu.virtqueue import Driver

MESSAGE = bytes(range(256)) * 4


def device(memory, queue, last):
    """The shortest device: trusts its guest, gives everything back."""
    size = queue["size"]
    (idx,) = struct.unpack_from("<H", memory, queue["avail"] + 2)
    output, writes = b"", []
    while last != idx:
        (head,) = struct.unpack_from("<H", memory, queue["avail"] + 4 + 2 * (last % size))
        flags, at = 1, head
        while flags & 1:
            address, length, flags, following = struct.unpack_from("<QIHH", memory, queue["desc"] + 16 * at)
            output, at = output + memory[address : address + length], following
        writes.append((queue["used"] + 4 + 8 * (last % size), struct.pack("<II", head, 0)))
        last = (last + 1) & 0xFFFF
        writes.append((queue["used"] + 2, struct.pack("<H", last)))
    return {"output": output, "writes": writes, "last": last}


def test_a_guest_sends_a_message_with_one_kick_per_full_ring(engine):
    """16 buffers of 64 bytes through a ring of 8: two kicks and a hlt, on every engine."""
    sent = virtqueue.send(device, MESSAGE, chunk=64, size=8, engine=engine)
    assert (sent.output, sent.kicks, sent.exits, sent.stuck) == (MESSAGE, 2, {"Io": 2, "Hlt": 1}, False)


def test_a_port_takes_an_exit_per_byte_and_a_string_instruction_one(engine):
    """The same message through port 0xe9."""
    loop, string = (virtqueue.ports(MESSAGE, string=string, engine=engine) for string in (False, True))
    assert (loop.output, loop.exits) == (MESSAGE, {"Io": len(MESSAGE), "Hlt": 1})
    assert (string.output, string.exits) == (MESSAGE, {"Io": 1, "Hlt": 1})


def test_a_guest_whose_buffers_do_not_come_back_says_so():
    """A device that never moves used.idx leaves the driver stuck after one kick."""
    sent = virtqueue.send(lambda *_: {"output": b"", "writes": [], "last": 0}, MESSAGE)
    assert (sent.stuck, sent.kicks) == (True, 1)


def test_the_two_drivers_agree_with_the_same_device():
    """Chains, reused descriptors, and counters that pass 65535: what is offered comes out and comes back."""
    driver, last = Driver(8, start=65530, first=5), 65530
    for number in range(6):
        parts = [[b"one"], [b"two", b"three"], [bytes([number])]]
        heads = [driver.offer(*buffer) for buffer in parts]
        done = device(bytes(driver.memory), driver.queue, last)
        assert done["output"] == b"onetwothree" + bytes([number])
        assert [head for head, _ in driver.apply(done["writes"])] == heads
        last = done["last"]
    assert last == driver.idx == (65530 + 18) & 0xFFFF


def test_the_driver_reads_an_element_when_idx_announces_it():
    """A device that moves idx first shows the driver what was there before."""
    driver = Driver(8, first=3)
    driver.offer(b"x")
    element, announce = device(bytes(driver.memory), driver.queue, 0)["writes"]
    assert driver.apply([announce, element]) == [(0, 0)]


def test_nonsense_is_refused():
    """Sizes that are no power of two, messages that do not fit."""
    with pytest.raises(UsageError, match="power of two"):
        Driver(6)
    with pytest.raises(UsageError, match="multiple of 64"):
        virtqueue.send(device, b"x" * 65)
