"""Containers: processes that get other answers from the same kernel.

======================  ==============================================================================
`laboratory`            a fresh guest in which everybody is root: run scripts, bring and fetch files
`boxes`                 containers in the guest, whole or with a namespace missing, and what they guard
`overlay`               image layers, merged by the real overlayfs of the guest
`cgroups`               readings of cgroup v2
`namespaces`            which namespaces processes are in, here and in a guest
`evidence`              what a system says of its kernel
`starts`                start processes, containers and machines behind an address, and log when they were ready
`host`                  a container on this machine, by system calls alone, where the kernel allows it
======================  ==============================================================================

Nothing needs privileges but `host`, which needs user namespaces.
"""

from __future__ import annotations

from .laboratory import Laboratory, Ran
from .starts import Starts, ask, read_line, start, stop

__all__ = ["Laboratory", "Ran", "Starts", "ask", "read_line", "start", "stop"]
