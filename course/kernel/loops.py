"""What does it cost to cross into the kernel? Machine-code loops, timed from outside.

Python needs about 100 ns for calling anything at all, which would hide what we look for. So each kind of *round* is a
loop in machine code::

    empty      count down                                 the loop itself
    call       count down, call a function (x² + 1)       an ordinary call within the program
    vdso       count down, clock_gettime through the C    the kernel's code and data, mapped into the program:
               library                                    no crossing
    syscall    count down, clock_gettime by the           the same question, asked across the boundary
               instruction that enters the kernel

The clock asked for is CLOCK_MONOTONIC_COARSE, which the vDSO answers on every machine, whatever its clock source.

A **bench** is a Unix socket that answers requests ``{"kind": "syscall", "rounds": 100000}`` with ``{"ns": 11012345}``.
`measure` asks one. The native bench runs the loops in a child process; a simulated bench has known costs, a start-up
time and disturbances, so that a method of measuring can be judged exactly. Every bench keeps a log, its own witness.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ..error import CapabilityError, CourseError
from .listener import JsonListener
from .tracer import withheld

KINDS = ("empty", "call", "vdso", "syscall")
MAX_ROUNDS = 20_000_000
_CODE: dict[str, dict[str, str]] = {
    # Each is a function of (rounds, address of clock_gettime); generated once with an assembler from the text beside.
    "x86_64": {
        # again: dec rdi; jnz again; ret
        "empty": "48ffcf 75fb c3",
        # again: call f; dec rdi; jnz again; ret
        # f:     push rbp; mov rbp,rsp; imul rax,rax; inc rax; pop rbp; ret
        "call": "e806000000 48ffcf 75f6 c3 55 4889e5 480fafc0 48ffc0 5d c3",
        # push rbx; push rbp; sub rsp,24; mov rbx,rdi; mov rbp,rsi
        # again: mov edi,6; mov rsi,rsp; call rbp; dec rbx; jnz again; add rsp,24; pop rbp; pop rbx; ret
        "vdso": "53 55 4883ec18 4889fb 4889f5 bf06000000 4889e6 ffd5 48ffcb 75f1 4883c418 5d 5b c3",
        # push rbx; sub rsp,16; mov rbx,rdi
        # again: mov eax,228; mov edi,6; mov rsi,rsp; syscall; dec rbx; jnz again; add rsp,16; pop rbx; ret
        "syscall": "53 4883ec10 4889fb b8e4000000 bf06000000 4889e6 0f05 48ffcb 75ec 4883c410 5b c3",
    },
    "aarch64": {
        # again: subs x0,x0,#1; b.ne again; ret
        "empty": "000400f1 e1ffff54 c0035fd6",
        # stp x29,x30,[sp,#-16]!; again: bl f; subs x0,x0,#1; b.ne again; ldp x29,x30,[sp],#16; ret
        # f: stp x29,x30,[sp,#-16]!; mul x1,x1,x1; add x1,x1,#1; ldp x29,x30,[sp],#16; ret
        "call": "fd7bbfa9 05000094 000400f1 c1ffff54 fd7bc1a8 c0035fd6 fd7bbfa9 217c019b 21040091 fd7bc1a8 c0035fd6",
        # stp x29,x30,[sp,#-48]!; stp x19,x20,[sp,#16]; mov x19,x0; mov x20,x1
        # again: mov x0,#6; add x1,sp,#32; blr x20; subs x19,x19,#1; b.ne again; ldp …; ldp …; ret
        "vdso": "fd7bbda9 f35301a9 f30300aa f40301aa c00080d2 e1830091 80023fd6 730600f1 81ffff54 f35341a9 fd7bc3a8"
        "c0035fd6",
        # sub sp,sp,#16; mov x9,x0; again: mov x8,#113; mov x0,#6; mov x1,sp; svc #0; subs x9,x9,#1; b.ne again; …
        "syscall": "ff4300d1 e90300aa 280e80d2 c00080d2 e1030091 010000d4 290500f1 61ffff54 ff430091 c0035fd6",
    },
}


def code_of(kind: str, machine: str = "x86_64") -> bytes:
    """Return the machine code of one loop: a function of (rounds, address of clock_gettime)."""
    return bytes.fromhex(_CODE[machine][kind])


class BenchError(CourseError):
    """A bench refused a request; the message says which value was wrong."""


def measure(bench: str, kind: str, rounds: int) -> float:
    """Ask a bench to run a loop once.

    Args:
        bench: address of the bench (path of a Unix socket).
        kind: ``"empty"``, ``"call"``, ``"vdso"`` or ``"syscall"``.
        rounds: how often the loop goes round, 1 to 20 million.

    Returns:
        Nanoseconds from before the first round to after the last, the start-up of the loop included.

    Raises:
        BenchError: when the bench refuses, with its reason.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(bench)
        client.sendall(json.dumps({"kind": kind, "rounds": rounds}).encode() + b"\n")
        with client.makefile() as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
    if "error" in answer:
        raise BenchError(answer["error"])
    return float(answer["ns"])


