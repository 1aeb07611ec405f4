"""KVM's own calls, step by step, on two devices: the host's ``/dev/kvm``, and one that is emulated everywhere.

::

    with rawkvm.open("fake") as kvm:                        # or "kvm", where this machine has one; or "best"
        vm = kvm.ioctl(kvm.fd, KVM_CREATE_VM, 0)
        memory = kvm.memory(0x1000)                         # bytes of ours that the guest will see as its memory
        slot = MemoryRegion(0, 0, 0x1000, len(memory), kvm.address(memory))
        kvm.ioctl(vm, KVM_SET_USER_MEMORY_REGION, slot)
        vcpu = kvm.ioctl(vm, KVM_CREATE_VCPU, 0)
        run = Run.from_buffer(kvm.mmap(vcpu, kvm.ioctl(kvm.fd, KVM_GET_VCPU_MMAP_SIZE, 0)))
        ...
        kvm.ioctl(vcpu, KVM_RUN, 0)

Requests, structures, results and errors (`OSError` with KVM's errno) are KVM's. What differs from C: memory for the
guest comes from `Kvm.memory`, because the device lives in a child process, which shares that memory and can be killed:
no guest hangs or crashes the caller. The ``with`` closes all that the caller leaves open.

Not part of KVM's promise, and different from host to host: where ``rip`` stands at an exit for port or memory-mapped
I/O. KVM completes that instruction at the next ``KVM_RUN``; with ``immediate_exit`` set, it does no more than that.

Source: Linux, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import mmap
import os
import socket
import weakref
from types import TracebackType
from typing import Any, NoReturn

from ..capability.kvm_abi import (
    EXITS,
    KVM_CAP_IMMEDIATE_EXIT,
    KVM_CAP_USER_MEMORY,
    KVM_CHECK_EXTENSION,
    KVM_CREATE_VCPU,
    KVM_CREATE_VM,
    KVM_EXIT_FAIL_ENTRY,
    KVM_EXIT_HLT,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_INTR,
    KVM_EXIT_IO,
    KVM_EXIT_IO_IN,
    KVM_EXIT_IO_OUT,
    KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN,
    KVM_GET_API_VERSION,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_MEM_READONLY,
    KVM_RUN,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_TSS_ADDR,
    KVM_SET_USER_MEMORY_REGION,
    MemoryRegion,
    Regs,
    Run,
    Segment,
    Sregs,
    request_name,
    segment,
)
from ..error import CapabilityError, UsageError
from .availability import Availability
from .error import BudgetSpentError, VcpuError
from .kvm_device import ANSWER, BROKEN, CREATES, LARGEST, ORDER, TIME_IS_UP, Device, HostDevice, serve
from .process import START_S, end, fork_child, keep_only

__all__ = [
    "ARENA", "DEVICES", "EXITS", "KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_USER_MEMORY", "KVM_CHECK_EXTENSION",
    "KVM_CREATE_VCPU", "KVM_CREATE_VM", "KVM_EXIT_FAIL_ENTRY", "KVM_EXIT_HLT", "KVM_EXIT_INTERNAL_ERROR",
    "KVM_EXIT_INTR", "KVM_EXIT_IO", "KVM_EXIT_IO_IN", "KVM_EXIT_IO_OUT", "KVM_EXIT_MMIO", "KVM_EXIT_SHUTDOWN",
    "KVM_GET_API_VERSION", "KVM_GET_REGS", "KVM_GET_SREGS", "KVM_GET_VCPU_MMAP_SIZE", "KVM_MEM_READONLY", "KVM_RUN",
    "KVM_SET_REGS", "KVM_SET_SREGS", "KVM_SET_TSS_ADDR", "KVM_SET_USER_MEMORY_REGION", "Kvm", "MemoryRegion", "Regs",
    "Run", "Segment", "Sregs", "devices", "open", "request_name", "segment",
]  # fmt: skip

DEVICES = ("kvm", "fake")
ARENA = 64 << 20
"""Bytes of guest memory that one `Kvm` can give, in all; none is used before it is written."""
_PAGE = 4096
_BUSY = 20  # how much longer than its CPU time a call may take before the child is given up


def devices() -> list[Availability]:
    """Return both devices, the host's first, each with whether it runs guests here, and why not."""
    return [_examine(name) for name in DEVICES]


