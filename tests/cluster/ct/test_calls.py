"""Containers through the API: made, started, moved, kept and removed, in Proxmox VE's words."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from proxmoxer import ResourceException

from course.cluster.ct.template import NAME
from course.cluster.terminal import Terminal
from course.error import ClusterError
from course.machine.process import alive
from tests.cluster.patience import ended, log_of, until

pytestmark = pytest.mark.qemu  # where namespaces are refused, containers are guests

TEMPLATE = f"local:vztmpl/{NAME}"


@contextlib.contextmanager
def refused(status: int, words: str):
    """Expect a refusal."""
    with pytest.raises(ResourceException) as found:
        yield found
    assert (found.value.status_code, words in str(found.value)) == (status, True), str(found.value)


@pytest.fixture(scope="module")
def make(lab, api):
    """Make containers of michael; all are removed in the end."""
    if not (lab.state / "nodes/michael/vz/template/cache" / NAME).exists():
        pytest.skip("no busybox here, so no template for containers")
    made: list[int] = []

    def one(**values) -> int:
        vmid = int(api.cluster.nextid.get())
        upid = api.nodes.michael.lxc.post(vmid=vmid, **{"ostemplate": TEMPLATE, "memory": 64, **values})
        made.append(vmid)
        assert ended(api, upid) == "OK", log_of(api, upid)
        return vmid

    yield one
    places = {entry["vmid"]: entry["node"] for entry in api.cluster.resources.get(type="vm")}
    for vmid in {*made} & {*places}:
        assert ended(api, api.nodes(places[vmid]).lxc(vmid).delete(purge=1, force=1)) == "OK"


@pytest.fixture(scope="module")
def web(make):
    """A container that runs and is told nothing else."""
    return make(hostname="web", rootfs="local:1", net0="name=eth0,bridge=vmbr0,ip=10.70.0.1/24", start=1)


def test_a_running_container_is_a_process(lab, api, web):
    """What the API calls running has a process and answers; a second start is refused at once."""
    found = api.nodes.michael.lxc(web).status.current.get()
    assert (found["status"], found["name"], found["maxmem"], found["maxdisk"]) == ("running", "web", 64 << 20, 1 << 30)
    assert alive(found["pid"])
    assert found["mem"] > 0
    assert found["disk"] > 1 << 20
    assert lab.exec(web, ["hostname"]) == (0, b"web\n")
    with refused(500, f"CT {web} already running"):
        api.nodes.michael.lxc(web).status.start.post()
    with refused(500, f"unable to destroy CT {web} - container is running"):
        api.nodes.michael.lxc(web).delete()


def test_a_number_is_given_once(api, web):
    """A second container of the same number is refused, and so is a template that is not there."""
    with refused(500, f"CT {web} already exists on node 'michael'"):
        api.nodes.michael.lxc.post(vmid=web, ostemplate=TEMPLATE)
    with refused(500, "volume 'local:vztmpl/none.tar.gz' does not exist"):
        api.nodes.michael.lxc.post(vmid=99999, ostemplate="local:vztmpl/none.tar.gz")


def test_containers_reach_each_other_through_the_bridge(lab, api, make, web):
    """A frame of one container comes out of the other's interface; the API counts it."""
    other = make(hostname="db", net0="name=eth0,bridge=vmbr0,ip=10.70.0.2/24", start=1)
    if b"eth0" not in lab.exec(web, ["ip", "link"])[1]:
        pytest.skip("containers have 127.0.0.1 only here")
    until("an answer", lambda: lab.exec(other, ["ping", "-c1", "-w5", "10.70.0.1"])[0] == 0)
    assert ended(api, api.nodes.michael.lxc(web).status.reboot.post(timeout=60)) == "OK"
    assert lab.exec(other, ["ping", "-c3", "-w60", "10.70.0.1"])[0] == 0
    interfaces = {entry["name"]: entry for entry in api.nodes.michael.lxc(web).interfaces.get()}
    assert interfaces["eth0"]["inet"] == "10.70.0.1/24"
    config = api.nodes.michael.lxc(web).config.get()
    assert interfaces["eth0"]["hwaddr"].upper() in config["net0"]
    assert api.nodes.michael.lxc(web).status.current.get()["netin"] > 0


def test_a_terminal_is_a_shell_in_the_container(api, web):
    """What is typed through the API's websocket is executed inside."""
    with Terminal(api, "michael", web, "lxc") as line:
        line.write("echo answer-$((6 * 7))\n")
        line.expect("answer-42", 60)


