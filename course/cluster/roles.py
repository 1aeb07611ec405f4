"""Privileges, and the roles that every cluster has.

Source: the privileges in the API schema of Proxmox VE 8.1, chapter "Permission Management" of its administration guide.
"""

from __future__ import annotations

from collections.abc import Mapping

ADMINISTRATORS_ONLY = frozenset(
    {"Mapping.Modify", "Permissions.Modify", "Realm.Allocate", "Sys.Incoming", "Sys.Modify", "Sys.PowerMgmt"}
)
"""What even PVEAdmin lacks: with these one could become Administrator, or harm the nodes."""

_AREAS = {
    "Datastore": "Allocate AllocateSpace AllocateTemplate Audit",
    "Group": "Allocate",
    "Mapping": "Audit Modify Use",
    "Permissions": "Modify",
    "Pool": "Allocate Audit",
    "Realm": "Allocate AllocateUser",
    "SDN": "Allocate Audit Use",
    "Sys": "Audit Console Incoming Modify PowerMgmt Syslog",
    "User": "Modify",
    "VM": "Allocate Audit Backup Clone Config.CDROM Config.CPU Config.Cloudinit Config.Disk Config.HWType "
    "Config.Memory Config.Network Config.Options Console Migrate Monitor PowerMgmt Snapshot Snapshot.Rollback",
}
PRIVILEGES = frozenset(f"{area}.{name}" for area, names in _AREAS.items() for name in names.split())
"""All privileges of Proxmox VE 8.1."""

PRIVILEGES_8_4 = PRIVILEGES | {"Sys.AccessNetwork"}
"""All privileges of Proxmox VE 8.4."""


def _of(*areas: str) -> frozenset[str]:
    """Return the privileges of whole areas."""
    return frozenset(privilege for privilege in PRIVILEGES if privilege.partition(".")[0] in areas)


def _named(*privileges: str) -> frozenset[str]:
    """Return privileges by name, and refuse one that does not exist."""
    assert PRIVILEGES.issuperset(privileges), set(privileges) - PRIVILEGES
    return frozenset(privileges)


def builtin_roles(privileges: frozenset[str] = PRIVILEGES) -> Mapping[str, frozenset[str]]:
    """Return the roles that cannot be changed.

    Args:
        privileges: all that there are in the release of Proxmox VE that is meant.
    """
    return {
        "Administrator": privileges,
        "NoAccess": frozenset(),
        "PVEAdmin": PRIVILEGES - ADMINISTRATORS_ONLY,
        "PVEAuditor": frozenset(privilege for privilege in PRIVILEGES if privilege.endswith(".Audit")),
        "PVEDatastoreAdmin": _of("Datastore"),
        "PVEDatastoreUser": _named("Datastore.AllocateSpace", "Datastore.Audit"),
        "PVEMappingAdmin": _of("Mapping"),
        "PVEMappingUser": _named("Mapping.Audit", "Mapping.Use"),
        "PVEPoolAdmin": _of("Pool"),
        "PVEPoolUser": _named("Pool.Audit"),
        "PVESDNAdmin": _of("SDN"),
        "PVESDNUser": _named("SDN.Audit", "SDN.Use"),
        "PVESysAdmin": _of("Sys") - ADMINISTRATORS_ONLY,
        "PVETemplateUser": _named("VM.Audit", "VM.Clone"),
        "PVEUserAdmin": _named("Group.Allocate", "Realm.AllocateUser", "User.Modify"),
        "PVEVMAdmin": _of("VM"),
        "PVEVMUser": _named(
            "VM.Audit", "VM.Backup", "VM.Config.CDROM", "VM.Config.Cloudinit", "VM.Console", "VM.PowerMgmt"
        ),
    }
