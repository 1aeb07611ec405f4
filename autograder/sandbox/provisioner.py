"""Jupyter's way to a box: a kernel provisioner, for nbclient, nbconvert and nbgrader.

After `register`, all kernels that this process starts are in boxes, but for those whose kernelspec chooses another way
in its metadata. One zygote serves them all; it is started when the first kernel is asked for.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from .level import Level, Limits
from .zygote import MODULES, PLOTTING, Box, SandboxError, Zygote, sockets

NAME = "course-sandbox"

_zygotes: dict[int, Zygote] = {}
_lock = threading.Lock()
_BEAT_S = 0.002
_START_S = 60


def register() -> bool:
    """Let Jupyter start this process's kernels in boxes from now on; False where there are none: not on Linux."""
    if not sys.platform.startswith("linux"):
        return False
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:{SandboxProvisioner.__name__}", factory.GROUP_NAME)
    factory.default_provisioner_name = NAME
    return True


def unregister() -> None:
    """Undo `register`."""
    factory = KernelProvisionerFactory.instance()
    factory.provisioners.pop(NAME, None)
    factory.default_provisioner_name = "local-provisioner"


def zygote(level: Level | None = None, *, wait: bool = True, plots: bool = True) -> Zygote:
    """Return this process's zygote, starting it on first use; it ends with the process.

    Args:
        level: as `probe` returned it; None to ask it. Only the first call decides.
        wait: until it is ready, if it is started now.
        plots: whether the first kernels will draw plots.
    """
    with _lock:
        mine = _zygotes.get(os.getpid())
        if mine is None:
            mine = _zygotes[os.getpid()] = Zygote(level, MODULES + PLOTTING if plots else MODULES, wait=wait)
            atexit.register(mine.close)
        return mine


def adopt(parent: int) -> None:
    """Use the zygote of the process that this one was forked from, if it has one."""
    if parent in _zygotes:
        _zygotes[os.getpid()] = _zygotes[parent]


def close() -> None:
    """End this process's zygote and its boxes; the next kernel starts another one."""
    with _lock:
        mine = _zygotes.pop(os.getpid(), None)
    if mine is not None:
        atexit.unregister(mine.close)
        mine.close()


class SandboxProvisioner(KernelProvisionerBase):
    """Starts each kernel in a box of its own.

    Attributes:
        limits: of the boxes to come; a class attribute, so that a configuration can set it.
        box: the box of this kernel; None before and after.
    """

    limits: Limits = Limits()
    box: Box | None = None
    _work: str = ""
    _run_dir: Path | None = None

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel, alive or not."""
        return self.box is not None

    async def poll(self) -> int | None:
        """Return None while the kernel runs, else its exit status."""
        return 0 if self.box is None else self.box.exitcode

    async def wait(self) -> int | None:
        """Wait for the kernel's end."""
        while self.box is not None and self.box.alive():
            await asyncio.sleep(_BEAT_S)
        return await self.poll()

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel, or end it; other signals do not reach it."""
        if self.box is None:
            return
        if signum == signal.SIGINT:
            self.box.interrupt()
        elif signum in (signal.SIGKILL, signal.SIGTERM):
            await self.kill()

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and all that it started."""
        if self.box is not None:
            await asyncio.to_thread(self.box.kill)

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel and all that it started."""
        await self.kill(restart)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Remember the folder of the submission; there is no command to prepare."""
        self._work = str(kwargs.get("cwd") or Path.cwd())
        prepared = await super().pre_launch(**kwargs)
        return {**prepared, "cmd": ["course-sandbox"]}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel in a new box and return how to reach it."""
        run_dir = self._run_dir = self._run_dir or Path(tempfile.mkdtemp(prefix="run-"))
        run_dir.mkdir(mode=0o700, exist_ok=True)
        try:
            key = self.parent.session.key if self.parent is not None else None  # its clients survive a restart
            self.box = await asyncio.to_thread(lambda: zygote().box(Path(self._work), run_dir, self.limits, key=key))
            await self._ready(self.box)
        except BaseException:
            self._discard()
            raise
        self.connection_info = _loaded(self.box.connection_file)
        if self.parent is not None:  # the manager takes what is new to it; the file is there already
            self.parent.load_connection_info(self.connection_info)
            self.parent.connection_file = self.box.connection_file
        return self.connection_info

    async def _ready(self, box: Box) -> None:
        """Wait for the kernel's sockets: ZeroMQ tries a refused connection again only after 0.1 s."""
        end = time.monotonic() + _START_S
        while not all(path.exists() for path in sockets(box.run_dir)):
            if not box.alive() or time.monotonic() > end:
                raise SandboxError(f"the kernel in {box!r} did not start {box.why}")
            await asyncio.sleep(_BEAT_S)

    async def cleanup(self, restart: bool = False) -> None:
        """End the box and remove the folder that it shared; a restart makes it again at the same place."""
        self._discard()

    def _discard(self) -> None:
        box, self.box = self.box, None
        if box is not None:
            with contextlib.suppress(SandboxError):
                box.kill()
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)


def _loaded(connection_file: str) -> KernelConnectionInfo:
    info: KernelConnectionInfo = json.loads(Path(connection_file).read_text())
    info["key"] = str(info["key"]).encode()  # type: ignore[typeddict-item]
    return info
