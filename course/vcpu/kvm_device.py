"""The device's side of `rawkvm`: the child process that answers calls, and the host's ``/dev/kvm`` in it.

One packet per call, each way; a file descriptor that KVM returns travels with the answer (SCM_RIGHTS), so the caller
maps a vCPU's memory itself. A virtual machine belongs to the process that made it, which is why calls come here.
Time is CPU time of the thread that serves: a busy host spends nobody's budget.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from ..capability.kvm_abi import KVM_CREATE_VCPU, KVM_CREATE_VM, KVM_GET_STATS_FD, KVM_RUN, Run

ORDER = struct.Struct("<iI?qd")
"""File descriptor (the child's), request, whether bytes follow, number, seconds allowed."""
ANSWER = struct.Struct("<qd")
"""The result, or minus errno, and how many seconds of CPU it took; bytes follow."""
LARGEST = 1 << 16
TIME_IS_UP, BROKEN = -4095, -4094
"""Instead of a result; the latter is a defect of the device, and its text follows."""
CREATES = {KVM_CREATE_VM: "kvm-vm", KVM_CREATE_VCPU: "kvm-vcpu", KVM_GET_STATS_FD: "kvm-stats"}
"""Requests whose result is a file descriptor, and of what."""
_TICK_S = 0.02


class TimeIsUp(Exception):  # noqa: N818 - not an error of the guest's
    """The guest has run for as long as it may."""


class Device(Protocol):
    """What answers calls."""

    fd: int

    def ioctl(self, fd: int, request: int, argument: int | bytearray, deadline: float) -> int:
        """Answer one call; bytes are changed in place.

        Raises:
            OSError: with KVM's errno.
            TimeIsUp: the guest runs at the deadline (of `time.thread_time`) and has not left.
        """


class HostDevice:
    """The kernel's KVM."""

    def __init__(self) -> None:
        self._ioctl = ctypes.CDLL(None, use_errno=True).ioctl  # takes any number, never repeats a call by itself
        self._ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
        self.fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "KVM is Linux's")
        self._shared: dict[int, mmap.mmap] = {}
        signal.signal(signal.SIGALRM, lambda *_: None)  # KVM_RUN returns EINTR
        signal.siginterrupt(signal.SIGALRM, True)

    def ioctl(self, fd: int, request: int, argument: int | bytearray, deadline: float) -> int:
        """Answer one call."""
        if isinstance(argument, int):
            return self._run(fd, deadline) if request == KVM_RUN and not argument else self._call(fd, request, argument)
        room = ctypes.create_string_buffer(bytes(argument), max(len(argument), 4096))
        result = self._call(fd, request, ctypes.addressof(room))
        argument[:] = room.raw[: len(argument)]
        return result

    def _call(self, fd: int, request: int, argument: int) -> int:
        result = self._ioctl(fd, request, argument)
        if result < 0:
            raise OSError(ctypes.get_errno(), "ioctl")
        return int(result)

    def _run(self, fd: int, deadline: float) -> int:
        """KVM_RUN; a timer that ticks again and again brings an endless loop back."""
        if fd not in self._shared:
            with contextlib.suppress(OSError):
                self._shared[fd] = mmap.mmap(fd, mmap.PAGESIZE)
        signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
        try:
            while True:
                try:
                    return self._call(fd, KVM_RUN, 0)
                except InterruptedError:
                    if self._shared[fd][Run.immediate_exit.offset]:
                        raise  # not a tick: the caller wanted it
                    if time.thread_time() >= deadline:
                        raise TimeIsUp from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def serve(connection: socket.socket, make: Callable[[], Device]) -> NoReturn:
    """Make the device, then answer calls until the caller goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        device = make()
    except Exception as error:  # whatever it is, the caller shall say it
        connection.send(ANSWER.pack(-1, 0.0) + f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    socket.send_fds(connection, [ANSWER.pack(device.fd, 0.0)], [device.fd])
    while packet := connection.recv(LARGEST):
        _answer(connection, device, packet)
    os._exit(0)


def _answer(connection: socket.socket, device: Device, packet: bytes) -> None:
    fd, request, carries, number, seconds = ORDER.unpack_from(packet)
    data = bytearray(packet[ORDER.size :])
    started = time.thread_time()
    try:
        result = device.ioctl(fd, request, data if carries else number, started + seconds)
    except TimeIsUp:
        result = TIME_IS_UP
    except OSError as error:
        result = -(error.errno or errno.EIO)
    except Exception as error:  # a defect of ours: say so instead of dying silently
        result, data = BROKEN, bytearray(f"{type(error).__name__}: {error}".encode()[:1000])
    answer = ANSWER.pack(result, time.thread_time() - started) + data
    if result >= 0 and request in CREATES:
        socket.send_fds(connection, [answer], [result])
    else:
        connection.send(answer)
