"""Readings of cgroup v2, the kernel's accounts and limits for groups of processes.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from .laboratory import Laboratory

ROOT = "/sys/fs/cgroup"


def parse(text: str) -> dict[str, int]:
    """Return the fields of a flat keyed file, such as ``cpu.stat`` or ``memory.events``."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def read(lab: Laboratory, group: str, name: str) -> str:
    """Return the text of a group's file, such as ``read(lab, "noisy", "cpu.stat")``."""
    return lab.get(f"{ROOT}/{group}/{name}").decode()


def share(lab: Laboratory, settings: dict[str, dict[str, str]], seconds: float = 2.0) -> dict[str, int]:
    """Let one busy loop per group compete for the guest's only processor.

    Args:
        lab: the guest.
        settings: group → file → what is written to it, such as ``{"a": {"cpu.weight": "100"}}``.
        seconds: how long they compete.

    Returns:
        Group → milliseconds of processor time that it got.
    """
    lines = []
    for group, files in settings.items():
        lines.append(f"mkdir {ROOT}/{group}")
        lines += [f"echo '{value}' >{ROOT}/{group}/{name}" for name, value in files.items()]
    for group in settings:
        # the loop joins by itself before it begins, and so never runs outside its group
        lines.append(f"sh -c 'echo $$ >{ROOT}/{group}/cgroup.procs; while :; do :; done' &")
    lines.append(f"sleep {seconds:g}")
    for group in settings:
        lines.append(f"echo {group} $(grep usage_usec {ROOT}/{group}/cpu.stat)")
    for group in settings:
        folder = f"{ROOT}/{group}"
        lines.append(f"echo 1 >{folder}/cgroup.kill; while grep -q 'populated 1' {folder}/cgroup.events; do :; done")
        lines.append(f"rmdir {folder}")
    done = lab.run("\n".join(lines), timeout_s=seconds + 15)
    fields = (line.split() for line in done.lines if " usage_usec " in line)
    return {group: int(usec) // 1000 for group, _, usec in fields}
