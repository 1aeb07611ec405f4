"""The laboratory, its boxes, and what the guest's kernel says of them."""

from __future__ import annotations

import os

import pytest

from course.container import Laboratory, boxes, cgroups, evidence, namespaces
from course.error import MachineError, UsageError

pytestmark = pytest.mark.qemu


def test_a_script_returns_its_output_and_exit_code(lab):
    """Both streams come back in order, with the exit code; quotes and several lines survive."""
    ran = lab.run('echo "it\'s"\necho two >&2\nexit 37')
    assert (ran.output, ran.exitcode, ran.timed_out) == ("it's\ntwo\n", 37, False)
    assert ran.lines == ["it's", "two"]


def test_a_script_without_end_is_killed(lab):
    """A script that loops is ended and marked; the laboratory goes on."""
    ran = lab.run("echo before; while :; do :; done", timeout_s=1)
    assert ran.timed_out
    assert ran.output.startswith("before\n")
    assert lab.run("echo after").output == "after\n"


def test_a_script_that_ends_the_guest_is_told_apart():
    """Powering off is an error of the machine, not an answer; nothing is left running."""
    with Laboratory() as own:
        with pytest.raises(MachineError):
            own.run("poweroff -f; sleep 30")
        pid = own.vm.pid
    assert pid is None or not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def test_files_travel_both_ways(lab):
    """Any bytes arrive and come back as they were, under awkward names as well."""
    content = bytes(range(256)) * 20
    lab.put("/lab/odd name's", content, mode=0o600)
    assert lab.get("/lab/odd name's") == content
    assert lab.run('stat -c %a "/lab/odd name\'s"').output == "600\n"
    with pytest.raises(MachineError, match="cannot read"):
        lab.get("/lab/missing")


def test_an_empty_script_is_refused(lab):
    """Nothing to run is a mistake of the caller."""
    with pytest.raises(UsageError):
        lab.run("  \n")


@pytest.mark.parametrize("missing", boxes.GUARDED)
def test_a_box_guards_what_only_a_missing_wall_gives_away(missing):
    """All secrets stay in a whole box; without one namespace, its own secret comes out."""
    reads = "cat /root/secret; cat /proc/[0-9]*/cmdline; nc 127.0.0.1 1690 </dev/null; dmesg"
    secrets = {wall: f"word{wall}word" for wall in boxes.GUARDED}
    with Laboratory() as own:
        boxes.hide(own, secrets)
        whole = boxes.enter(own, reads).output
        broken = boxes.enter(own, reads, missing=missing).output
    assert [secret for secret in secrets.values() if secret in whole] == []
    assert secrets[missing] in broken


def test_an_unknown_wall_is_refused(lab):
    """A box cannot lack what does not exist."""
    with pytest.raises(UsageError, match="expected one of"):
        boxes.enter(lab, "true", missing="walls")


def test_the_listing_agrees_with_the_kernel(lab):
    """Process 1 has the namespaces that its links show; a process in a new UTS namespace differs in that one only."""
    lab.run("unshare -u sh -c 'hostname other; sleep 20' >/dev/null 2>&1 &\nusleep 200000")
    listed = namespaces.listing(lab)
    [init] = [p for p in listed if p["pid"] == 1]
    assert init["namespaces"]["net"] == lab.run("readlink /proc/1/ns/net").output.strip()
    [other] = [p for p in listed if p["hostname"] == "other" and p["comm"] == "sleep"]
    assert [k for k, link in other["namespaces"].items() if init["namespaces"][k] != link] == ["uts"]


def test_a_process_here_has_namespaces():
    """The links of this process are those that the kernel shows."""
    assert namespaces.of()["net"] == os.readlink("/proc/self/ns/net")  # noqa: PTH115


def test_guest_and_host_are_two_kernels_and_a_container_is_none(lab):
    """The boot id differs between here and the guest, and not between the guest and a container in it."""
    here, guest, box = evidence.here(), evidence.inside(lab), evidence.inside(lab, "unshare -u -p -f")
    assert here["boot_id"] != guest["boot_id"] == box["boot_id"]
    assert guest["hostname"] == "lab\n"


def test_weights_share_and_limits_limit(lab):
    """Processor time follows the weights; a limit holds without any competitor."""
    shares = cgroups.share(lab, {"a": {"cpu.weight": "100"}, "b": {"cpu.weight": "400"}}, 1)
    assert shares["b"] > 2 * shares["a"] > 0
    limited = cgroups.share(lab, {"c": {"cpu.max": "20000 100000"}}, 1)
    assert limited["c"] < 500
    assert cgroups.parse(lab.get("/sys/fs/cgroup/cgroup.stat").decode())["nr_descendants"] == 0