@dataclasses.dataclass(frozen=True)
class Run:
    """One answered request: `ns` nanoseconds for `rounds` rounds of `kind`."""

    kind: str
    rounds: int
    ns: float


class Bench(JsonListener):
    """A socket that runs loops on request and keeps a log of what it ran.

    Made by `native` or `simulated`; a context manager.

    Attributes:
        path: the address to hand to `measure`.
        log: every run, in order.
    """

    def __init__(self, run: Callable[[str, int], float], close: Callable[[], None] = lambda: None) -> None:
        self._run = run
        self._close = close
        self.log: list[Run] = []
        super().__init__("bench")

    def __repr__(self) -> str:
        return f"<Bench at {self.path}: {len(self.log)} runs>"

    @classmethod
    def native(cls) -> Bench:
        """Open a bench on this machine's CPU.

        Raises:
            CapabilityError: when there are no loops for this CPU, or machine code may not be made at run time.
        """
        worker = _Worker()
        return cls(worker.run, worker.close)

    @classmethod
    def simulated(
        cls,
        costs_ns: Mapping[str, float],
        *,
        loop_ns: float,
        start_ns: float = 20_000.0,
        seed: int = 0,
        disturbed: bool = True,
    ) -> Bench:
        """Open a bench with known costs.

        Args:
            costs_ns: what one call, vDSO call and system call cost beyond the loop.
            loop_ns: one empty round.
            start_ns: what starting the loop costs, once per run.
            seed: decides the disturbances.
            disturbed: whether the first run of each kind, and every seventh from the third to fifth on, takes 3 to 30
                times as long (a cold cache, an interruption). Fewer than half of any five or more runs are hit.
        """
        return cls(Simulation(dict(costs_ns), loop_ns, start_ns, disturbed, random.Random(seed)).run)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, end the loops, remove the address."""
        super().close()
        self._close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        kind, rounds = request.get("kind"), request.get("rounds")
        if kind not in KINDS:
            return {"error": f"kind {kind!r} is unknown; expected one of {', '.join(KINDS)}"}
        if type(rounds) is not int or not 1 <= rounds <= MAX_ROUNDS:
            return {"error": f"rounds is {rounds!r}; expected a whole number from 1 to {MAX_ROUNDS:,}"}
        try:
            ns = self._run(str(kind), rounds)
        except CourseError as error:
            return {"error": str(error)}
        self.log.append(Run(str(kind), rounds, ns))
        return {"ns": ns}


@dataclasses.dataclass
class Simulation:
    """Costs that are known, and the disturbances of a busy machine: 2 % of jitter, cold first runs, interruptions."""

    costs_ns: dict[str, float]
    loop_ns: float
    start_ns: float
    disturbed: bool
    rng: random.Random
    _runs: dict[str, int] = dataclasses.field(default_factory=dict)
    _phase: dict[str, int] = dataclasses.field(default_factory=dict)

    def run(self, kind: str, rounds: int) -> float:
        """Return the nanoseconds that this run would have taken."""
        ns = self.start_ns + rounds * (self.loop_ns + self.costs_ns.get(kind, 0.0)) * self.rng.uniform(1.0, 1.02)
        nth = self._runs.get(kind, 0)
        self._runs[kind] = nth + 1
        phase = self._phase.setdefault(kind, self.rng.randrange(2, 5))
        if self.disturbed and (nth == 0 or nth % 7 == phase):
            ns *= self.rng.uniform(3, 30)
        return ns


class _Worker:
    """The child process that runs the native loops; one line of JSON per request."""

    def __init__(self) -> None:
        if platform.machine() not in _CODE or sys.platform != "linux" or withheld("native-code"):
            raise CapabilityError(
                "timing machine code",
                f"there are loops for {', '.join(_CODE)} on Linux, this is {platform.machine()} {sys.platform}",
                "Use Bench.simulated: the method is the same.",
            )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "course.kernel.loop_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        try:
            self.run("empty", 1000)
        except BenchError as error:
            self.close()
            raise CapabilityError(
                "timing machine code", str(error), "Use Bench.simulated: the method is the same."
            ) from None

    def run(self, kind: str, rounds: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(f"{kind} {rounds}\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:
                line = ""
        if not line:
            said = self._process.communicate()[1].strip().splitlines()
            code = self._process.returncode
            raise BenchError(f"the process that runs the loops ended with exit code {code}: {' '.join(said[-1:])}")
        return float(line)

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.kill()
        self._process.wait()
