"""Who may see and use which volume.

Source: the permissions in the API's documentation of Proxmox VE 8.1, and its administration guide on privileges.
"""

from __future__ import annotations

from ...error import PermissionRefused
from ..route import Call
from .base import Storage
from .seen import of_volume

AUDIT = ("Datastore.Audit", "Datastore.AllocateSpace")


def may_see(call: Call, storage: str) -> bool:
    """Say whether the caller may see a storage at all."""
    return call.may(f"/storage/{storage}", AUDIT, any_of=True)


def check_volume(call: Call, volid: str, *, vmid: int | None = None) -> None:
    """Refuse a caller who may not read a volume.

    Args:
        call: whose.
        volid: the volume.
        vmid: the guest that it is wanted for; that guest's own volumes are let through.

    Raises:
        PermissionRefused: a privilege is missing.
        ClusterError: it is no volume of a storage of this node.
    """
    storage = of_volume(call.node, volid)
    volume, place = storage.volume(volid), f"/storage/{storage.name}"
    if call.may(place, ["Datastore.Allocate"]):
        return
    if volume.content in ("iso", "vztmpl"):
        call.check(place, AUDIT, any_of=True)
    elif volume.vmid is not None and volume.vmid == vmid:
        return
    elif volume.content == "backup" and volume.vmid is not None:
        call.check(place, ["Datastore.AllocateSpace"])
        call.check(f"/vms/{volume.vmid}", ["VM.Backup"])
    elif volume.content in ("images", "rootdir") and volume.vmid is not None:
        call.check(place, ["Datastore.Audit"])
        call.check(f"/vms/{volume.vmid}", ["VM.Config.Disk"])
    else:
        raise PermissionRefused(f"missing privileges to access {volid}")


def may_read(call: Call, volid: str) -> bool:
    """Say whether the caller may read a volume."""
    try:
        check_volume(call, volid)
    except PermissionRefused:
        return False
    return True


def check_removal(call: Call, storage: Storage, volid: str) -> None:
    """Refuse a caller who may not remove a volume, or change whether it is protected.

    Raises:
        PermissionRefused: a privilege is missing.
    """
    volume, place = storage.volume(volid), f"/storage/{storage.name}"
    if volume.content == "backup" and volume.vmid is not None and call.may(place, ["Datastore.AllocateSpace"]):
        if not call.may(place, ["Datastore.Allocate"]):
            call.check(f"/vms/{volume.vmid}", ["VM.Backup"])
        return
    call.check(place, ["Datastore.Allocate"])
