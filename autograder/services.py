"""What a check has outside its box: services, started by a steward on the grader's side (see `course.check.outside`).

    judge, before it steps into the box:   hire() ── fork ──▶ steward     the grader's user, files and network
    judge, in the box:    Gate.open ── what is wanted ──────▶ starts the service
                          listens on the box's 127.0.0.1 ───▶ gets the listening sockets, and accepts on them
                          asks, closes ─────────────────────▶ answers, ends the service

A socket belongs to the network in which it was made, whoever holds it. So nothing of the forwarding runs in the box:
there is nothing to kill, and only the ports that a service offers lead anywhere. The steward starts declared services
only. It notices the judge's end, however it comes, and ends the services and itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from course.check import outside
from course.check.outside import Address, Offer, Outside, ServiceError
from course.check.reply import plain
from course.check.service import FrameError, receive_frame, send_frame
from course.check.verdict import NotJudged

_LONG_S = 1e6
_END_S = 30.0
_CHUNK = 1 << 16
_CONNECTIONS = 64
"""Carried at a time for each listener; more wait."""


def hire(level: str, *others: int) -> outside.Gate | None:
    """Return the way to services for this process, a judge; None when no module has declared one.

    Args:
        level: how the box is shut in that it is about to enter; "none" where there is no box: services are started by a
            steward all the same, who ends them in good order when the judge is killed.
        others: descriptors that the steward must not hold.
    """
    if not outside.declared():
        return None
    if level == "landlock":
        return _NoGate(level)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        ours.close()
        for fd in others:
            os.close(fd)
        _be_steward(theirs)
    theirs.close()
    return _Gate(ours, carried=level != "none")


class _NoGate(outside.Gate):
    def __init__(self, level: str) -> None:
        self._level = level

    @contextlib.contextmanager
    def open(self, name: str, request: Mapping[str, Any]) -> Iterator[Outside]:
        """Refuse."""
        raise NotJudged(
            f"{name} cannot be reached from a box of level {self._level}, which has no network. "
            "Grade where user namespaces are allowed, or in a container as root."
        )
        yield


class _Gate(outside.Gate):
    """The judge's end of the wire to its steward."""

    def __init__(self, wire: socket.socket, *, carried: bool) -> None:
        self._wire = wire
        self._carried = carried
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, name: str, request: Mapping[str, Any]) -> Iterator[Outside]:
        """Have a service started and listen for it."""
        said = self._told({"do": "open", "name": name, "request": dict(request)})
        if "failed" in said:
            raise NotJudged(f"{name} did not start outside the box: {said['failed']}")
        number = said["number"]
        addresses = [(str(host), int(port)) for host, port in said["addresses"]]
        try:
            found = [*addresses, *addresses]
            if self._carried:
                found = [self._listen(number, place, address) for place, address in enumerate(found)]

            def ask(question: str, args: Any, kwargs: Any) -> Any:
                said = self._told({"do": "ask", "number": number, "question": question, "args": args, "kwargs": kwargs})
                if "failed" in said:
                    raise ServiceError(said["failed"])
                return said["answer"]

            yield Outside(found[: len(addresses)], found[len(addresses) :], said["told"], ask)
        finally:
            self._told({"do": "close", "number": number})

    def _listen(self, number: int, place: int, address: Address) -> Address:
        """Listen in this network for a listener of the service, at its own port where that is free."""
        with _listener(address[1]) as listener:
            self._told({"do": "carry", "number": number, "place": place}, listener)
            return "127.0.0.1", int(listener.getsockname()[1])

    def _told(self, question: dict[str, Any], *sockets: socket.socket) -> dict[str, Any]:
        try:
            with self._lock:
                send_frame(self._wire, question)
                if sockets:
                    socket.send_fds(self._wire, [b"s"], [one.fileno() for one in sockets])
                said: dict[str, Any] = receive_frame(self._wire, time.monotonic() + _LONG_S)
        except OSError as error:
            raise NotJudged(f"the process that runs services for this check has ended: {error}") from None
        return said


