"""High availability in the lab: real machines of nodes that lose power or their cable."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
from proxmoxer import ResourceException

from course.cluster.ct.template import NAME
from tests.cluster.patience import ended, log_of, until

pytestmark = pytest.mark.qemu


def words(refused) -> str:
    """Return what a refusal says."""
    return str(refused.value.content)


def machines(run: Path, vmid: int) -> dict[str, int]:
    """Return the QEMU processes of a machine by node: witnesses that no API speaks for."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                for node in ("franklin", "trevor", "michael"):
                    if f"{run}/{node}/qemu-server/{vmid}.qmp" in command and "qemu-system" in command.split("\0")[0]:
                        found[node] = int(folder.name)
    return found


class Witness:
    """Looks all the time how many QEMU processes a machine has."""

    def __init__(self, run: Path, vmid: int) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(run, vmid), daemon=True)
        self._thread.start()

    def _look(self, run: Path, vmid: int) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, len(machines(run, vmid)))

    def close(self) -> int:
        """Stop looking; return the most that there ever were."""
        self._over.set()
        self._thread.join()
        return self.most


def service(api, sid: str) -> dict:
    """Return a service's entry of the status."""
    return next((entry for entry in api.cluster.ha.status.current.get() if entry.get("sid") == sid), {})


def is_in(api, sid: str, state: str):
    """Return a look for a service in a state."""
    return lambda: (found := service(api, sid)).get("state") == state and found


def runs_elsewhere(api, sid: str, node: str):
    """Return a look for a service that runs on another node."""
    return lambda: (found := service(api, sid)).get("state") == "started" and found["node"] != node and found


@pytest.fixture
def machine(lab, api):
    """A machine of michael without a disk; gone afterwards, and all nodes are there again."""
    vmid = int(api.cluster.nextid.get())
    assert ended(api, api.nodes.michael.qemu.post(vmid=vmid, memory=16, name="witness")) == "OK"
    yield vmid
    for node in lab.nodes:
        lab.reconnect(node)
        lab.power_on(node)
    until("three nodes", lambda: sum(e.get("online", 0) for e in api.cluster.status.get() if e["type"] == "node") == 3)
    with contextlib.suppress(ResourceException):
        api.cluster.ha.resources(f"vm:{vmid}").delete()
    until("no service", lambda: not service(api, f"vm:{vmid}"))
    node = next(entry["node"] for entry in api.cluster.resources.get(type="vm") if entry["vmid"] == vmid)
    ended(api, api.nodes(node).qemu(vmid).status.stop.post())
    assert ended(api, api.nodes(node).qemu(vmid).delete(purge=1)) == "OK"


def test_groups_are_kept_and_refused_in_proxmox_words(api):
    """A group is made, changed, listed and removed; twice, or unknown, it is refused."""
    groups = api.cluster.ha.groups
    groups.post(group="twos", nodes="trevor:2,franklin", restricted=1)
    try:
        with pytest.raises(ResourceException) as refused:
            groups.post(group="twos", nodes="trevor")
        assert "ha group ID 'twos' already defined" in words(refused)
        groups("twos").put(nofailback=1, delete="restricted")
        found = groups("twos").get()
        assert (found["nodes"], found["nofailback"]) == ("trevor:2,franklin", 1)
        assert "restricted" not in found
        assert [group["group"] for group in groups.get()] == ["twos"]
    finally:
        groups("twos").delete()
    with pytest.raises(ResourceException) as refused:
        groups("twos").get()
    assert words(refused) == "no such ha group 'twos'"


def test_a_managed_machine_is_asked_of_the_manager(lab, api, machine):
    """Start, stop and migrate become hastart, hastop and hamigrate; the node does what the manager decides."""
    sid, qemu = f"vm:{machine}", api.nodes.michael.qemu(machine)
    api.cluster.ha.resources.post(sid=str(machine), state="stopped")
    with pytest.raises(ResourceException) as refused:
        api.cluster.ha.resources.post(sid=sid)
    assert f"resource ID '{sid}' already defined" in words(refused)
    with pytest.raises(ResourceException) as refused:
        qemu.delete()
    assert words(refused) == f"unable to remove VM {machine} - used in HA resources and purge parameter not set."
    upid = qemu.status.start.post()
    assert (upid.split(":")[5], ended(api, upid)) == ("hastart", "OK")
    assert log_of(api, upid)[0] == f"Requesting HA start for VM {machine}"
    until("the start", is_in(api, sid, "started"))
    assert list(machines(lab.run, machine)) == ["michael"]
    upid = qemu.migrate.post(target="trevor", online=1)
    assert (upid.split(":")[5], ended(api, upid)) == ("hamigrate", "OK")
    until("the migration", runs_elsewhere(api, sid, "michael"))
    assert list(machines(lab.run, machine)) == ["trevor"]
    upid = api.nodes.trevor.qemu(machine).status.stop.post()
    assert (upid.split(":")[5], ended(api, upid)) == ("hastop", "OK")
    until("the stop", is_in(api, sid, "stopped"))
    assert machines(lab.run, machine) == {}


