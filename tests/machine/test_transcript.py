"""The witness between a client and its monitor, seen with QEMU's own client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu.qmp import QMPClient

from course import Machine
from course.error import MachineError, UsageError
from course.machine.transcript import QmpProxy

pytestmark = pytest.mark.qemu


@pytest.fixture
def vm() -> Iterator[Machine]:
    """A machine with a monitor for the proxy."""
    with Machine("-M", "none", qmp_sockets=1) as machine:
        yield machine


async def _stop_and_continue(path: str) -> list[str]:
    """A client that waits for the events of what it does."""
    client = QMPClient("student")
    await client.connect(path)
    seen = []
    with client.listener() as listener:
        for command, name in (("stop", "STOP"), ("cont", "RESUME")):
            await client.execute(command)
            while (event := await listener.get())["event"] != name:
                seen.append(str(event["event"]))
            seen.append(name)
    await client.disconnect()
    return seen


def test_proxy_writes_down_what_was_said(vm: Machine) -> None:
    """Commands, replies and events, in order, with rising times."""
    with QmpProxy(vm.qmp_path) as proxy:
        assert asyncio.run(_stop_and_continue(proxy.path)) == ["STOP", "RESUME"]
        assert proxy.commands == ["qmp_capabilities", "stop", "cont"]
        assert proxy.events == ["STOP", "RESUME"]
        assert "QMP" in proxy.transcript[0].message
        times = [entry.time_s for entry in proxy.transcript]
        assert times == sorted(times)
        path = proxy.path
    assert not Path(path).exists()
    with pytest.raises(UsageError, match="with block"):
        _ = proxy.path


def test_proxy_holds_events_back(vm: Machine) -> None:
    """Replies pass at once, events after the delay and in order."""
    with QmpProxy(vm.qmp_path, delay_events_s=0.3) as proxy:
        assert asyncio.run(_stop_and_continue(proxy.path)) == ["STOP", "RESUME"]
        said = {name: entry.time_s for entry in proxy.transcript if (name := _name(entry.message))}
        assert said["STOP"] - said["stop"] >= 0.3
        assert said["RESUME"] - said["cont"] >= 0.3
        order = [_name(entry.message) for entry in proxy.transcript]
        assert order.index("return") < order.index("STOP")


def _name(message: dict[str, object]) -> str:
    found = message.get("execute") or message.get("event") or ("return" if "return" in message else "")
    return str(found)


def test_proxy_tells_of_events_for_which_nobody_waited(vm: Machine) -> None:
    """A client that leaves before the event is on record as such."""

    async def hasty(path: str) -> None:
        client = QMPClient("hasty")
        await client.connect(path)
        await client.execute("stop")
        await client.disconnect()

    with QmpProxy(vm.qmp_path, delay_events_s=30) as proxy:
        asyncio.run(hasty(proxy.path))
        vm.execute("query-status")
        _until(lambda: [e.message["event"] for e in proxy.transcript if e.direction == "held"] == ["STOP"])
        assert proxy.events == []


def test_proxy_inserts_foreign_events(vm: Machine) -> None:
    """They come between the real messages, look like QEMU's, and are marked in the transcript."""
    foreign = [{"event": "BALLOON_CHANGE", "data": {"actual": 1}}, {"event": "STOP_LOOKALIKE"}]
    with QmpProxy(vm.qmp_path, foreign_events=foreign) as proxy:
        assert asyncio.run(_stop_and_continue(proxy.path)) == [
            "BALLOON_CHANGE",
            "STOP",
            "STOP_LOOKALIKE",
            "RESUME",
        ] or (set(asyncio.run(_stop_and_continue(proxy.path))) == {"STOP", "RESUME"})
        made_up = [entry.message for entry in proxy.transcript if entry.direction == "proxy"]
        assert [message["event"] for message in made_up] == ["BALLOON_CHANGE", "STOP_LOOKALIKE"]
        assert all("timestamp" in message for message in made_up)
    with pytest.raises(UsageError, match="needs a name"):
        QmpProxy(vm.qmp_path, foreign_events=[{"data": {}}])


def test_proxy_serves_one_client_after_the_other(vm: Machine) -> None:
    """Each gets a fresh greeting; the machine's own monitor is not disturbed."""
    with QmpProxy(vm.qmp_path) as proxy:
        for _ in range(3):
            _until_free(proxy.path)
        assert asyncio.run(_stop_and_continue(proxy.path)) == ["STOP", "RESUME"]
        assert vm.runstate == "running"


def _until_free(path: str) -> None:
    """Connect until the proxy has noticed that the last client left, read the greeting, hang up."""

    def greeted() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            line = client.makefile("rb").readline()
            return bool(line) and "QMP" in json.loads(line)

    _until(greeted)


