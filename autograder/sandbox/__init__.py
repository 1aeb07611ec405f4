"""Layer 3 of the grader: each student's kernel in a box of its own.

    from autograder import sandbox

    level = sandbox.probe()                             what this machine allows, tried in a child process
    with sandbox.Zygote(level) as zygote:               one per grader: everything imported, ready to be forked
        with zygote.box(workdir, run_dir) as box:       a kernel in a box, in a tenth of a second
            client.load_connection_file(box.connection_file)
            box.interrupt()                             KeyboardInterrupt in the running cell
            box.cpu_s, box.memory, box.alive(), box.exitcode, box.why
            box.kill()                                  ends every process in it

After ``sandbox.register()``, nbclient, nbconvert and nbgrader start this process's kernels in boxes
(`SandboxProvisioner`). Nothing else is needed.

What a student's process finds in a box of level ``namespaces``: a root that is read-only but for 768 MiB of memory
(``/tmp``, its home, the guests' cache); the system's programs, Python, the course without lessons; a copy of its
submission without notebooks, as the working directory; processes of its own only; a loopback network of its own; a user
id of its own (where the grader is root); no capability, no way to more rights, a filter of system calls; limits for
memory, processes, files, by process and (control groups where there are any, else a watch ten times a second) for all
together. QEMU, the course's guests, foreign programs, ptrace and Unix sockets work; new namespaces inside do not.

==============  =============================  ======================================================================
level           needs                          how
==============  =============================  ======================================================================
``namespaces``  root, or user namespaces       forked from the zygote; a root, a network and processes of its own
``bubblewrap``  bwrap that may do what we may  the same by the program of Flatpak, started anew for each kernel
                not
``landlock``    Linux 5.13                     forked; beneath the host's root, where files outside are refused
``none``        —                              an ordinary kernel: `Level.warning` must be shown and kept
==============  =============================  ======================================================================

The run directory is shared by both sides under one path: sockets of the kernel, of machines (QMP), files. Whatever lies
in it was made by a student: the judge does not follow its links, and reads the connection file before it runs a cell.
A cluster that runs outside is reached inside at 127.0.0.1: ``zygote.box(…, forwards={8006: run_dir / "pve.sock"})``.

Other systems than Linux have no boxes: `probe` says ``none``, `register` does nothing, `Zygote` refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .level import Isolation, Level, Limits

if TYPE_CHECKING:
    from .probing import probe
    from .provisioner import SandboxProvisioner, register, unregister
    from .zygote import Box, SandboxError, Zygote

__all__ = [
    "Box",
    "Isolation",
    "Level",
    "Limits",
    "SandboxError",
    "SandboxProvisioner",
    "Zygote",
    "probe",
    "register",
    "unregister",
]

_MODULES = {
    "probe": "probing",
    "SandboxProvisioner": "provisioner",
    "register": "provisioner",
    "unregister": "provisioner",
    "Box": "zygote",
    "SandboxError": "zygote",
    "Zygote": "zygote",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a probe needs no Jupyter."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
