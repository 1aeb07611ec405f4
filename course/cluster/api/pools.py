"""Pools of guests and storages, which can be given rights at once."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..config.users import Pool, UserConfig
from ..formats import split_list
from ..userfile import editing
from .common import ALL, Call, Parameter, choice, endpoint, flag, perm, text
from .resources import guests, storages

_POOL = {"poolid": Parameter(format="pve-poolid")}
_CHANGE = {
    **_POOL,
    "comment": text(),
    "vms": text("pve-vmid-list"),
    "storage": text("pve-storage-id-list"),
    "allow-move": flag(0),
    "delete": flag(0),
}
_ALLOCATE = perm("/pool/{poolid}", "Pool.Allocate")
_KINDS = "qemu lxc storage"


def _known(config: UserConfig, name: str) -> Pool:
    if name not in config.pools:
        raise ClusterError(f"pool '{name}' does not exist")
    return config.pools[name]


@endpoint(
    "GET",
    "/pools",
    parameters={
        "poolid": text("pve-poolid"),
        "type": Parameter(optional=True, enum=tuple(_KINDS.split()), requires="poolid"),
    },
    permissions=ALL,
)
def pools(call: Call) -> Any:
    """List the pools that the caller may look at, or one with its members."""
    config = call.node.state.users()
    if "poolid" in call.values:
        name = call.values["poolid"]
        call.check(f"/pool/{name}", ["Pool.Audit"])
        return [{"poolid": name, **_content(call, name)}]
    return [
        {"poolid": name, **({"comment": pool.comment} if pool.comment else {})}
        for name, pool in sorted(config.pools.items())
        if call.may(f"/pool/{name}", ["Pool.Audit"])
    ]


@endpoint(
    "GET",
    "/pools/{poolid}",
    parameters={**_POOL, "type": choice(_KINDS)},
    permissions=perm("/pool/{poolid}", "Pool.Audit"),
)
def read(call: Call) -> Any:
    """Return a pool's members."""
    return _content(call, call.values["poolid"])


def _content(call: Call, name: str) -> dict[str, Any]:
    """Return a pool's remark and members; a storage stands once, at the node that is asked."""
    pool = _known(call.node.state.users(), name)
    wanted = call.values.get("type")
    members = [
        entry for entry in guests(call, everybody=True) if entry["vmid"] in pool.vms and wanted in (None, entry["type"])
    ]
    if wanted in (None, "storage"):
        members += [
            entry
            for entry in storages(call, everybody=True)
            if entry["storage"] in pool.storages and entry["node"] == call.node.name
        ]
    return {"members": members, **({"comment": pool.comment} if pool.comment else {})}


@endpoint("POST", "/pools", parameters={**_POOL, "comment": text()}, permissions=_ALLOCATE)
def create(call: Call) -> Any:
    """Make a pool."""
    name = call.values["poolid"]
    with editing(call.node.state, "create pool failed") as config:
        if name in config.pools:
            raise ClusterError(f"pool '{name}' already exists")
        parent = name.rpartition("/")[0]
        if parent and parent not in config.pools:
            raise ClusterError(f"parent '{parent}' of pool '{name}' does not exist")
        config.pools[name] = Pool(comment=call.values.get("comment", ""))


@endpoint("PUT", "/pools/{poolid}", parameters=_CHANGE, permissions=_ALLOCATE)
@endpoint("PUT", "/pools", parameters=_CHANGE, permissions=_ALLOCATE)
def update(call: Call) -> Any:
    """Change a pool's remark or members."""
    values = call.values
    name, delete = values["poolid"], bool(values.get("delete"))
    with editing(call.node.state, "update pools failed") as config:
        pool = _known(config, name)
        pool.comment = values.get("comment", pool.comment)
        for vmid in map(int, split_list(values.get("vms", ""))):
            call.access.check_call(call.user, {"check": ["perm-modify", f"/vms/{vmid}"]}, {})
            _guest(config, name, vmid, delete=delete, move=bool(values.get("allow-move")))
        for storage in split_list(values.get("storage", "")):
            call.access.check_call(call.user, {"check": ["perm-modify", f"/storage/{storage}"]}, {})
            _member(pool.storages, storage, f"Storage '{storage}'", delete=delete)


def _guest(config: UserConfig, name: str, vmid: int, *, delete: bool, move: bool) -> None:
    """Let a guest join a pool, or leave it."""
    before = next((other for other, pool in config.pools.items() if vmid in pool.vms), None)
    if not delete and before not in (None, name):
        if not move:
            raise ClusterError(f"VM {vmid} belongs to pool '{before}' and 'allow-move' is not set")
        config.pools[str(before)].vms.discard(vmid)
    _member(config.pools[name].vms, vmid, f"VM {vmid}", delete=delete)


def _member(members: set[Any], member: Any, words: str, *, delete: bool) -> None:
    if delete and member not in members:
        raise ClusterError(f"{words} is not a pool member")
    if not delete and member in members:
        raise ClusterError(f"{words} is already a pool member")
    (members.discard if delete else members.add)(member)


@endpoint("DELETE", "/pools/{poolid}", parameters=_POOL, permissions=_ALLOCATE)
@endpoint("DELETE", "/pools", parameters=_POOL, permissions=_ALLOCATE)
def delete(call: Call) -> Any:
    """Remove an empty pool."""
    name = call.values["poolid"]
    with editing(call.node.state, "delete pool failed") as config:
        pool = _known(config, name)
        if pool.vms or pool.storages:
            raise ClusterError(f"pool '{name}' is not empty")
        if any(other.startswith(f"{name}/") for other in config.pools):
            raise ClusterError(f"pool '{name}' is not empty")
        del config.pools[name]
        config.acl.pop(f"/pool/{name}", None)
