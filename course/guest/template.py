"""Templates: a guest booted once, stopped at its prompt and kept, so that others begin where it stopped.

::

    boot (2 s) ─▶ shell ─▶ pause ─▶ save with x-ignore-shared        the RAM stays where it is: in a file
                                     ├─ ram      its whole RAM
                                     └─ state    all devices, 0.4 MB

    a clone maps `ram` copy-on-write, reads `state`, and runs: 0.1 s

Source: QEMU, docs/devel/migration, capability x-ignore-shared; "VM templating" in the QEMU system manual.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

from ..error import GuestError, MachineError
from ..machine import Machine
from ..machine.qemu import find
from . import cache, initramfs, kernel
from .commandline import Spec, command_line
from .ramcounter import COUNTER_GPA

CAPABILITIES = ("x-ignore-shared",)
READY = r"READY [\d.]*\n"
PROMPT = r"# "
BOOT_TIMEOUT_S = 120

_FORMAT = 3


@dataclasses.dataclass(frozen=True)
class Files:
    """What a guest boots from."""

    kernel: Path
    initrd: Path


@dataclasses.dataclass(frozen=True)
class Template:
    """A stopped guest.

    Attributes:
        entry: where it is kept.
        ram: its RAM.
        state: its devices.
    """

    entry: cache.Entry
    ram: Path
    state: Path


def files() -> Files:
    """Return kernel and initramfs, building them on first use."""
    linux = kernel.ensure()
    return Files(linux.image, initramfs.ensure(linux))


def ensure(spec: Spec, boot: Files) -> Template:
    """Return the template for `spec`, booting it on first use.

    Raises:
        GuestError: the guest does not boot, or there is no room for it.
    """
    arguments = command_line(spec, kernel=boot.kernel, initrd=boot.initrd, name="template", ram_file=None, shared=True)
    # The program's file stands for its version: a newer build may save another format. Kernel and initramfs lie under
    # paths that are keys of their content.
    program = find(spec.binary).resolve()
    state = program.stat()
    key = cache.key_of("template", _FORMAT, str(program), state.st_size, state.st_mtime_ns, spec.accel, arguments)

    def build(directory: Path) -> None:
        _boot(spec, boot, directory)

    entry = cache.entry("templates", key, build, needs_mib=spec.ram_mib + 16)
    return Template(entry, _openable(entry), entry.path / "state")


def _openable(entry: cache.Entry) -> Path:
    """Return the RAM of a template as a file that QEMU can open.

    It maps the file copy-on-write, and yet older ones insist on opening it for writing. In a cache that belongs to
    somebody else, such as a teacher's or a grader's, that is refused: then clones share a copy in a cache of our own.
    """
    ram = entry.path / "ram"
    try:
        os.close(os.open(ram, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        copy = cache.entry("copies", entry.key, lambda directory: _copy(ram, directory / "ram"))
        return copy.path / "ram"
    return ram


def _copy(source: Path, target: Path) -> None:
    """Copy a file, leaving holes where it is zero: most of a small guest's RAM."""
    with source.open("rb") as full, target.open("wb") as sparse:
        while chunk := full.read(1 << 18):
            if chunk.count(0) == len(chunk):
                sparse.seek(len(chunk), os.SEEK_CUR)
            else:
                sparse.write(chunk)
        sparse.truncate(full.tell())


def _boot(spec: Spec, boot: Files, directory: Path) -> None:
    cache.tell("booting a Linux guest once, to clone it from now on (3 to 6 s)")
    ram = directory / "ram"
    with ram.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, spec.ram_mib << 20)  # a full disk shows here, not as SIGBUS in QEMU
    arguments = command_line(spec, kernel=boot.kernel, initrd=boot.initrd, name="template", ram_file=ram, shared=True)
    vm = Machine(*arguments, name="template", accel=spec.accel, binary=spec.binary)
    try:
        with vm:
            vm.console.expect(READY, BOOT_TIMEOUT_S)
            vm.console.expect(PROMPT)
            # The first run of a program reads it in: once here, never in the clones. And silence, for their first line.
            vm.console.run("date >/dev/null; set +v")
            vm.console.expect(PROMPT)  # whole, or the rest of it would come out of every clone
            _require_counter(vm)
            vm.save(directory / "state", capabilities=CAPABILITIES, resume=False)
    except MachineError as cause:
        free_mib = shutil.disk_usage(directory).free >> 20
        raise GuestError(
            f"the Linux guest that clones are made of did not come up ({free_mib} MiB free in {directory.parent}): "
            f"{cause}\nRun course doctor; a cold boot shows more: guest.linux(cold=True)"
        ) from cause


def _require_counter(vm: Machine) -> None:
    end = time.monotonic() + 10
    while vm.read_memory(COUNTER_GPA, 4) == bytes(4):
        if time.monotonic() > end:
            raise GuestError(
                f"the guest's RAM counter at {COUNTER_GPA:#x} stands still: this kernel does not let /sbin/ramcounter "
                "map /dev/mem. Fetch Debian's cloud kernel, or name it: COURSE_KERNEL_DEB=/path/to/it"
            )
        time.sleep(0.02)
