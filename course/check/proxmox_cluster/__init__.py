"""Visible checks of lesson 11, the Proxmox cluster.

They work on a lab cluster of their own, which starts once per process (`laboratory`); no real cluster is touched. What
the visible and the hidden checks share is public in the modules here; which inputs grading uses is not.
"""

from __future__ import annotations

from .creating import create
from .failing import quorum, recover
from .finding import where
from .keeping import rollback, snapshot
from .moving import migrate
from .saving import save_and_restore
from .shielding import shield

__all__ = ["create", "migrate", "quorum", "recover", "rollback", "save_and_restore", "shield", "snapshot", "where"]
