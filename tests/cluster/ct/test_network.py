"""Frames of containers: what one sends comes out of another, whichever way its interface is made."""

from __future__ import annotations

import os
import select
import threading

import pytest

from course.cluster.ct import template, tree
from course.cluster.ct.boxed import Boxed
from course.error import CapabilityError, GuestError
from tests.cluster.patience import until

MTU_FRAME = 1514


class Wire:
    """Carries frames between two interfaces, and remembers how long they were."""

    def __init__(self, one: int, two: int) -> None:
        self.lengths: list[int] = []
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(one, two), daemon=True)
        self._thread.start()

    def _run(self, one: int, two: int) -> None:
        other = {one: two, two: one}
        poll = select.poll()
        for handle in (one, two, self._over):
            poll.register(handle, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._over:
                    return
                frame = os.read(handle, 1 << 16)
                self.lengths.append(len(frame))
                os.write(other[handle], frame)

    def close(self) -> None:
        """Pull the wire out."""
        os.write(self._end, b"x")
        self._thread.join()
        os.close(self._over)
        os.close(self._end)


@pytest.fixture(params=["tap", "veth"])
def pair(request, tmp_path):
    """Two containers on one wire."""
    try:
        archive = template.ensure()
        found = []
        for number in (1, 2):
            root = tmp_path / str(number)
            root.mkdir()
            tree.unpack(archive, root)
            found.append(
                Boxed(number, root, hostname=f"ct{number}", run=tmp_path, nets=["eth0"], links=[request.param])
            )
    except (CapabilityError, GuestError) as error:
        pytest.skip(str(error))
    if not all(container.taps for container in found):
        for container in found:
            container.kill()
        pytest.skip(f"no {request.param} interfaces for containers here")
    for number, container in enumerate(found, 1):
        script = f"ip link set eth0 up && ip addr add 10.1.1.{number}/24 dev eth0"
        assert container.exec(["sh", "-c", script]) == (0, b"")
    wire = Wire(*(container.taps["eth0"] for container in found))
    yield (*found, wire)
    wire.close()
    for container in found:
        container.kill()


def test_a_stream_arrives_whole_in_frames_of_the_wires_size(pair):
    """TCP works: checksums are right, and no frame is longer than a wire allows."""
    sender, receiver, wire = pair
    received: list[tuple[int, bytes]] = []

    def receive() -> None:
        script = "mkfifo /tmp/open; (nc -l -p 4000 </tmp/open | wc -c >/tmp/count) & exec 9>/tmp/open; wait"
        received.append(receiver.exec(["sh", "-c", script], timeout_s=120))

    listening = threading.Thread(target=receive)
    listening.start()
    until("the listener", lambda: b":4000" in receiver.exec(["netstat", "-ltn"])[1])
    assert sender.exec(["sh", "-c", "head -c 1000000 /dev/zero | nc 10.1.1.2 4000"], timeout_s=120)[0] == 0
    listening.join()
    assert receiver.exec(["cat", "/tmp/count"]) == (0, b"1000000\n")
    assert max(wire.lengths) <= MTU_FRAME
    assert sum(wire.lengths) > 1000000