def test_settings_are_changed_and_refused(api, web):
    """Numbers are numbers, a digest guards, and unknown settings are 400."""
    config = api.nodes.michael.lxc(web).config
    config.put(description="hello", cores=2, tags="a;b")
    found = config.get()
    assert (found["description"], found["cores"], found["tags"]) == ("hello\n", 2, "a;b")
    with refused(500, "checksum mismatch"):
        config.put(digest="0" * 40, memory=128)
    with refused(400, "Parameter verification failed"):
        config.put(memory=1)
    with refused(500, "unable to use 'mp0'"):
        config.put(mp0="local:1,mp=/data")
    config.put(delete="cores,tags")
    assert "cores" not in config.get()


def test_a_snapshot_brings_back_what_was_there(lab, api, make):
    """A file that was removed after the snapshot is there again after the rollback; the list says where one is."""
    vmid = make(rootfs="local:1", start=1)
    ct = api.nodes.michael.lxc(vmid)
    assert lab.exec(vmid, ["sh", "-c", "echo before >/root/state"])[0] == 0
    assert ended(api, ct.snapshot.post(snapname="good", description="works")) == "OK"
    assert lab.exec(vmid, ["sh", "-c", "echo after >/root/state"])[0] == 0
    assert ended(api, ct.snapshot("good").rollback.post(start=1)) == "OK"
    assert lab.exec(vmid, ["cat", "/root/state"]) == (0, b"before\n")
    found = ct.snapshot.get()
    assert [(entry["name"], entry["description"]) for entry in found] == [
        ("good", "works"),
        ("current", "You are here!"),
    ]
    assert found[1]["parent"] == "good"
    assert ended(api, ct.snapshot.post(snapname="good")) == "snapshot name 'good' already used"
    assert ended(api, ct.snapshot("good").delete()) == "OK"
    assert "parent" not in ct.config.get()


def test_a_container_moves_by_being_stopped_and_started(lab, api, make):
    """Its local disk goes along; a running one needs to be told that it may be restarted."""
    vmid = make(rootfs="local:1", start=1)
    assert lab.exec(vmid, ["touch", "/root/here"])[0] == 0
    ct = api.nodes.michael.lxc(vmid)
    with refused(500, "can't migrate running container without --online or --restart"):
        ct.migrate.post(target="trevor")
    with refused(400, "target is local node."):
        ct.migrate.post(target="michael")
    upid = ct.migrate.post(target="trevor", restart=1)
    assert ended(api, upid) == "OK", log_of(api, upid)
    assert any("migration finished successfully" in line for line in log_of(api, upid))
    assert lab.exec(vmid, ["ls", "/root"]) == (0, b"here\n")
    assert api.nodes.trevor.lxc(vmid).status.current.get()["status"] == "running"
    assert not list(Path(lab.state, "nodes/michael/vz/images").glob(f"{vmid}/subvol*"))
    assert ended(api, api.nodes.trevor.lxc(vmid).status.shutdown.post(timeout=60)) == "OK"
    with refused(500, f"CT {vmid} not running"):
        api.nodes.trevor.lxc(vmid).status.stop.post()


def test_a_clone_has_a_life_and_an_address_of_its_own(api, make):
    """A copy has the same files, another name and another hardware address."""
    vmid = make(hostname="first", rootfs="local:1", net0="name=eth0,bridge=vmbr0")
    new = int(api.cluster.nextid.get())
    assert ended(api, api.nodes.michael.lxc(vmid).clone.post(newid=new, hostname="second")) == "OK"
    one, two = (api.nodes.michael.lxc(number).config.get() for number in (vmid, new))
    assert (two["hostname"], two["rootfs"].split(",")[0]) == ("second", f"local:{new}/subvol-{new}-disk-0.subvol")
    assert one["net0"] != two["net0"]
    assert ended(api, api.nodes.michael.lxc(new).delete()) == "OK"
    with refused(500, f"Configuration file 'nodes/michael/lxc/{new}.conf' does not exist"):
        api.nodes.michael.lxc(new).config.get()


def test_programs_run_where_the_container_runs_only(lab, web):
    """Containers that do not run, or take too long, are named."""
    with pytest.raises(ClusterError, match="does not exist"):
        lab.exec(98765, ["true"])
    with pytest.raises(ClusterError, match="got timeout"):
        lab.exec(web, ["sleep", "60"], timeout_s=1)
