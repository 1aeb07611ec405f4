"""Who may do what with machines, in Proxmox VE's words, and what is refused before anything is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from proxmoxer import ResourceException

from course.cluster.lab import Cluster
from tests.cluster.vm.machines import done, ended, machine, where

pytestmark = pytest.mark.qemu

USER, PASSWORD = "vera@pve", "a good password"


@pytest.fixture
def vera(lab: Cluster, api: Any) -> Iterator[Any]:
    """A user without any right, logged in."""
    api.access.users.post(userid=USER, password=PASSWORD)
    try:
        yield lab.api(USER, PASSWORD)
    finally:
        api.access.users(USER).delete()


def refusal(action: Any, **values: Any) -> tuple[int, str, dict[str, str] | None]:
    """Return with which status, words and errors something is refused."""
    with pytest.raises(ResourceException) as refused:
        action(**values)
    return refused.value.status_code, refused.value.content, refused.value.errors


def test_each_kind_of_change_has_its_privilege(api: Any, vera: Any) -> None:
    """A user who may use a machine may not change its hardware; who may change memory may not change cores."""
    with machine(api) as vmid:
        mine = vera.nodes("michael").qemu(vmid)
        words = f"Permission check failed (/vms/{vmid}, VM.PowerMgmt)"
        assert refusal(mine.status.start.post)[:2] == (403, words)
        assert [vm["vmid"] for vm in vera.nodes("michael").qemu.get()] == []
        api.access.acl.put(path=f"/vms/{vmid}", users=USER, roles="PVEVMUser")
        done(api, mine.status.start.post())
        assert [int(vm["vmid"]) for vm in vera.nodes("michael").qemu.get()] == [vmid]
        assert refusal(mine.config.put, memory=64)[0] == 403
        api.access.roles.post(roleid="Memory", privs="VM.Config.Memory")
        try:
            api.access.acl.put(path=f"/vms/{vmid}", users=USER, roles="Memory")
            mine.config.put(memory=64)
            words = f"Permission check failed (/vms/{vmid}, VM.Config.CPU)"
            assert refusal(mine.config.put, cores=2)[:2] == (403, words)
            assert refusal(mine.config.put, args="-S")[:2] == (500, "only root can set 'args' config")
            refused = refusal(mine.status.stop.post, skiplock=1)
            assert (refused[0], refused[2]) == (400, {"skiplock": "Only root may use this option."})
        finally:
            api.access.acl.put(path=f"/vms/{vmid}", users=USER, roles="Memory,PVEVMUser", delete=1)
            api.access.roles("Memory").delete()


def test_the_monitor_is_for_looking_unless_one_may_change_the_system(api: Any, vera: Any) -> None:
    """``info`` and ``help`` with VM.Monitor; the rest would reach the host's files."""
    with machine(api, start=1) as vmid:
        api.access.acl.put(path=f"/vms/{vmid}", users=USER, roles="PVEVMAdmin")
        mine = vera.nodes("michael").qemu(vmid)
        assert "running" in mine.monitor.post(command="info status")
        assert refusal(mine.monitor.post, command="stop")[:2] == (403, "Permission check failed (/, Sys.Modify)")


def test_a_machine_that_cannot_be_made_leaves_nothing(lab: Cluster, api: Any) -> None:
    """No storage, no room, no volume, a wrong order: refused or failed, without a file or a volume."""
    node, vmid = api.nodes("michael"), int(api.cluster.nextid.get())
    status, words, _ = refusal(node.qemu.post, vmid=vmid, scsi0="nowhere:1")
    assert (status, words) == (500, "storage 'nowhere' does not exist")
    for settings, expected in (
        ({"ide2": "local:iso/none.iso,media=cdrom"}, "volume 'local:iso/none.iso' does not exist"),
        ({"scsi0": "local-lvm:0.01", "boot": "order=net0"}, "invalid bootorder: device 'net0' does not exist'"),
        ({"scsi0": "local-lvm:0.01", "scsi1": "local:0.01,format=vmdk"}, "unsupported format 'vmdk'"),
    ):
        result = ended(api, node.qemu.post(vmid=vmid, **settings))
        assert result.status == f"unable to create VM {vmid} - {expected}"
        assert where(api, vmid) is None
    assert node.storage("local-lvm").content.get(vmid=vmid) == []


def test_two_cannot_make_or_start_the_same_machine(lab: Cluster, api: Any) -> None:
    """Of many at once exactly one succeeds, whichever node they ask."""
    vmid = int(api.cluster.nextid.get())
    apis = [lab.api(node=node) for node in lab.nodes]
    results: list[str] = []

    def make(client: Any, node: str) -> None:
        try:
            results.append(ended(client, client.nodes(node).qemu.post(vmid=vmid, memory=32)).status)
        except ResourceException as refused:
            results.append(refused.content)

    both(make, [(client, node) for client in apis for node in lab.nodes])
    home = where(api, vmid)
    words = f"unable to create VM {vmid} - VM {vmid} already exists on node '{home}'"
    assert sorted(results) == ["OK", *[words] * 8]
    results.clear()

    def start(client: Any) -> None:
        results.append(ended(client, client.nodes(home).qemu(vmid).status.start.post()).status)

    both(start, [(client,) for client in apis])
    assert sorted(results) == ["OK", *[f"VM {vmid} already running"] * 2]
    done(api, api.nodes(home).qemu(vmid).status.stop.post())
    done(api, api.nodes(home).qemu(vmid).delete())


def both(function: Any, arguments: list[tuple[Any, ...]]) -> None:
    """Call a function with each of the arguments at once, and wait."""
    threads = [threading.Thread(target=function, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
