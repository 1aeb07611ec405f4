"""One QEMU process: launch, QMP monitor, serial console, events, disks, snapshots, migration."""

from __future__ import annotations

from .console import Console
from .events import Event, Recording
from .machine import Machine, State
from .screenshot import Screenshot

__all__ = ["Console", "Event", "Machine", "Recording", "Screenshot", "State"]