def _examine(name: str) -> Availability:
    how = {"kvm": "the host's kernel runs guests", "fake": "emulated with Unicorn, by this course"}
    try:
        _require(name)
    except CapabilityError as error:
        return Availability(name, False, error.why, error.remedy)
    return Availability(name, True, how[name])


def _require(name: str) -> None:
    from .kvm_engine import require_kvm  # noqa: PLC0415
    from .unicorn_engine import load  # noqa: PLC0415

    {"kvm": require_kvm, "fake": load}[name]()


def open(device: str = "best", *, seconds: float = 10.0, runs: int = 100_000) -> Kvm:
    """Open a device.

    Args:
        device: ``"kvm"``, ``"fake"``, or ``"best"``: the host's where it runs guests, else the emulated one.
        seconds: of CPU time for running guests, in all, before `BudgetSpentError`.
        runs: how many `KVM_RUN`, in all, before `BudgetSpentError`.

    Raises:
        CapabilityError: this machine has no such device; see `devices`.
        UsageError: there is no device of that name.
    """
    if device == "best":
        device = next((row.name for row in devices() if row), "fake")
    if device not in DEVICES:
        raise UsageError(f"there is no device {device!r}; there are {', '.join(DEVICES)} and 'best'")
    _require(device)
    return Kvm(device, seconds=seconds, runs=runs)


def _make(device: str, base: int, size: int) -> Device:
    if device == "kvm":
        return HostDevice()
    from .fakekvm import FakeKvm  # noqa: PLC0415 - imports Unicorn

    return FakeKvm(base, size)


@dataclasses.dataclass(frozen=True)
class _File:
    """An open file of KVM's: its number in the child, what it is, and how to know it again."""

    number: int
    kind: str
    identity: tuple[int, int]


