"""A way for judges into boxes of level landlock.

Rules of Landlock cannot be entered, only inherited; and who lives under them may look into processes under the same
rules, not into others. Some exercises do look: into processes that a check has started. So a judge has to descend from
the first process of the box, and that one leaves a doorkeeper behind before it starts the kernel::

    init, under the box's rules ──▶ doorkeeper ◀── socket ── usher: an order, the grader's modules, the judge's wire
                              └───▶ kernel      └──▶ judge

Inside, the grader's files cannot be read, and the kernel must not have hidden checks in its memory. So their sources
come through the door, for the judge alone. Like all judges it is not "dumpable": nobody reads or traces it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from . import linux

_CHECKOUT = Path(__file__).resolve().parents[2]
_LONG_S = 1e6
_START_S = 120.0

Sources = Mapping[str, tuple[str, bool]]
"""Of modules: name → text, and whether it is a package."""


def through(door: socket.socket, order: Mapping[str, Any], wire: int) -> int:
    """Have a judge forked behind a door; returns its pid.

    Args:
        door: as the box has handed it out.
        order: for the judge: "run_dir" and "modules".
        wire: the judge's end of its wire, a descriptor.

    Raises:
        OSError: the doorkeeper has ended.
    """
    from course.check.service import receive_frame, send_frame  # noqa: PLC0415 - this module is in every box

    send_frame(door, {"run_dir": order["run_dir"], "modules": order["modules"], "sources": sources()})
    socket.send_fds(door, [b"w"], [wire])
    return int(receive_frame(door, time.monotonic() + _START_S))


def sources() -> Sources:
    """Return the modules of this process that a box cannot read: those of the checkout but `course`."""
    importlib.import_module("autograder.judge")  # an usher has it under another name
    found: dict[str, tuple[str, bool]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in ("autograder", "tests") and Path(file).is_relative_to(_CHECKOUT):
            found[name] = (inspect.getsource(module) if Path(file).stat().st_size else "", hasattr(module, "__path__"))
    return found


def keep(door: socket.socket, environment: Mapping[str, str]) -> NoReturn:
    """Be the doorkeeper of a box until the other side is closed or the box ends.

    It collects no children: no pid of a judge is given to another process as long as the box lives.
    """
    from course.check.service import receive_frame, send_frame  # noqa: PLC0415

    try:
        os.environ.clear()
        os.environ.update(environment, PYTHONNOUSERSITE="1")
        while True:
            order = receive_frame(door, time.monotonic() + _LONG_S)
            _, fds, _, _ = socket.recv_fds(door, 1, 1)
            pid = os.fork()
            if pid == 0:
                door.close()
                _judge(order, fds[0])
            os.close(fds[0])
            send_frame(door, pid)
    finally:
        os._exit(0)


def _judge(order: Mapping[str, Any], wire: int) -> NoReturn:
    try:
        os.setsid()
        linux.die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        sys.meta_path.insert(0, _Told(order["sources"]))
        judge = importlib.import_module("autograder.judge")
        for name in order["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        judge.behind_the_door(order, wire)
    finally:
        os._exit(1)


class _Told(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules whose sources were told."""

    def __init__(self, told: Sources) -> None:
        self._told = told

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find what was told."""
        if fullname not in self._told:
            return None
        origin = str(_CHECKOUT / f"{fullname.replace('.', '/')}.py")
        return importlib.util.spec_from_loader(fullname, self, origin=origin, is_package=self._told[fullname][1])

    def get_source(self, fullname: str) -> str:
        """Return the text of a module."""
        return self._told[fullname][0]

    def exec_module(self, module: ModuleType) -> None:
        """Run it, with the name of its file for modules that look where they lie."""
        spec = module.__spec__
        assert spec is not None
        module.__file__ = spec.origin
        super().exec_module(module)
