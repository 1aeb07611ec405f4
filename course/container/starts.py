"""Start processes, containers and machines behind an address, and keep a log of what truly happened.

A measuring function gets the address of a Unix socket and asks there, one line of JSON per request::

    start     kind    → id          comes back at once, as fork and Popen do: nothing is ready yet
    read_line id      → line        waits for the next line of the console; "" when there will be none
    ask       id what → text        what the system says of itself, once it is ready
    stop      id      →

Each console ends with the line ``READY NONCE``; the nonce is made by the laboratory for this one start, so that a
measurement can be laid beside the entry of the log that it belongs to. Two laboratories answer alike: a simulated one
whose times are known, and a real one (`Starts.real`), with processes and containers in a guest, and guests as machines.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from .. import guest
from ..error import CourseError
from ..kernel.listener import JsonListener
from ..machine.footprint import footprint
from .laboratory import Laboratory

KINDS = ("process", "container", "vm")
FACTS = ("boot_id", "release", "memory_kib")

_WAIT_S = 60
_GROUP = "/sys/fs/cgroup/start"


class StartsError(CourseError):
    """The laboratory refused a request: says which, and what was expected."""


def start(lab: str, kind: str) -> int:
    """Start a "process", a "container" or a "vm"; return its number at once, ready or not."""
    return int(_request(lab, {"do": "start", "kind": kind}))


def read_line(lab: str, number: int) -> str:
    """Wait for the next line of its console and return it; "" at its end, and an error beyond.

    Raises:
        StartsError: it did not start, says nothing, or has ended already.
    """
    return str(_request(lab, {"do": "read_line", "id": number}))


def ask(lab: str, number: int, what: str) -> str:
    """Return what it says of itself: "boot_id", "release" or "memory_kib". Only when it is ready."""
    return str(_request(lab, {"do": "ask", "id": number, "what": what}))


def stop(lab: str, number: int) -> None:
    """End it and free what it holds."""
    _request(lab, {"do": "stop", "id": number})


def _request(lab: str, request: dict[str, Any]) -> Any:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WAIT_S + 5)
        client.connect(lab)
        client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile() as lines:
            reply = json.loads(lines.readline() or '{"error": "the laboratory is closed"}')
    if "error" in reply:
        raise StartsError(reply["error"])
    return reply["value"]


@dataclasses.dataclass
class Entry:
    """One start, as the laboratory saw it.

    Attributes:
        kind: what was started.
        nonce: the word of its last line.
        ms: milliseconds from the request to start until its last line was there; None before that.
        boot_id: of the kernel that it runs on.
        stopped: whether it was stopped.
    """

    kind: str
    nonce: str
    ms: float | None = None
    boot_id: str = ""
    stopped: bool = False


class Backend(Protocol):
    """What starts things: writes lines into `say`, returns facts and what ends it."""

    def __call__(
        self, kind: str, nonce: str, say: Callable[[str], None]
    ) -> tuple[dict[str, str], Callable[[], object]]:
        """Start one thing, say its lines, and return its facts and what ends it."""


class Starts(JsonListener):
    """A laboratory behind the socket `address`; a context manager. Its `log` is the witness."""

    def __init__(self, backend: Backend, close: Callable[[], object] = lambda: None) -> None:
        self.log: list[Entry] = []
        self._backend, self._close = backend, close
        self._instances: list[_Instance] = []
        super().__init__("starts")

    @property
    def address(self) -> str:
        """What `start` and the other functions take."""
        return self.path

    @classmethod
    def simulated(cls, *, seed: int = 0, scale: float = 1.0) -> Starts:
        """Open a laboratory whose times are known: about 3, 15 and 90 ms, each start different from the last.

        Args:
            seed: decides the times and the names.
            scale: multiplies all times.
        """
        return cls(_Simulation(random.Random(seed), scale))

    @classmethod
    def real(cls, *, cold: bool = False) -> Starts:
        """Open a real laboratory: processes and containers in one guest; a machine is a guest of its own.

        Args:
            cold: boot each machine (seconds) instead of cloning a booted one (tenths of a second).
        """
        lab = Laboratory("host")
        lab.__enter__()
        try:
            return cls(_Real(lab, cold), lambda: lab.__exit__(None, None, None))
        except BaseException:
            lab.__exit__(None, None, None)
            raise

    def __enter__(self) -> Starts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, end all that was started, remove the address."""
        super().close()
        for instance in self._instances:
            instance.stop()
        self._close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        action, number = request.get("do"), request.get("id")
        if action == "start":
            kind = request.get("kind")
            if kind not in KINDS:
                return {"error": f"kind {kind!r} is unknown; expected one of {', '.join(KINDS)}"}
            entry = Entry(str(kind), secrets.token_hex(4))
            self.log.append(entry)
            self._instances.append(_Instance(self._backend, entry))
            return {"value": len(self._instances) - 1}
        if type(number) is not int or not 0 <= number < len(self._instances):
            return {"error": f"nothing with the number {number!r} was started; expected what start() returned"}
        instance = self._instances[number]
        if action == "read_line":
            return instance.read_line()
        if action == "ask":
            return instance.ask(request.get("what"))
        instance.stop()
        return {"value": None}


