"""Containers in the guest, whole or with one namespace missing, and the secrets that each namespace guards.

A box has a root of its own: an empty folder with the host's programs mounted into it. Take one namespace away, and one
thing of the host is within reach again:

======  ==========================================================================================
mnt     the host's files: the file ``/root/secret``
pid     the host's processes: one has a password among its arguments (``vault --password=…``)
net     the host's services: one tells a secret to whoever connects to 127.0.0.1, port 1690
user    the rights of the host's root: one of them is to read the kernel's log
======  ==========================================================================================
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..error import UsageError
from .laboratory import Laboratory, Ran

GUARDED = ("mnt", "pid", "net", "user")
PORT = 1690

_ROOT = "/lab/root"
_OPTIONS = {"user": "-U -r", "mnt": "-m", "uts": "-u", "ipc": "-i", "net": "-n", "pid": "-p -f"}


def hide(lab: Laboratory, secrets: Mapping[str, str]) -> None:
    """Put one secret per guarded namespace where only the host should find it.

    Args:
        lab: the host.
        secrets: namespace (one of `GUARDED`) → a word of letters and digits.
    """
    lab.put("/root/secret", (secrets["mnt"] + "\n").encode(), mode=0o600)
    lab.put("/lab/vault", b"#!/bin/sh\nsleep 3600\n", mode=0o755)
    arguments = "--mode=interactive --storage=/var/lib/vault --log=/var/log/vault.log --password=" + secrets["pid"]
    done = lab.run(
        f"echo 'vault: unlocked with {secrets['user']}' >/dev/kmsg\n"
        f"setsid /lab/vault {arguments} >/dev/null 2>&1 &\n"
        f"setsid nc -ll -p {PORT} -e echo {secrets['net']} >/dev/null 2>&1 &\n"
        f"until netstat -ltn | grep -q ':{PORT} '; do usleep 10000; done"
    )
    if done.exitcode:
        raise UsageError(f"the secrets {dict(secrets)!r} could not be hidden: {done.output}")


def enter(lab: Laboratory, script: str, *, missing: str = "", timeout_s: float = 5.0) -> Ran:
    """Run a script as root of a fresh box.

    Args:
        lab: the host of the box.
        script: for the shell in the box.
        missing: the namespace that the box shares with its host; empty for a whole box.
        timeout_s: seconds until it is killed.
    """
    if missing and missing not in _OPTIONS:
        raise UsageError(f"there is no namespace {missing!r}; expected one of {', '.join(_OPTIONS)}")
    lab.put("/lab/inside", script.encode())
    options = " ".join(option for namespace, option in _OPTIONS.items() if namespace != missing)
    folders = " ".join(f"{_ROOT}/{name}" for name in ("bin", "sbin", "usr", "dev", "proc", "tmp"))
    if missing == "mnt":
        steps = "exec sh /lab/inside"
    else:
        process_files = f"mount --rbind /proc {_ROOT}/proc" if missing == "pid" else f"mount -t proc proc {_ROOT}/proc"
        binds = "; ".join(f"mount --rbind /{name} {_ROOT}/{name}" for name in ("bin", "sbin", "usr", "dev"))
        steps = f"{binds}; {process_files}; cp /lab/inside {_ROOT}/tmp/inside; exec chroot {_ROOT} sh /tmp/inside"
    return lab.run(f"mkdir -p {folders}; exec unshare {options} sh -c {shlex.quote(steps)}", timeout_s=timeout_s)