class Kvm:
    """An open KVM device; made by `open`, used in a ``with``.

    Attributes:
        device: ``"kvm"`` or ``"fake"``.
        fd: what ``open("/dev/kvm")`` returns; the first argument of the system's requests.
    """

    def __init__(self, device: str, *, seconds: float, runs: int) -> None:
        self.device = device
        self._seconds, self._runs = seconds, runs
        self._left_s, self._left_runs = seconds, runs
        self._used_s = 0.0  # by the last call
        self._arena = mmap.mmap(-1, ARENA)  # shared with the child, at the same address
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        self._next = 0
        self._fds: dict[int, _File] = {}
        self._maps: list[mmap.mmap] = []
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> NoReturn:
            keep_only(theirs.fileno())
            serve(theirs, lambda: _make(device, self._base, ARENA))

        self._owner = os.getpid()
        self._pid = fork_child(work)
        theirs.close()
        self._end = weakref.finalize(self, _close, self._socket, self._pid, self._fds, self._maps, self._owner)
        try:
            self.fd = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> int:
        result, payload, fd = self._receive(START_S)
        if fd is None:
            why = payload.decode(errors="replace") or "its process ended at once"
            raise CapabilityError(f"the device {self.device}", why, "The device 'fake' works everywhere.")
        self._fds[fd] = _File(result, "/dev/kvm", _identity(fd))
        return fd

    def __enter__(self) -> Kvm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = (
            "closed"
            if self._socket.fileno() < 0
            else ", ".join(f"{fd}: {file.kind}" for fd, file in sorted(self._fds.items()))
        )
        return f"<Kvm {self.device!r} ({state})>"

    def memory(self, size: int) -> memoryview:
        """Return zeroed bytes that a guest can be given as its memory, beginning at a page; 1 byte to 64 MiB in all."""
        if not 0 < size <= ARENA - self._next:
            raise UsageError(f"{size} bytes of memory were asked for; {ARENA - self._next} of {ARENA} are left")
        start, self._next = self._next, self._next + -(-size // _PAGE) * _PAGE
        return memoryview(self._arena)[start : start + size]

    def address(self, memory: memoryview) -> int:
        """Return the address in this process of bytes that came from `memory`: `MemoryRegion.userspace_addr`."""
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def mmap(self, fd: int, size: int) -> mmap.mmap:
        """Map a vCPU's `Run` (its first bytes) and what lies behind it: port I/O data at `Run.io.data_offset`.

        Raises:
            OSError: EBADF or ENODEV when `fd` is no vCPU's, EINVAL when `size` is not what `KVM_GET_VCPU_MMAP_SIZE`
                returned or less.
        """
        if (kind := self._known(fd, "mmap").kind) != "kvm-vcpu":
            raise _error(errno.ENODEV, f"mmap of a file descriptor that is {kind}")
        largest = self.ioctl(self.fd, KVM_GET_VCPU_MMAP_SIZE, 0)
        if not 0 < size <= largest:
            raise _error(errno.EINVAL, f"mmap of {size} bytes; KVM_GET_VCPU_MMAP_SIZE says {largest}")
        self._maps.append(mmap.mmap(fd, size))
        return self._maps[-1]

    def ioctl(self, fd: int, request: int, argument: Any = 0) -> int:
        """Make one call, as ``ioctl(2)``.

        Args:
            fd: what `fd` or an earlier call returned.
            request: such as `KVM_RUN`.
            argument: a number, or a structure (or ``bytearray``), which the call may change.

        Returns:
            What KVM returns: 0, a number, or a new file descriptor.

        Raises:
            OSError: KVM refuses, with its errno.
            UsageError: a structure that is not as long as the request says, or memory that is not `Kvm.memory`.
            BudgetSpentError: the guests have run for as long, or as often, as `open` allowed.
            VcpuError: the device's process is gone.
        """
        file = self._known(fd, request_name(request))
        payload = _payload(request, argument)
        if request == KVM_SET_USER_MEMORY_REGION and payload is not None:
            self._reject_foreign_memory(MemoryRegion.from_buffer_copy(payload))
        spend = request == KVM_RUN and file.kind == "kvm-vcpu"
        if spend:
            self._charge()
        result, answer, new = self._ask(file.number, request, argument, payload)
        if result == TIME_IS_UP:
            self._left_s = 0.0
            self._charge()
        if result == BROKEN:
            raise VcpuError(f"the device {self.device} failed in {request_name(request)}: {answer.decode()}")
        if result < 0:
            raise _error(-result, request_name(request))
        if payload is not None and not isinstance(argument, bytes):
            ctypes.memmove((ctypes.c_char * len(answer)).from_buffer(argument), answer, len(answer))
        if new is None:
            return result
        self._fds[new] = _File(result, CREATES[request], _identity(new))
        return new

    def _charge(self) -> None:
        if self._left_s <= 0:
            raise BudgetSpentError(
                f"the guests ran for {self._seconds:g} s, all that was allowed; look for a loop in the guest without "
                "an exit, or allow more: open(..., seconds=)"
            )
        if self._left_runs <= 0:
            raise BudgetSpentError(
                f"KVM_RUN was called {self._runs} times, all that was allowed; look for a loop that overlooks the exit "
                "that ends the guest, or allow more: open(..., runs=)"
            )
        self._left_runs -= 1

    def _known(self, fd: int, what: str) -> _File:
        if self._socket.fileno() < 0:
            raise VcpuError(f"{what} on a device that is closed; make the call inside the `with`")
        if os.getpid() != self._owner:
            raise VcpuError(f"{what} in another process than the one that opened the device; open it there")
        if not isinstance(fd, int):
            raise UsageError(f"a file descriptor is a number; {fd!r:.60} was given as the first argument of {what}")
        try:
            os.fstat(fd)
        except (OSError, OverflowError):
            raise _error(errno.EBADF, f"{what} on file descriptor {fd}, which is not open") from None
        if fd not in self._fds:
            raise _error(errno.ENOTTY, f"{what} on file descriptor {fd}, which is not KVM's")
        return self._fds[fd]

    def _reject_foreign_memory(self, region: MemoryRegion) -> None:
        at = region.userspace_addr - self._base
        if region.memory_size and region.userspace_addr and not 0 <= at <= at + region.memory_size <= ARENA:
            raise UsageError(
                f"userspace_addr {region.userspace_addr:#x} with {region.memory_size:#x} bytes is not (only) memory "
                "from kvm.memory(); give kvm.address() of bytes that came from there, and no more than their length"
            )

    def _ask(self, number: int, request: int, argument: Any, payload: bytes | None) -> tuple[int, bytes, int | None]:
        plain = argument if payload is None else 0
        order = ORDER.pack(number, request, payload is not None, plain, self._left_s)
        try:
            self._socket.send(order + (payload or b""))
            answer = self._receive(START_S + (_BUSY * self._left_s if request == KVM_RUN else 0))
        except OSError:
            self.close()
            raise VcpuError("the device's process did not answer in time, or ended, and was removed") from None
        except BaseException:  # Ctrl-C: the answer to this call must not be taken for the next one's
            self.close()
            raise
        if request == KVM_RUN:
            self._left_s -= self._used_s
        return answer

    def _receive(self, seconds: float) -> tuple[int, bytes, int | None]:
        self._socket.settimeout(seconds)
        packet, fds, _, _ = socket.recv_fds(self._socket, LARGEST, 1)
        if len(packet) < ANSWER.size:
            raise ConnectionResetError
        result, used_s = ANSWER.unpack_from(packet)
        self._used_s = used_s
        return result, packet[ANSWER.size :], fds[0] if fds else None

    def close(self) -> None:
        """End the child, and with it every virtual machine; may be called twice.

        A device that is forgotten in a notebook is closed when Python collects it.
        """
        self._end()


def _close(connection: socket.socket, pid: int, fds: dict[int, _File], maps: list[mmap.mmap], owner: int) -> None:
    """Give back what a `Kvm` holds; in a process that was forked from the owner, the child is not ours to end."""
    connection.close()
    if os.getpid() == owner:
        end(pid)
    for mapping in maps:
        with contextlib.suppress(BufferError):  # a structure of the caller's still looks into it
            mapping.close()
    for fd, file in fds.items():
        with contextlib.suppress(OSError):
            if _identity(fd) == file.identity:  # else the caller has closed it, and the number is somebody else's
                os.close(fd)
    fds.clear()


def _identity(fd: int) -> tuple[int, int]:
    state = os.fstat(fd)
    return state.st_dev, state.st_ino


def _error(number: int, what: str) -> OSError:
    return OSError(number, f"{os.strerror(number)} ({errno.errorcode.get(number, number)}): {what}")


def _payload(request: int, argument: Any) -> bytes | None:
    """Return the bytes that a call carries; None for a plain number.

    Raises:
        UsageError: they are fewer than the kernel would read, or a pointer as a number.
    """
    size = request >> 16 & 0x3FFF
    if isinstance(argument, int):
        if size and argument:
            raise UsageError(f"{request_name(request)} takes a structure of {size} bytes; pass the structure itself")
        if not 0 <= argument < 1 << 63:
            raise UsageError(f"{request_name(request)} takes a number from 0 to 2**63 - 1; {argument} was given")
        return None
    if isinstance(argument, bytes) and request >> 30 & 2:
        raise UsageError(f"{request_name(request)} fills in what it is given; bytes cannot be changed, a structure can")
    try:
        data = bytes(argument)
    except TypeError:
        raise UsageError(f"{request_name(request)} takes a number or a structure; {argument!r:.60} was given") from None
    if len(data) < size:
        raise UsageError(f"{request_name(request)} takes a structure of {size} bytes; this one has {len(data)}")
    if len(data) > LARGEST - ORDER.size:
        raise UsageError(f"{request_name(request)}: {len(data)} bytes are more than the {LARGEST - ORDER.size} allowed")
    return data
