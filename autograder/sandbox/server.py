"""The zygote: a process that has imported the kernel and the course once, and forks a keeper for each order.

Started by `Zygote` as ``python -m autograder.sandbox.server FD MODULES``, with a clean environment: what it has in
memory, students' kernels have too. An order is one message on FD, with the channel of its keeper as a descriptor
beside it. The end of FD is the end of the zygote and all its boxes.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import warnings

from . import inside, linux
from .keeper import Order, keep
from .root import Plan

_MAX_ORDER = 1 << 16


def main(fd: int, modules: list[str]) -> None:
    """Import, say how it went, and serve until the other side is closed."""
    orders = socket.socket(fileno=fd)
    linux.die_with_parent()
    with warnings.catch_warnings(action="ignore"):
        failed = inside.preload([name for name in modules if name])
    plan = Plan.here()
    if os.getuid() == 0:
        plan.share_cache()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the grader's terminal is for the grader
    gc.collect()
    gc.freeze()
    orders.send("\n".join(f"{name}: {why}" for name, why in failed.items()).encode() or b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(orders, _MAX_ORDER, 1)
        if not message:
            os._exit(0)
        with socket.socket(fileno=fds[0]) as channel:
            if os.fork() == 0:
                orders.close()
                keep(Order.decode(message), channel, plan)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","))
