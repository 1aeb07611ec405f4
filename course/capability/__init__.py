"""What this machine can really do: tiers T0 to T5, each found out by doing it, never by guessing.

A file such as ``/dev/kvm`` or a flag in ``/proc/cpuinfo`` proves nothing: containers hide kernel features, nested
hypervisors offer a KVM that runs ten instructions and no Linux, and root inside a container is not root. So every
tier has experiments, and every experiment runs in a child process with a time limit: it may hang, be killed by a
seccomp filter or crash, and the course goes on::

    probe() ── one child per experiment ──> Observation ──> Tier ──> Report
                 (experiments.py, kvm.py)        (report.py)

The result is kept for as long as the circumstances last: the same boot, user, namespaces, QEMU and course.
"""

from __future__ import annotations

from .probing import probe
from .report import Observation, Report, State, Tier

__all__ = ["Observation", "Report", "State", "Tier", "probe"]
