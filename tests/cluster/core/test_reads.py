"""Everything that monitoring, inventories and clients in other languages read at first; each answer fits the schema."""

from __future__ import annotations

import itertools
import re
import time

import pytest

# fmt: off
PATHS = (
    "access", "access/acl", "access/domains", "access/domains/pve", "access/groups", "access/permissions",
    "access/roles", "access/tfa", "access/users", "access/users/root@pam", "access/users/root@pam/tfa",
    "access/users/root@pam/token", "cluster", "cluster/config", "cluster/config/apiversion", "cluster/config/join",
    "cluster/config/nodes", "cluster/config/qdevice", "cluster/config/totem", "cluster/jobs", "cluster/log",
    "cluster/mapping", "cluster/metrics", "cluster/metrics/server", "cluster/nextid", "cluster/options",
    "cluster/resources", "cluster/status", "cluster/tasks", "nodes", "nodes/michael", "nodes/michael/aplinfo",
    "nodes/michael/apt", "nodes/michael/apt/update", "nodes/michael/apt/versions", "nodes/michael/capabilities",
    "nodes/michael/capabilities/qemu", "nodes/michael/capabilities/qemu/cpu",
    "nodes/michael/capabilities/qemu/machines", "nodes/michael/certificates", "nodes/michael/certificates/info",
    "nodes/michael/config", "nodes/michael/disks", "nodes/michael/disks/list", "nodes/michael/dns",
    "nodes/michael/hardware", "nodes/michael/hardware/pci", "nodes/michael/hardware/usb", "nodes/michael/hosts",
    "nodes/michael/journal", "nodes/michael/netstat", "nodes/michael/report", "nodes/michael/services",
    "nodes/michael/services/pveproxy", "nodes/michael/services/pveproxy/state", "nodes/michael/status",
    "nodes/michael/subscription", "nodes/michael/syslog", "nodes/michael/tasks", "nodes/michael/time",
    "nodes/michael/version", "pools", "version",
)
# fmt: on


@pytest.mark.parametrize("path", PATHS)
def test_it_is_answered(api, path):
    """It is there, and it fits (see the fixture `answers`)."""
    assert api(path).get() is not None


def test_the_first_list_of_resources_names_nodes_and_storages(api, lab):
    """Ids are as exporters parse them."""
    found = {entry["id"]: entry for entry in api.cluster.resources.get()}
    assert {f"node/{name}" for name in lab.nodes} <= found.keys()
    assert {f"storage/{name}/{each}" for name in lab.nodes for each in ("local", "local-lvm", "shared")} <= found.keys()
    node = found["node/michael"]
    assert node["status"] == "online"
    assert 0 <= node["cpu"] <= 1
    assert 0 < node["mem"] <= node["maxmem"]
    assert {entry["type"] for entry in api.cluster.resources.get(type="storage")} == {"storage"}


def test_what_was_measured_is_kept(api):
    """The series of a node have a point soon, from whichever node they are asked for."""
    end = time.monotonic() + 60
    while not (points := api.nodes("trevor").rrddata.get(timeframe="hour")) and time.monotonic() < end:
        time.sleep(0.1)
    assert {"time", "cpu", "memused", "memtotal", "loadavg"} <= points[-1].keys()


def test_options_are_changed_and_shown_with_their_properties(api):
    """What holds properties is an object in the answer."""
    api.cluster.options.put(
        migration="insecure,network=10.0.0.0/24", description="two\nlines", **{"next-id": "lower=500"}
    )
    try:
        found = api.cluster.options.get()
        assert found["migration"] == {"type": "insecure", "network": "10.0.0.0/24"}
        assert found["description"] == "two\nlines\n"
        assert api.cluster.nextid.get() == "500"
    finally:
        api.cluster.options.put(delete="migration,description,next-id")
    assert int(api.cluster.nextid.get()) < 500


def test_the_next_times_of_a_schedule(api):
    """Every quarter of an hour."""
    found = api.cluster.jobs("schedule-analyze").get(schedule="*/15", iterations=3, starttime=1_700_000_000)
    stamps = [entry["timestamp"] for entry in found]
    assert [later - before for before, later in itertools.pairwise(stamps)] == [900, 900]
    assert re.fullmatch(r"2023-11-14 22:15:00 UTC", found[0]["utc"])
