"""A small Linux guest with a shell on its serial console: a clone of a booted template, or booted cold.

::

    clone:  QEMU -incoming ─▶ restore the template's state ─▶ plug disks and NICs ─▶ run ─▶ set name and clock ─▶ shell
    cold:   QEMU with disks and NICs ─▶ BIOS, kernel, init ─▶ shell

What a clone keeps of its template: its uptime, its boot id. What it gets of its own: name, clock, MAC addresses,
random numbers.
"""

from __future__ import annotations

import itertools
import secrets
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..error import GuestError, MigrationError, UsageError
from ..machine import Machine
from ..machine import disk as images
from . import cache, template
from .commandline import Device, Spec, command_line, disk, hostname, nic, on_ports
from .ramcounter import COUNTER_GPA

_QCOW2_MAGIC = b"QFI\xfb"
_PLUG_TIMEOUT_S = 60


class LinuxGuest(Machine):
    """A Linux guest; made by `linux`. After launch its shell waits at the prompt.

    It has a root shell on the console, `/sbin/ramcounter` counting in RAM, PCIe ports ``rp1`` … ``rp8`` for hot-plug,
    four slots for more RAM, and scripts: ``net-up``, ``mount-cgroups``. It powers off at the power button.

    Attributes:
        spec: the machine.
        cold: whether it boots by itself.
        devices: its disks and NICs, on their ports.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        cold: bool = False,
        disks: Sequence[str | Path | int] = (),
        nics: Sequence[Mapping[str, Any]] = (),
        progress: cache.Progress | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, binary=spec.binary, accel=spec.accel, **options)
        self.spec = spec
        self.cold = cold
        self.devices: list[Device] = []
        self._disks = list(disks)
        self._nics = list(nics)
        self._progress = progress

    def launch(self) -> None:
        """Start the guest and wait for its shell. The very first one fetches a kernel and boots a template.

        Raises:
            GuestError: there is no kernel and none can be fetched, no room, or the guest does not come up.
            LaunchError: QEMU did not start.
            UsageError: a disk or a NIC cannot be meant.
        """
        if self._process is not None:
            super().launch()  # which refuses
        with cache.watched(self._progress):
            boot = self.boot_files()
            stopped = None if self.cold else template.ensure(self.spec, boot)
        try:
            self.devices = self.devices or self._make_devices()
            self._set_arguments(boot, stopped.ram if stopped else None)
            super().launch()
            if stopped:
                self._become_clone(stopped)
            elif not self.incoming:
                self.await_shell(template.BOOT_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def boot_files(self) -> template.Files:
        """Return what it boots from, building it on first use."""
        return template.files()

    def await_shell(self, timeout_s: float = 60) -> None:
        """Wait until a guest that boots (after a cold start or a reset) has its shell at the prompt.

        Raises:
            ConsoleTimeout: it did not get there in time.
            MachineGone: QEMU ended.
        """
        end = time.monotonic() + timeout_s
        self.console.expect(template.READY, timeout_s)
        self.console.expect(template.PROMPT, max(1.0, end - time.monotonic()))

    def reset(self, timeout_s: float = 60) -> None:
        """Press the reset button and wait for the shell; nothing in RAM survives."""
        self.execute("system_reset")
        self.await_shell(timeout_s)

    def migration_target(self, name: str | None = None) -> LinuxGuest:
        """Return a guest, to be launched, that this one can migrate to: the same machine with the same devices.

        It uses the same disk files; those that this guest made for itself vanish when this guest is killed, so end
        the target first::

            with guest.linux(disks=[16]) as source, source.migration_target() as target:
                source.migrate(target)

        Args:
            name: the new machine's name (the guest keeps its hostname); None for the same.

        Raises:
            UsageError: this guest is not launched.
        """
        if not self.running:
            raise UsageError(f"{self!r} does not run: launch it before asking where it may go")
        target = type(self)(
            name or self.name, self.spec, cold=True, incoming=True, qmp_sockets=self._qmp_sockets, sandbox=self.sandbox
        )
        target.devices = list(self.devices)
        return target

    def _make_devices(self) -> list[Device]:
        disks = (disk(number, *self._image(number, wanted)) for number, wanted in enumerate(self._disks))
        nics = (nic(number, self.name, netdev) for number, netdev in enumerate(self._nics))
        return on_ports((*disks, *nics))

    def _image(self, number: int, wanted: str | Path | int) -> tuple[Path, str]:
        """Return a disk's file and format, making the file if only its size was given."""
        if isinstance(wanted, int):
            if isinstance(wanted, bool) or wanted < 1:
                raise UsageError(f"a disk of {wanted!r} MiB; expected a size of at least 1 MiB, or a path")
            path = self.private_directory().path / f"disk{number}.qcow2"
            images.create(path, wanted)
            return path, "qcow2"
        path = Path(wanted).absolute()
        if not path.is_file():
            raise UsageError(f"there is no disk image {path}; expected its path, or a size in MiB for a new one")
        with path.open("rb") as file:
            return path, "qcow2" if file.read(4) == _QCOW2_MAGIC else "raw"

    def _set_arguments(self, boot: template.Files, ram: Path | None) -> None:
        line = command_line(
            self.spec, kernel=boot.kernel, initrd=boot.initrd, name=self.name, ram_file=ram, shared=False
        )
        self.incoming = self.incoming or ram is not None
        plugged = () if ram else self.devices
        self.arguments = [*line, *(part for device in plugged for part in device.arguments())]

    def _become_clone(self, stopped: template.Template) -> None:
        try:
            self.restore(stopped.state, capabilities=template.CAPABILITIES, resume=False)
        except MigrationError as cause:
            cache.forget(stopped.entry)
            raise GuestError(
                f"the template in {stopped.entry.path} did not fit this QEMU and was removed; launch again, "
                f"and it is made anew. {cause}"
            ) from cause
        rounds = self._rounds() or [[]]
        for number, devices in enumerate(rounds, start=1):
            self._plug(devices)
            if number == 1:
                self.resume()
            commands = (self._identity() if number == 1 else "") + _wait_for(devices)
            if number < len(rounds):
                self.console.sendline(f"{commands}echo PLUGGED ''")
                self.console.expect(r"PLUGGED \n", _PLUG_TIMEOUT_S)
            else:  # the shell was silent until now
                self.console.sendline(f"{commands}set -v; echo READY ''")
                self.await_shell(_PLUG_TIMEOUT_S)

    def _rounds(self) -> list[list[Device]]:
        """Return which devices are plugged together: one disk and one NIC.

        Two disks that the guest finds in one scan may come in either order; it names them in the order it finds them.
        """
        disks = [device for device in self.devices if device.is_disk]
        nics = [device for device in self.devices if not device.is_disk]
        return [[device for device in pair if device] for pair in itertools.zip_longest(disks, nics)]

    def _plug(self, devices: Iterable[Device]) -> None:
        for device in devices:
            self.execute("blockdev-add" if device.is_disk else "netdev_add", dict(device.backend))
            self.execute("device_add", dict(device.device))

    def _identity(self) -> str:
        """Return shell commands that give the clone what is its own: random numbers, name, clock."""
        return (
            f"echo {secrets.token_hex(16)} >/dev/urandom; echo {hostname(self.name)} >/proc/sys/kernel/hostname; "
            f"date -s @{int(time.time())} >/dev/null; "
        )


