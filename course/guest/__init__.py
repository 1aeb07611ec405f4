"""Everything that boots: a small Linux, programs without any system, disks and CDs, made here and kept in a cache.

::

    from course import guest

    with guest.linux() as vm:                       # a clone of a booted Linux: 0.1 s
        print(vm.console.run("uname -r"))

    Machine("-kernel", guest.baremetal.counter())   # 32-bit code, no system
    Machine("-drive", f"file={guest.bootsector.disk()},format=raw,snapshot=on")
    Machine("-m", "192", *guest.iso.drive(guest.iso.live()))
"""

from __future__ import annotations

from ..error import GuestError
from . import baremetal, bootsector, cache, iso, nested, powerpc, template
from .cache import Progress, cache_dir
from .commandline import Spec
from .linux import LinuxGuest, counter, linux
from .ramcounter import COUNTER_GPA

__all__ = [
    "COUNTER_GPA",
    "LinuxGuest",
    "baremetal",
    "bootsector",
    "build",
    "cache_dir",
    "counter",
    "iso",
    "linux",
    "nested",
    "powerpc",
]


def build(progress: Progress | None = None) -> None:
    """Build whatever is not there yet: kernel, userland, templates, live ISO, bare-metal programs, Linux for PowerPC.

    Args:
        progress: called with a short sentence at each step that takes time.

    Raises:
        GuestError: something cannot be fetched or built; says what, and what to do.
    """
    with cache.watched(progress):
        boot = template.files()
        for vga in (False, True):
            template.ensure(Spec(vga=vga), boot)
        try:
            nested.ensure()
        except GuestError as why:  # a kernel without kvm-amd: the other guests do without
            cache.tell(f"there will be no KVM in guests: {why}")
        iso.live()
        bootsector.disk()
        bootsector.cd()
        baremetal.hello()
        baremetal.counter()
        powerpc.available()  # if it can be had: lesson 02 does without it where it cannot
