"""What a system says of its kernel and of itself: texts of files, as they are.

Source: proc(5); os-release(5); random(4) for boot_id.
"""

from __future__ import annotations

from pathlib import Path

from .laboratory import Laboratory

FILES = {
    "boot_id": "/proc/sys/kernel/random/boot_id",
    "release": "/proc/sys/kernel/osrelease",
    "version": "/proc/version",
    "uptime": "/proc/uptime",
    "hostname": "/proc/sys/kernel/hostname",
    "os_release": "/etc/os-release",
}


def here() -> dict[str, str]:
    """Read the evidence of the system that this program runs in; a file that is not there is empty."""
    return {name: _text(path) for name, path in FILES.items()}


def inside(lab: Laboratory, prefix: str = "") -> dict[str, str]:
    """Read the evidence in a guest.

    Args:
        lab: the guest.
        prefix: a command that runs another one elsewhere, such as ``"unshare -u"``.
    """
    script = "".join(f"echo == {name}; {prefix} cat {path} 2>/dev/null\n" for name, path in FILES.items())
    found = dict.fromkeys(FILES, "")
    name = ""
    for line in lab.run(script).output.splitlines(keepends=True):
        if line.startswith("== "):
            name = line[3:].strip()
        else:
            found[name] += line
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
