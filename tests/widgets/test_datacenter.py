"""The datacenter view, without a front end: what it shows of a cluster's answers, and what its buttons ask for."""

from __future__ import annotations

import threading
import time

import pytest

from course.widgets import clusterview
from course.widgets.datacenter import Datacenter

from .pve import standing

TREE = """\
Datacenter lab
  node michael: online
    VM 169 (vm169): stopped
    storage local: available
  node trevor: online
    VM 900 (vm900): running"""


@pytest.fixture
def both():
    """A stand-in for a cluster, and a view of it that looked once."""
    with standing() as (stand, api):
        view = Datacenter(api, interval_s=0.05)
        view.refresh()
        yield stand, view
        view.close()


def test_the_tree_is_said_in_words(both):
    """Nodes in the order of their names, below each its guests and storages; the same in every run."""
    _, view = both
    assert str(view) == TREE
    assert TREE.splitlines()[1] in view.static()["text/html"]


def test_a_selected_guest_has_status_hardware_and_snapshots(both):
    """Each comes from an answer of its own; what is no hardware is left out."""
    _, view = both
    view.do({"do": "select", "id": "qemu/169"})
    view.refresh()
    assert ["status", "stopped"] in view.detail["summary"]
    assert [name for name, _ in view.detail["hardware"]] == ["memory", "net0"]
    assert [snapshot["name"] for snapshot in view.detail["snapshots"]] == ["before"]
    assert [name for name, _, can in view.detail["buttons"] if can] == ["create", "start", "migrate", "snapshot"]


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ({"do": "start"}, ("POST", "nodes/michael/qemu/169/status/start", {})),
        ({"do": "shutdown"}, ("POST", "nodes/michael/qemu/169/status/shutdown", {})),
        ({"do": "migrate", "target": "trevor"}, ("POST", "nodes/michael/qemu/169/migrate", {"target": "trevor"})),
        (
            {"do": "snapshot", "name": "here", "ram": "on"},
            ("POST", "nodes/michael/qemu/169/snapshot", {"snapname": "here", "vmstate": "1"}),
        ),
        ({"do": "rollback", "name": "before"}, ("POST", "nodes/michael/qemu/169/snapshot/before/rollback", {})),
        ({"do": "delsnapshot", "name": "before"}, ("DELETE", "nodes/michael/qemu/169/snapshot/before", {})),
    ],
)
def test_a_button_asks_the_guest_s_node(both, message, asked):
    """The path names the guest and the node that holds it."""
    stand, view = both
    view.do({"do": "select", "id": "qemu/169"})
    view.do(message)
    assert stand.asked == [asked]


def test_create_sends_what_the_form_says(both):
    """A CD image becomes a drive, an empty disk none; the new guest is selected."""
    stand, view = both
    form = {"vmid": "171", "name": "web", "node": "trevor", "memory": "64", "iso": "local:iso/x.iso", "disk": ""}
    view.do({"do": "create", **form})
    [(method, path, values)] = stand.asked
    assert (method, path, view.selected) == ("POST", "nodes/trevor/qemu", "qemu/171")
    assert values["ide2"] == "local:iso/x.iso,media=cdrom"
    assert "scsi0" not in values
    assert "pool" not in values


def test_a_running_guest_migrates_live(both):
    """Whoever presses Migrate does not want to stop the guest."""
    stand, view = both
    view.do({"do": "select", "id": "qemu/900"})
    view.do({"do": "migrate", "target": "michael"})
    assert stand.asked[-1][2] == {"target": "michael", "online": "1"}


def test_guests_outside_the_pool_are_left_alone():
    """On a cluster of others, buttons act on the student's pool only."""
    with standing() as (stand, api):
        view = Datacenter(api, pool="students")
        view.refresh()
        view.do({"do": "select", "id": "qemu/900"})
        view.do({"do": "stop"})
        assert stand.asked == []
        assert view.said == "✗ 900 (vm900) is not in the pool students: it is left alone"
        view.refresh()
        assert [name for name, _, can in view.detail["buttons"] if can] == ["create"]
        view.close()


def test_a_refusal_stands_in_the_status_line_in_the_cluster_s_words(both):
    """Status, reason and what is said of each parameter."""
    stand, view = both
    stand.refuse = (400, "Parameter verification failed.", {"memory": "type check ('integer') failed - got 'lots'"})
    view.do({"do": "select", "id": "qemu/169"})
    view.do({"do": "start"})
    assert view.said == "✗ 400 Parameter verification failed. (memory: type check ('integer') failed - got 'lots')"


def test_a_task_s_log_grows_until_its_end(both):
    """The status line says how it ended."""
    stand, view = both
    view.do({"do": "select", "id": "qemu/169"})
    view.do({"do": "start"})
    view.refresh()
    assert (view.log["status"], view.log["lines"]) == ("running", ["starting"])
    stand.lines, stand.running = ["starting", "TASK OK"], False
    view.refresh()
    assert (view.log["status"], view.said) == ("OK", "qmstart 169: OK")
    assert view.tasks[0]["what"] == "qmstart 169"


def test_a_cluster_that_does_not_answer_is_said(both):
    """The last tree stays; a later answer is noticed."""
    _, view = both
    address = view._api._store["base_url"]
    view._api._store["base_url"] = "http://127.0.0.1:9/api2/json"
    assert view.refresh() is False
    assert view.said == "no answer from the cluster: ConnectionError"
    assert str(view) == TREE
    view._api._store["base_url"] = address
    assert view.refresh() is True
    assert view.said == "the cluster answers again"


def test_the_thread_begins_with_the_display_and_ends_with_the_view(both):
    """It shows what changes meanwhile, and leaves nothing behind."""
    stand, view = both
    assert view._worker is None
    data, _ = view._repr_mimebundle_()
    assert data["text/plain"] == TREE
    stand.guests[169]["status"] = "running"
    end = time.monotonic() + 60
    while "VM 169 (vm169): running" not in str(view):
        assert time.monotonic() < end
        time.sleep(0.01)
    view.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "datacenter view"]


def test_a_cluster_without_quorum_is_read_only_in_words():
    """Nothing is said by colour alone."""
    status = [{"type": "cluster", "name": "lab", "quorate": 0, "nodes": 3}]
    status += [{"type": "node", "name": name, "online": int(name == "trevor")} for name in ("michael", "trevor")]
    assert "no quorum: read-only" in clusterview.as_text(clusterview.tree([], status))
    assert ["quorum", "no, 1 of 3 votes: read-only"] in clusterview.summary_of_cluster(status)