def _listener(wanted: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", wanted))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


def _be_steward(wire: socket.socket) -> NoReturn:
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_in_time, args=(wire,), name="watch over the judge", daemon=True).start()
        _Steward(wire).serve()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(0, signal.SIGKILL)
        os._exit(0)


def _end_in_time(wire: socket.socket) -> None:
    """Once the judge has ended, give services some time to end, and no more."""
    poll = select.poll()
    poll.register(wire, 0)  # a hang-up is always told
    poll.poll()
    time.sleep(_END_S)
    os.killpg(0, signal.SIGKILL)


class _Steward:
    """Does what the judge asks for, until its end of the wire is closed."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._up: dict[int, _Running] = {}
        self._count = 0

    def serve(self) -> None:
        """Serve until then; ends what is still up."""
        try:
            while True:
                asked = receive_frame(self._wire, time.monotonic() + _LONG_S, bounded=False)
                fds = socket.recv_fds(self._wire, 1, 1)[1] if asked["do"] == "carry" else []
                send_frame(self._wire, self._answer(asked, fds))
        except (OSError, FrameError):
            pass  # the judge has ended
        finally:
            for number in list(self._up):
                with contextlib.suppress(Exception):
                    self._up.pop(number).stack.close()

    def _answer(self, asked: Mapping[str, Any], fds: list[int]) -> dict[str, Any]:
        try:
            if asked["do"] == "open":
                return self._open(asked["name"], asked["request"])
            running = self._up[asked["number"]]
            if asked["do"] == "carry":
                running.carry(socket.socket(fileno=fds[0]), asked["place"])
            elif asked["do"] == "ask":
                said = outside.answered(running.name, running.offer, asked["question"], asked["args"], asked["kwargs"])
                return {"answer": said}
            else:
                self._up.pop(asked["number"]).stack.close()
        except ServiceError as error:
            return {"failed": str(error)}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}
        return {}

    def _open(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if (start := outside.declared(name).get(name)) is None:
            raise ServiceError(f"{name} is not declared as a service")
        with contextlib.ExitStack() as stack:
            offer = stack.enter_context(start(**request))
            told = plain(offer.told)
            self._count += 1
            self._up[self._count] = _Running(name, offer, stack.pop_all())
        return {
            "number": self._count,
            "addresses": [(str(host), int(port)) for host, port in offer.addresses],
            "told": told,
        }


class _Running:
    """A service that is up, and what is carried to it."""

    def __init__(self, name: str, offer: Offer, stack: contextlib.ExitStack) -> None:
        self.name, self.offer, self.stack = name, offer, stack
        self._open: set[socket.socket] = set()
        self._ended = False
        self._lock = threading.Lock()
        stack.callback(self._hang_up)

    def carry(self, listener: socket.socket, place: int) -> None:
        """Accept on a listener that lives in another network."""
        address = self.offer.addresses[place % len(self.offer.addresses)]
        self._remember(listener)
        threading.Thread(target=self._accept, args=(listener, address), daemon=True).start()

    def _accept(self, listener: socket.socket, address: Address) -> None:
        free = threading.Semaphore(_CONNECTIONS)
        with listener, contextlib.suppress(OSError):  # until it is hung up
            while free.acquire():
                client, _ = listener.accept()
                threading.Thread(target=self._meet, args=(client, address, free), daemon=True).start()

    def _meet(self, client: socket.socket, address: Address, free: threading.Semaphore) -> None:
        try:
            with client, socket.create_connection(address) as server:
                self._remember(client, server)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()
                with self._lock:
                    self._open -= {client, server}
        except OSError:
            pass  # nobody listens any more: the client sees its connection end
        finally:
            free.release()

    def _remember(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open.update(sockets)
        if self._ended:
            self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            self._ended, ends, self._open = True, self._open, set()
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way, and then the end."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
