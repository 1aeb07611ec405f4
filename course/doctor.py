"""What is missing on this machine for the course, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from . import capability, lab
from .capability import State
from .error import CapabilityError, CourseError
from .guest.cache import cache_dir
from .machine import qemu

PROGRAMS = {  # what lessons start -> Debian package, what for
    "qemu-system-x86_64": ("qemu-system-x86", "virtual machines"),
    "qemu-img": ("qemu-utils", "virtual disks"),
    "qemu-system-ppc64": ("qemu-system-ppc", "a PowerPC machine"),
    "qemu-system-riscv64": ("qemu-system-misc", "a RISC-V machine"),
    "qemu-aarch64": ("qemu-user", "programs of other processors"),
    "busybox": ("busybox-static", "the guests' programs"),
    "bwrap": ("bubblewrap", "the box for graded answers"),
}
FILES = {
    "/usr/lib/ISOLINUX/isolinux.bin": ("isolinux", "live ISOs"),
    "/usr/lib/syslinux/modules/bios/ldlinux.c32": ("syslinux-common", "live ISOs"),
}
NEEDED = ("qemu-system-x86_64", "qemu-img", "busybox")
MODULES = ("jupyterlab", "nbgrader", "ipywidgets", "anywidget", "proxmoxer", "qemu.qmp", "unicorn", "capstone")
DISK_MIB = 600


@dataclass(frozen=True)
class Symptom:
    """One thing that was looked at.

    Attributes:
        subject: what.
        state: whether it is fine.
        observed: what was seen.
        remedy: what to do; empty when it is fine.
        serious: lessons cannot do without it.
    """

    subject: str
    state: State
    observed: str
    remedy: str = ""
    serious: bool = False


def examine() -> list[Symptom]:
    """Look at everything: Python, its packages, the system's programs, the disk, the lessons, the tiers."""
    return [_python(), *_packages(), *_programs(), _disk(), _lessons(), *_tiers()]


def _fine(subject: str, observed: str) -> Symptom:
    return Symptom(subject, State.YES, observed)


def _missing(subject: str, observed: str, remedy: str) -> Symptom:
    return Symptom(subject, State.NO, observed, remedy, serious=True)


def _python() -> Symptom:
    return _fine("Python", f"{platform.python_version()} in {sys.prefix}")


def _packages() -> Iterator[Symptom]:
    absent = [name for name in MODULES if not _importable(name)]
    if absent:
        yield _missing("Python packages", f"absent: {', '.join(absent)}", "Run `make lab`, or `pip install -e .`.")
    else:
        yield _fine("Python packages", ", ".join(MODULES))


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _programs() -> Iterator[Symptom]:
    places = {name: shutil.which(name) for name in PROGRAMS}
    places |= {name: name if Path(name).exists() else None for name in FILES}
    for name, (package, purpose) in {**PROGRAMS, **FILES}.items():
        subject = f"{Path(name).name} ({purpose})"
        place = places[name]
        if place is None:
            remedy = f"sudo apt-get install {package}"
            yield Symptom(subject, State.NO, "not found", remedy, serious=name in NEEDED)
        elif unfit := _unfit_qemu(name):
            yield Symptom(subject, State.NO, unfit.why, unfit.remedy, serious=name in NEEDED)
        else:
            yield _fine(subject, place)


def _unfit_qemu(name: str) -> CapabilityError | None:
    """What is wrong with a QEMU that is there: too old, or it does not run."""
    if name.startswith("qemu-"):
        try:
            qemu.find(name)
        except CapabilityError as error:
            return error
    return None


def _disk() -> Symptom:
    place = existing_parent(cache_dir())
    if not place.is_dir():
        return _missing("room for guests", f"{place} is a file", "Set COURSE_CACHE to a folder of yours.")
    free_mib = shutil.disk_usage(place).free // 2**20
    observed = f"{free_mib} MiB free in {place}"
    if not os.access(place, os.W_OK):
        return _missing("room for guests", f"{place} cannot be written", "Set COURSE_CACHE to a folder of yours.")
    if free_mib < DISK_MIB:
        remedy = f"Free {DISK_MIB} MiB there, or set COURSE_CACHE to a folder on a larger disk."
        return _missing("room for guests", observed, remedy)
    return _fine("room for guests", observed)


def existing_parent(path: Path) -> Path:
    """Return `path` or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _lessons() -> Symptom:
    try:
        root = lab.course_root()
    except CourseError as error:
        return _missing("lessons", "not found", str(error))
    lessons = sorted(path.name for path in (root / lab.LESSONS).iterdir() if path.is_dir())
    return _fine("lessons", f"{len(lessons)} in {root / lab.LESSONS}")


def _tiers() -> Iterator[Symptom]:
    """Only T0 and T1 are needed for all points; the others make lessons richer."""
    for tier in capability.probe().tiers:
        observed = "; ".join(o.observed for o in tier.observations)
        remedy = " ".join(o.remedy for o in tier.observations if o.remedy)
        serious = tier.name in ("T0", "T1") and not tier
        yield Symptom(f"{tier.name} {tier.title}", tier.state, observed, remedy, serious)


def table(symptoms: list[Symptom]) -> Table:
    """Draw the symptoms for people."""
    result = Table(title="Is everything there?", title_justify="left")
    for heading in ("what", "state", "observed", "what to do"):
        result.add_column(heading, overflow="fold")
    for symptom in symptoms:
        state = f"{symptom.state.mark} {symptom.state.value}"
        weight = "[bold]needed:[/] " if symptom.serious else ""
        result.add_row(symptom.subject, state, symptom.observed, weight + symptom.remedy if symptom.remedy else "")
    return result