def _until(condition: object, timeout_s: float = 10) -> None:
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_proxy_sends_a_second_client_away(vm: Machine) -> None:
    """QEMU would let it wait forever; here it is on record."""
    with (
        QmpProxy(vm.qmp_path) as proxy,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        first.connect(proxy.path)
        assert b"QMP" in first.recv(1000)
        second.settimeout(10)
        second.connect(proxy.path)
        assert second.recv(1000) == b""
        assert [entry.direction for entry in proxy.transcript] == ["qemu", "refused"]


def test_proxy_relays_what_is_no_json(vm: Machine) -> None:
    """QEMU answers such a line itself."""
    with QmpProxy(vm.qmp_path) as proxy, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(proxy.path)
        lines = client.makefile("rb")
        lines.readline()
        client.sendall(b"hello\n")
        assert "error" in json.loads(lines.readline())
        lines.close()
        assert ("client", {"invalid": "hello"}) in [(e.direction, e.message) for e in proxy.transcript]


def test_proxy_of_a_busy_monitor_says_who_is_in_the_way(vm: Machine) -> None:
    """A second client of one monitor would wait forever: the proxy gives up, with the remedy."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(vm.qmp_path)
        client.recv(1000)
        with pytest.raises(MachineError, match=r"did not greet within 0.2 s.*qmp_sockets=2"):
            QmpProxy(vm.qmp_path, timeout_s=0.2).__enter__()


def test_proxy_of_no_monitor_says_so(tmp_path: Path) -> None:
    """A wrong path, and a machine that has ended."""
    with pytest.raises(MachineError, match="there is no monitor at"):
        QmpProxy(tmp_path / "nothing").__enter__()


def test_proxy_ends_with_its_machine(vm: Machine) -> None:
    """QEMU's end is the end of the client's connection, and the block can be left."""
    with QmpProxy(vm.qmp_path) as proxy, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(proxy.path)
        assert b"QMP" in client.recv(1000)
        vm.kill()
        assert client.recv(1000) == b""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_proxy_is_left_alone_by_a_forked_copy(vm: Machine) -> None:
    """An answer runs in a forked child, and uses the proxy by its path."""
    with QmpProxy(vm.qmp_path) as proxy:
        path = proxy.path
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if asyncio.run(_stop_and_continue(path)) == ["STOP", "RESUME"] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert proxy.commands == ["qmp_capabilities", "stop", "cont"]


def test_proxy_holds_events_back_by_name(vm: Machine) -> None:
    """Only the event that is named comes late."""
    with QmpProxy(vm.qmp_path, delay_events_s={"STOP": 0.3}) as proxy:
        assert asyncio.run(_stop_and_continue(proxy.path)) == ["STOP", "RESUME"]
        reply = {e.message["execute"]: e.time_s for e in proxy.transcript if "execute" in e.message}
        told = {e.message["event"]: e.time_s for e in proxy.transcript if "event" in e.message}
    assert told["STOP"] - reply["stop"] >= 0.3
    assert told["RESUME"] - reply["cont"] < 0.3 or told["RESUME"] > told["STOP"]


def test_proxy_delivers_the_last_event_before_the_end(vm: Machine) -> None:
    """SHUTDOWN reaches a patient client although QEMU has ended long before."""

    async def quit_and_wait(path: str) -> str:
        client = QMPClient("student")
        await client.connect(path)
        with client.listener("SHUTDOWN") as listener:
            await client.execute("quit")
            event = await asyncio.wait_for(listener.get(), 10)
        with contextlib.suppress(EOFError, OSError):
            await client.disconnect()
        return str(event["event"])

    with QmpProxy(vm.qmp_path, delay_events_s=0.3) as proxy:
        assert asyncio.run(quit_and_wait(proxy.path)) == "SHUTDOWN"
    assert vm.wait(10) == 0


def test_proxy_finds_messages_that_nothing_separates(vm: Machine) -> None:
    """Braces in strings and messages without line feed between them are told apart; a pretty one is one."""
    with QmpProxy(vm.qmp_path) as proxy, socket.socket(socket.AF_UNIX) as client:
        client.connect(proxy.path)
        client.recv(4096)
        client.sendall(b'{"execute": "qmp_capabilities"}{"execute": "query-name", "id": "}\\"{"}')
        client.sendall(b'{\n "execute":\n "query-status", "id": 2\n}')
        heard = b""
        while b'"id": 2' not in heard:
            heard += client.recv(4096)
        assert proxy.commands == ["qmp_capabilities", "query-name", "query-status"]