def _wait_for(devices: Iterable[Device]) -> str:
    """Return shell commands that end when the guest has these devices."""
    return "".join(f"until [ -e {device.guest_path} ]; do usleep 20000; done; " for device in devices)


def linux(
    name: str = "vm",
    *,
    ram_mib: int = 128,
    cpus: int = 1,
    cold: bool = False,
    disks: Sequence[str | Path | int] = (),
    nics: Sequence[Mapping[str, Any]] = (),
    vga: bool = False,
    arguments: Iterable[str | Path | int] = (),
    accel: str = "tcg",
    binary: str = "qemu-system-x86_64",
    progress: cache.Progress | None = None,
    **options: Any,
) -> LinuxGuest:
    """Return a Linux guest, to be launched: ``with guest.linux() as vm: vm.console.run("uname -r")``.

    Args:
        name: the machine's name and the guest's hostname.
        ram_mib: RAM in MiB, at least 96.
        cpus: processors.
        cold: boot it (2 s and more) instead of cloning a booted one (0.1 s).
        disks: paths of images, raw or qcow2, or sizes in MiB: each makes a qcow2 image that vanishes with the
            machine. They are block nodes and devices ``disk0``, ``disk1`` …, in the guest /dev/vda, /dev/vdb …
        nics: QMP netdevs such as ``{"type": "user"}``, with an optional ``"mac"``: ``net0`` behind ``nic0``, in the
            guest eth0, down until ``net-up`` or ``ip`` brings it up.
        vga: give it a screen, for `screenshot`.
        arguments: further QEMU arguments. Each combination has its own template, booted when it is first used.
        accel: accelerator; the default works everywhere.
        binary: QEMU program.
        progress: told what is being built, if anything is.
        **options: those of `Machine`: `qmp_sockets`, `sandbox`, `pass_fds`, `launch_timeout_s`.

    Raises:
        UsageError: an argument cannot be meant.
    """
    spec = Spec(ram_mib, cpus, vga, tuple(str(argument) for argument in arguments), accel, binary)
    return LinuxGuest(name, spec, cold=cold, disks=disks, nics=nics, progress=progress, **options)


def counter(vm: Machine) -> int:
    """Return the number that a guest keeps only in its RAM, counting up: of `linux`, or of `baremetal.counter`.

    It goes on over a pause, a snapshot or a migration, and begins again after a reset.
    """
    count: int = struct.unpack("<I", vm.read_memory(COUNTER_GPA, 4))[0]
    return count
