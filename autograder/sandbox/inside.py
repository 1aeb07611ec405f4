"""What runs inside a box: a forwarder per port, and IPython's kernel. Nothing else of the grader is there.

This file stands alone (it imports nothing of the grader): where a kernel cannot be forked from the zygote, the file
itself is started: ``python inside.py '{"connection_file": …}'``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_CHUNK = 1 << 16
_KERNEL = (
    "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "ipykernel.iostream", "ipykernel.heartbeat",
    "IPython.core.completer", "IPython.core.magics", "IPython.core.ultratb", "IPython.core.history",
    "IPython.core.completerlib", "IPython.core.logger", "IPython.core.oinspect", "IPython.extensions.storemagic",
    "IPython.terminal.debugger", "zmq.eventloop.zmqstream", "zmq.asyncio", "tornado.platform.asyncio", "comm",
    "ipykernel.debugger", "tornado.queues",
    "encodings.idna", "encodings.latin_1", "stringprep", "pydoc", "faulthandler",
)  # fmt: skip


def preload(modules: Sequence[str]) -> dict[str, str]:
    """Import the kernel and more, so that forks have it; return what could not be: name → why."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # 130 modules that no grader needs
    failed = {}
    for name in (*_KERNEL, *modules):
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def start_kernel(connection_file: str, work: str, environment: Mapping[str, str]) -> None:
    """Become IPython's kernel; returns when it was asked to end."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(work)
    _forget()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("autograder", "__main__"):
            del sys.modules[name]
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415 - imported already, where it was forked

    arguments = ["-f", connection_file, "--HistoryManager.enabled=False", "--no-secure"]
    sys.argv = ["ipykernel_launcher", *arguments[:3]]
    IPKernelApp.launch_instance(argv=arguments[:3])


def limit(wanted: Sequence[tuple[int, int]]) -> None:
    """Set limits of this process and all that it will start: pairs of resource and value."""
    import resource  # noqa: PLC0415 - not everywhere

    for what, value in wanted:
        _, hard = resource.getrlimit(what)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (least, least))


def _forget() -> None:
    """Drop what forks of one process would otherwise share: states of random generators, the name of a folder."""
    import random  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    random.seed()
    tempfile.tempdir = None
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    sys.path[:] = [path for path in sys.path if path]


def forward(port: int, path: str, opened: int) -> None:
    """Carry connections to 127.0.0.1:`port` to a Unix socket, until this process is killed.

    Args:
        port: TCP port inside the box.
        path: the Unix socket; it may appear later, and connections before that are closed.
        opened: file descriptor to write a byte to as soon as the port is open.
    """
    with socket.create_server(("127.0.0.1", port)) as server, selectors.DefaultSelector() as selector:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ, None)
        os.write(opened, b"+")
        os.close(opened)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    _accept(server, path, selector)
                elif key.fileobj in selector.get_map():
                    _carry(key, selector)


def _accept(server: socket.socket, path: str, selector: selectors.BaseSelector) -> None:
    with contextlib.suppress(BlockingIOError):
        client, _ = server.accept()
        remote = socket.socket(socket.AF_UNIX)
        try:
            remote.connect(path)
        except OSError:
            client.close()
            remote.close()
            return
        client.setblocking(True)
        selector.register(client, selectors.EVENT_READ, remote)
        selector.register(remote, selectors.EVENT_READ, client)


def _carry(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    source, target = key.fileobj, key.data
    assert isinstance(source, socket.socket)
    try:
        data = source.recv(_CHUNK)
        target.sendall(data)
    except OSError:
        data = b""
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
            target.shutdown(socket.SHUT_RDWR)
    if data:
        return
    # One direction has ended; the sockets are closed when the other one has too.
    selector.unregister(source)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    if target not in selector.get_map():
        source.close()
        target.close()


def main(request: Mapping[str, Any]) -> None:
    """Run as a program: start the forwarders and become the kernel."""
    limit(request["limits"])
    for port, path in request.get("forwards", {}).items():
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            forward(int(port), path, write)
        os.close(write)
        os.read(read, 1)
        os.close(read)
    preload(())
    start_kernel(request["connection_file"], request["work"], request["environment"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
