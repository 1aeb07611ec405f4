"""Changing ``user.cfg``: one change at a time in the whole cluster, with Proxmox VE's words when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..error import ClusterError, ParameterError, PermissionRefused
from .config.users import UserConfig
from .state import State

FILE, DOMAIN = "user.cfg", "file-user_cfg"


@contextlib.contextmanager
def editing(state: State, failed: str) -> Iterator[UserConfig]:
    """Lock the file, hand out what it says, and write it back when the work is done.

    Args:
        state: the cluster's files.
        failed: begins the words of an error, such as ``create user failed``.

    Raises:
        ClusterError: what the work raised, or the lock was not to be had.
    """
    try:
        with state.lock(DOMAIN):
            config = UserConfig.parse(state.read(FILE))
            before = config.text()
            yield config
            after = config.text()
            if after != before:
                state.write(FILE, after)
    except (ParameterError, PermissionRefused):
        raise
    except ClusterError as error:
        raise ClusterError(f"{failed}: {error.message}", status=error.status) from error


def join_pool(state: State, vmid: int, pool: str) -> None:
    """Make a guest a member of a pool; it leaves any other.

    Raises:
        ClusterError: there is no such pool.
    """
    with editing(state, "update pools failed") as config:
        if pool not in config.pools:
            raise ClusterError(f"pool '{pool}' does not exist")
        for members in config.pools.values():
            members.vms.discard(vmid)
        config.pools[pool].vms.add(vmid)


def forget_guest(state: State, vmid: int) -> None:
    """Remove a guest that was destroyed from its pool, and the rights that were given to it."""
    with editing(state, "access permissions cleanup failed") as config:
        for members in config.pools.values():
            members.vms.discard(vmid)
        config.acl.pop(f"/vms/{vmid}", None)


def forget_storage(state: State, storage: str) -> None:
    """Remove a storage that is gone from its pools, and the rights that were given to it."""
    with editing(state, "access permissions cleanup failed") as config:
        for members in config.pools.values():
            members.storages.discard(storage)
        config.acl.pop(f"/storage/{storage}", None)