class _Instance:
    """Something that was started: a thread makes it ready, its console is a queue of lines."""

    def __init__(self, backend: Backend, entry: Entry) -> None:
        self._entry = entry
        self._begin = time.monotonic()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._facts: dict[str, str] = {}
        self._failure = ""
        self._ended = False
        self._end: Callable[[], object] = lambda: None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(backend,), name=f"start {entry.kind}", daemon=True)
        self._thread.start()

    def _run(self, backend: Backend) -> None:
        try:
            self._facts, self._end = backend(self._entry.kind, self._entry.nonce, self._say)
            self._entry.boot_id = self._facts["boot_id"]
        except CourseError as error:
            self._failure = str(error)
        finally:
            self._done.set()
            self._lines.put("")

    def _say(self, line: str) -> None:
        if line.startswith("READY") and self._entry.ms is None:
            self._entry.ms = (time.monotonic() - self._begin) * 1000
        self._lines.put(line)

    def read_line(self) -> dict[str, Any]:
        """Return the next line; its end once, then an error, so that no loop waits for ever."""
        if self._ended:
            return {"error": "its console has ended; expected that nobody reads beyond its last line"}
        try:
            line = self._lines.get(timeout=_WAIT_S)
        except queue.Empty:
            return {"error": f"a {self._entry.kind} said nothing for {_WAIT_S} s; is this computer very busy?"}
        if not line and self._failure:
            return {"error": f"a {self._entry.kind} did not start: {self._failure}"}
        self._ended = not line
        return {"value": line}

    def ask(self, what: Any) -> dict[str, Any]:
        if what not in FACTS:
            return {"error": f"{what!r} cannot be asked; expected one of {', '.join(FACTS)}"}
        if self._entry.ms is None:
            return {"error": "it is not ready and cannot answer; expected READY among its lines first"}
        self._done.wait(_WAIT_S)
        return {"value": self._facts.get(what, "")}

    def stop(self) -> None:
        self._done.wait(_WAIT_S)
        if not self._entry.stopped:
            self._entry.stopped = True
            self._end()


class _Simulation:
    """Known times, known names."""

    def __init__(self, rng: random.Random, scale: float) -> None:
        self._rng, self._scale = rng, scale
        self.host = self._name()
        self._typical = {"process": rng.uniform(2, 4), "container": rng.uniform(12, 18), "vm": rng.uniform(80, 110)}

    def _name(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def __call__(
        self, kind: str, nonce: str, say: Callable[[str], None]
    ) -> tuple[dict[str, str], Callable[[], object]]:
        whole = self._typical[kind] * self._scale * self._rng.uniform(0.8, 1.3) / 1000
        steps = {
            "process": [],
            "container": ["namespaces: made"],
            "vm": ["SeaBIOS (version 1.16.2)", "Linux version 6.1.0"],
        }
        facts = {
            "boot_id": self._name() if kind == "vm" else self.host,
            "release": "6.1.0",
            "memory_kib": str({"process": 200, "container": 700, "vm": 140_000}[kind]),
        }
        lines = steps[kind]
        for line in lines:
            time.sleep(whole / (len(lines) + 1))
            say(line)
        time.sleep(whole / (len(lines) + 1))
        say(f"READY {nonce}")
        return facts, lambda: None


class _Real:
    """One guest as the host of processes and containers; a guest of its own for each machine."""

    def __init__(self, lab: Laboratory, cold: bool) -> None:
        self._lab, self._cold = lab, cold
        self._console = threading.Lock()
        lab.vm.console.run(f"mkdir {_GROUP}")

    def __call__(
        self, kind: str, nonce: str, say: Callable[[str], None]
    ) -> tuple[dict[str, str], Callable[[], object]]:
        if kind == "vm":
            return self._machine(nonce, say)
        command = "exec unshare -U -r -m -p -u -i -n -f --mount-proc " if kind == "container" else "exec "
        tell = f"echo READY {nonce}; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease"
        console = self._lab.vm.console
        with self._console:
            # It reads the account of its memory by itself: a group whose processes have ended holds nothing.
            steps = f'echo $$ >{_GROUP}/cgroup.procs; {command} sh -c "{tell}; cat {_GROUP}/memory.current"'
            console.sendline(f"sh -c '{steps}'; echo END {nonce}")
            console.expect(rf"READY {nonce}\n", 30)
            say(f"READY {nonce}")
            facts = console.expect(rf"END {nonce}\n", 30)
        boot_id, release, memory = facts.string[: facts.start()].split()[:3]
        return {"boot_id": boot_id, "release": release, "memory_kib": str(int(memory) // 1024)}, lambda: None

    def _machine(self, nonce: str, say: Callable[[str], None]) -> tuple[dict[str, str], Callable[[], object]]:
        vm = guest.linux("vm", cold=self._cold)
        vm.launch()
        try:
            _, text = vm.console.run(
                f"echo READY {nonce}; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease"
            )
            ready, boot_id, release = text.split("\n")[:3]
            say(ready)
            memory = round(footprint(vm.pid).pss_mib * 1024) if vm.pid else 0
        except BaseException:
            vm.kill()
            raise
        return {"boot_id": boot_id, "release": release, "memory_kib": str(memory)}, vm.kill
