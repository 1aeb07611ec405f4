"""How well this machine can shut a student's kernel in, and how much a box may use."""

from __future__ import annotations

import dataclasses
import enum
import resource
from collections.abc import Sequence


class Isolation(enum.StrEnum):
    """How a kernel is shut in, from the best to nothing."""

    NAMESPACES = "namespaces"
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    NONE = "none"


@dataclasses.dataclass(frozen=True)
class Level:
    """What can be done here, and why not better or not all of it; to be kept with the grades.

    Attributes:
        level: how kernels are shut in.
        reasons: what was refused on the way, and what this level leaves open; empty when all is as it should be.
        userns: namespaces are made in a user namespace (else by root, who then becomes somebody else).
    """

    level: Isolation
    reasons: tuple[str, ...] = ()
    userns: bool = False

    def __str__(self) -> str:
        return f"{self.level}" + "".join(f"; {reason}" for reason in self.reasons)

    @property
    def warning(self) -> str:
        """What an instructor has to know before he grades; empty where students' kernels are shut in well."""
        if self.level is Isolation.NONE:
            risk = "STUDENTS' CODE RUNS WITH YOUR RIGHTS: it can read and change all that you can, and use the network."
        elif self.level is Isolation.LANDLOCK:
            risk = "Students' kernels are shut in only partly."
        else:
            return ""
        return f"{risk} Level {self}. Grade where user namespaces are allowed (see `course doctor`), or in a container."


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one box may use.

    Attributes:
        address_space_mib: of each process.
        memory_mib: of all its processes together; beyond it the box is ended.
        processes: and threads, at a time.
        disk_mib: of its files together (they live in memory).
        file_mib: of each file.
        open_files: of each process.
        cpu_s: seconds of processor time of each process; None for no limit.
        run_mib: of the folder that it shares with the judge; beyond it the box is ended.
        kvm: whether /dev/kvm is there for it.
    """

    address_space_mib: int = 6144
    memory_mib: int = 2048
    processes: int = 200
    disk_mib: int = 768
    file_mib: int = 512
    open_files: int = 1024
    cpu_s: int | None = None
    run_mib: int = 64
    kvm: bool = False

    def by_process(self, *, others: int = 0) -> list[tuple[int, int]]:
        """Return what the kernel counts by process or user: resource and limit.

        Args:
            others: processes and threads of the same user that do not belong to the box.
        """
        wanted = [
            (resource.RLIMIT_AS, self.address_space_mib << 20),
            (resource.RLIMIT_FSIZE, self.file_mib << 20),
            (resource.RLIMIT_NOFILE, self.open_files),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, self.processes + others),
        ]
        if self.cpu_s is not None:
            wanted.append((resource.RLIMIT_CPU, self.cpu_s))
        return wanted


def worse(levels: Sequence[Level]) -> Level:
    """Return the weakest of several levels, with the reasons of all."""
    order = list(Isolation)
    last = max(levels, key=lambda one: order.index(one.level))
    return dataclasses.replace(last, reasons=tuple(dict.fromkeys(r for one in levels for r in one.reasons)))
