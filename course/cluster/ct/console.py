"""Ways into a running container from outside of its node's process: terminals, and programs for the lab.

- A terminal is a Unix socket, ``<run>/<node>/lxc/200.tty1``: whoever connects gets a shell on a terminal of its own.
- Programs: one line of JSON on ``<run>/<node>/lxc/exec.sock`` asks for one, one line answers. Proxmox VE's API has no
  such call; ``pct exec`` on the node is what does it there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from .boxed import Boxed

if TYPE_CHECKING:
    from ..node import Node
    from .registry import Running

CHUNK = 1 << 16
LINGER_S = 15.0
LOOK_MS = 500


def folder(node: Node) -> Path:
    """Return where a node's sockets for containers are."""
    path = node.run / "lxc"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(8)
    return listener


# Terminals


def offer_terminal(node: Node, vmid: int) -> Path:
    """Return a socket on which the next one who connects gets a shell in a container."""
    path = folder(node) / f"{vmid}.{os.urandom(4).hex()}.tty1"
    listener = _listen(path)
    listener.settimeout(LINGER_S)

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        finally:
            listener.close()
            path.unlink(missing_ok=True)
        with client, contextlib.suppress(OSError):
            running = node.containers.get(vmid)
            if running is None:
                client.sendall(f"CT {vmid} not running\r\n".encode())
            elif isinstance(running, Boxed):
                _carry(client, running)
            else:
                _line_by_line(client, running)

    threading.Thread(target=serve, name=f"ct-{vmid}-tty", daemon=True).start()
    return path


def _carry(client: socket.socket, running: Boxed) -> None:
    """Carry what is typed and shown between a client and a shell's terminal."""
    master, shell = running.shell()
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(master, select.POLLIN)
    try:
        while True:
            for handle, event in poll.poll(LOOK_MS):
                if not event & select.POLLIN:
                    return
                content = client.recv(CHUNK) if handle == client.fileno() else os.read(master, CHUNK)
                if not content:
                    return
                if handle == master:
                    client.sendall(content)
                else:
                    os.write(master, content)
            if shell.ended.is_set() and not poll.poll(0):
                return
    finally:
        os.close(master)  # its shell gets SIGHUP


def _line_by_line(client: socket.socket, running: Running) -> None:
    """Execute one line after another: what a container in a guest has for a terminal."""
    prompt, line = f"CT {running.vmid} # ".encode(), b""
    client.sendall(prompt)
    while content := client.recv(CHUNK):
        client.sendall(content.replace(b"\r", b"\r\n"))
        *whole, line = (line + content).replace(b"\n", b"\r").split(b"\r")
        for each in whole:
            if each.strip() == b"exit":
                return
            if each.strip():
                _, said = running.exec(["/bin/sh", "-c", each.decode(errors="replace")])
                client.sendall(said.replace(b"\n", b"\r\n"))
            client.sendall(prompt)


# Programs


def serve_programs(node: Node) -> socket.socket:
    """Answer requests for programs until the returned socket is closed."""
    listener = _listen(folder(node) / "exec.sock")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_answer, args=(node, client), daemon=True).start()

    threading.Thread(target=accept, name="ct-exec", daemon=True).start()
    return listener


def _answer(node: Node, client: socket.socket) -> None:
    with client, contextlib.suppress(OSError, ValueError, KeyError), client.makefile("rwb") as lines:
        asked = json.loads(lines.readline())
        stdin = base64.b64decode(asked.get("stdin", ""))
        reply: dict[str, Any]
        try:
            status, output = node.containers.exec(
                int(asked["vmid"]), asked["argv"], stdin=stdin, timeout_s=float(asked["timeout_s"])
            )
            reply = {"status": status, "output": base64.b64encode(output).decode()}
        except ClusterError as error:
            reply = {"error": error.message}
        lines.write(json.dumps(reply).encode() + b"\n")


def execute(
    run: Path, node: str, vmid: int, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60
) -> tuple[int, bytes]:
    """Run a program in a container of a node, from another process.

    Args:
        run: the lab's folder of sockets.
        node: that runs the container.
        vmid: the container.
        argv: the program and its arguments.
        stdin: what it reads.
        timeout_s: how long to wait.

    Returns:
        Its exit status, and what it wrote.

    Raises:
        ClusterError: the container does not run there, or takes too long.
    """
    asked = {
        "vmid": vmid,
        "argv": list(argv),
        "stdin": base64.b64encode(stdin).decode(),
        "timeout_s": timeout_s,
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s + 10)
            client.connect(str(run / node / "lxc" / "exec.sock"))
            client.sendall(json.dumps(asked).encode() + b"\n")
            with client.makefile("rb") as lines:
                reply = json.loads(lines.readline() or b'{"error": "the node hung up"}')
    except OSError as error:
        raise ClusterError(f"node '{node}' does not answer: {error}") from error
    if "error" in reply:
        raise ClusterError(reply["error"])
    return int(reply["status"]), base64.b64decode(reply["output"])
