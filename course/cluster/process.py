"""One node's process: from the fork to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from . import server
from .hardware import Hardware
from .membership import Members
from .node import Node
from .rack import READY
from .route import registry, routes
from .settings import Settings
from .state import State


def warm() -> None:
    """Load all that a node needs, in the process that the nodes are forked from."""
    registry()
    routes()


def run(name: str, root: Path, run: Path, settings: Settings, *, address: Any, pipe: int) -> None:
    """Be a node until somebody asks it to end.

    Args:
        name: of the node.
        root: the state directory.
        run: the runtime directory.
        settings: of the cluster.
        address: where its API listens, as `socket.bind` takes it.
        pipe: on which it says when it is ready.
    """
    state = State(root, run, node=name)
    members = Members(run, state.nodes, name, settings.seen_within_s)
    state.quorate = members.quorate
    node = Node(name, state, settings, members=members, rack=Hardware(run, name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(state.path(f"nodes/{name}/pve-ssl.pem"), state.path(f"nodes/{name}/pve-ssl.key"))
    (run / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        node.start()
        asyncio.run(_serve(node, _listen(address), context, pipe))
    finally:
        node.stop()
        sys.stderr.flush()


def _listen(address: Any) -> socket.socket:
    """Return a socket at the port that the rack holds."""
    listener = socket.socket(socket.AF_INET6 if len(address) > 2 else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    listener.setblocking(False)
    return listener


async def _serve(node: Node, listener: socket.socket, context: ssl.SSLContext, pipe: int) -> None:
    """Answer until a signal asks to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    web = server.Server(node)
    await web.start(listener, context)
    os.write(pipe, READY)
    os.close(pipe)
    await ended.wait()
    node.stopping.set()
    await web.stop()