def test_machines_of_a_lost_node_run_elsewhere_and_never_twice(lab, api, machine):
    """Without power, then without its cable: the node is fenced, and its machine starts on another one."""
    sid = f"vm:{machine}"
    api.cluster.ha.resources.post(sid=sid, max_restart=3, max_relocate=3)
    until("the start", is_in(api, sid, "started"))
    witness = Witness(lab.run, machine)
    lab.power_off("michael")
    api = lab.api(node="trevor")
    moved = until("the recovery", runs_elsewhere(api, sid, "michael"))
    assert list(machines(lab.run, machine)) == [moved["node"]]
    lab.power_on("michael")
    second = moved["node"]
    first_process = lab.pid(second)
    api = lab.api(node="michael")
    until("three nodes", lambda: sum(e.get("online", 0) for e in api.cluster.status.get() if e["type"] == "node") == 3)
    lab.isolate(second)
    again = until("the second recovery", runs_elsewhere(api, sid, second))
    until("the watchdog", lambda: lab.pid(second) != first_process)
    assert list(machines(lab.run, machine)) == [again["node"]]
    assert witness.close() == 1


def test_a_machine_whose_disk_died_with_its_node_ends_in_error(lab, api, machine):
    """Its configuration moves, its disk does not: starting fails, and people have to look at it."""
    sid, qemu = f"vm:{machine}", api.nodes.michael.qemu(machine)
    assert ended(api, qemu.config.post(scsi0="local-lvm:1")) == "OK"
    volume = qemu.config.get()["scsi0"].split(",")[0]
    api.cluster.ha.resources.post(sid=sid, max_restart=0, max_relocate=0)
    until("the start", is_in(api, sid, "started"))
    lab.power_off("michael")
    api = lab.api(node="trevor")
    lost = until("the error", is_in(api, sid, "error"))
    assert lost["node"] != "michael"
    assert machines(lab.run, machine) == {}
    api.cluster.ha.resources(sid).put(state="disabled")
    until("the end of the error", is_in(api, sid, "disabled"))
    lab.power_on("michael")
    until("michael", lambda: lab.api(node="michael"))
    ended(api, api.nodes.michael.storage("local-lvm").content(volume).delete())


def test_status_names_every_node_and_who_decides(api, machine):
    """The status holds quorum, master, three local managers and the service."""
    sid = f"vm:{machine}"
    api.cluster.ha.resources.post(sid=sid, state="stopped")
    until("the manager", is_in(api, sid, "stopped"))
    found = api.cluster.ha.status.current.get()
    assert [entry["id"] for entry in found] == [
        "quorum", "master", "lrm:franklin", "lrm:trevor", "lrm:michael", f"service:{sid}",
    ]  # fmt: skip
    assert found[0]["status"] == "OK"
    manager = api.cluster.ha.status.manager_status.get()
    assert manager["manager_status"]["master_node"] == found[1]["node"]
    assert time.time() - manager["manager_status"]["timestamp"] < 3600


def test_a_node_that_reboots_keeps_its_services(lab, api):
    """A reboot freezes what runs: the container is stopped, nobody takes it over, and it starts with its node again."""
    if not (lab.state / "nodes/michael/vz/template/cache" / NAME).exists():
        pytest.skip("no busybox here, so no template for containers")
    vmid = int(api.cluster.nextid.get())
    ct, sid = api.nodes.michael.lxc(vmid), f"ct:{vmid}"
    assert ended(api, api.nodes.michael.lxc.post(vmid=vmid, ostemplate=f"local:vztmpl/{NAME}", start=1)) == "OK"
    try:
        api.cluster.ha.resources.post(sid=sid)
        until("the start", is_in(api, sid, "started"))
        before = lab.pid("michael")
        assert lab.exec(vmid, ["touch", "/tmp/witness"])[0] == 0
        api.nodes.michael.status.post(command="reboot")
        until("the reboot", lambda: lab.pid("michael") not in (0, before) and lab.hardware.status()["michael"]["ready"])
        until("the end of the freeze", is_in(api, sid, "started"))
        assert service(api, sid)["node"] == "michael"
        until("its process", lambda: ct.status.current.get()["status"] == "running")
        log = (lab.state / "nodes/michael/log/syslog").read_text()
        assert "reboot LRM, stop and freeze all services" in log
        assert f"service status {sid} stopped" in log
    finally:
        lab.power_on("michael")
        api.cluster.ha.resources(sid).delete()
        assert ended(api, lab.api(node="michael").nodes.michael.lxc(vmid).delete(force=1, purge=1)) == "OK"
