"""The cluster resource manager: every node has one, the one that holds the manager's lock is the master.

::

    startup ─► wait_for_quorum ─┬─► slave ──► master ─► lost_manager_lock ─┐
                    ▲           └────────────►  ▲                          │
                    └──────────────────────────────────────────────────────┘

Source: the expected logs of pve-ha-manager's scenarios.
"""

from __future__ import annotations

import enum

from .manager import FENCE_DELAY_S, Manager
from .states import ManagerStatus, NodeState
from .world import MANAGER_LOCK, Unreachable, World


class ManagerState(enum.StrEnum):
    """What a cluster resource manager is."""

    STARTUP = "startup"
    WAIT_FOR_QUORUM = "wait_for_quorum"
    SLAVE = "slave"
    MASTER = "master"
    LOST_MANAGER_LOCK = "lost_manager_lock"


class ClusterManager:
    """One node's cluster resource manager; `iterate` is called again and again.

    Args:
        world: its node.
        fence_delay_s: how long a node may be away before it is fenced.
    """

    def __init__(self, world: World, *, fence_delay_s: int = FENCE_DELAY_S) -> None:
        self.world = world
        self.fence_delay_s = fence_delay_s
        self.state = ManagerState.STARTUP
        self.manager: Manager | None = None
        self.stopping = False
        self._become(ManagerState.WAIT_FOR_QUORUM)

    def stop(self) -> None:
        """Ask it to end with its next round."""
        self.world.log("info", "server received shutdown request")
        self.stopping = True

    def iterate(self) -> bool:
        """Do one round; return whether there is another."""
        if not self.world.refresh():
            self.world.log("notice", "temporary inconsistent cluster state (cfs restart?), skip round")
            return True
        if self.stopping:
            self._resign()
            return False
        try:
            self._elect()
            if self.state is ManagerState.MASTER and self.manager:
                self.manager.manage()
        except Unreachable as error:
            self.world.log("err", f"got unexpected error - {error}")
        return True

    def _become(self, state: ManagerState) -> None:
        self.world.log("info", f"status change {self.state} => {state}")
        self.state = state
        self.manager = Manager(self.world, fence_delay_s=self.fence_delay_s) if state is ManagerState.MASTER else None

    def _resign(self) -> None:
        if self.state is ManagerState.MASTER:
            self.world.log("info", "voluntary release CRM lock")
            self.world.release_lock(MANAGER_LOCK)

    def _elect(self) -> None:
        if self.state is ManagerState.MASTER:
            if not self.world.try_lock(MANAGER_LOCK):
                self._become(ManagerState.LOST_MANAGER_LOCK)
                self._become(ManagerState.WAIT_FOR_QUORUM)
        elif not (self.world.quorate() and self._may_work()):
            if self.state is ManagerState.SLAVE:
                self._become(ManagerState.WAIT_FOR_QUORUM)
        elif self.world.try_lock(MANAGER_LOCK):
            self._become(ManagerState.MASTER)
        elif self.state is ManagerState.WAIT_FOR_QUORUM:
            self._become(ManagerState.SLAVE)

    def _may_work(self) -> bool:
        """Return whether there is something to manage, and this node is not the one that is being fenced."""
        status = ManagerStatus.from_document(self.world.read_manager())
        if status.nodes.get(self.world.node) is NodeState.FENCE:
            return False
        return bool(status.services or self.world.resources())
