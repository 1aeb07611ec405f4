"""Dead nodes, pulled cables, lost quorum, and power cuts at bad moments."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

import pytest
import requests
from proxmoxer import ResourceException

from course.cluster.config.users import UserConfig
from course.machine.process import alive
from tests.cluster.core.test_schema import login


@pytest.fixture
def whole(lab):
    """The lab, put right again afterwards."""
    yield lab
    for node in lab.nodes:
        lab.rejoin(node)
        lab.power_on(node)


def refusal(action, **values):
    """Return the status and the words with which something is refused."""
    with pytest.raises(ResourceException) as refused:
        action(**values)
    return refused.value.status_code, refused.value.content


def await_ready(lab, node):
    """Wait until a node answers that comes back by itself."""
    end = time.monotonic() + 60
    while not (found := lab.hardware.status()[node])["ready"]:
        assert not found["error"], found["error"] + lab.output[-4000:]
        assert time.monotonic() < end, f"{found}\n{lab.output[-4000:]}"
        time.sleep(0.02)


def test_one_vote_of_three_reads_but_does_not_write(whole, api):
    """With two nodes dead the third says that there is no quorum."""
    whole.power_off("trevor")
    whole.power_off("michael")
    assert refusal(api.pools.post, poolid="never") == (500, "cluster not ready - no quorum?")
    assert next(entry for entry in api.cluster.status.get() if entry["type"] == "cluster")["quorate"] == 0
    assert {entry["node"]: entry["status"] for entry in api.nodes.get()} == {
        "franklin": "online",
        "trevor": "offline",
        "michael": "offline",
    }
    whole.power_on("michael")
    api.pools.post(poolid="now")
    api.pools("now").delete()


def test_a_node_without_its_cable_stands_alone(whole, api):
    """The others do not reach it, and it does not decide; put in again, all is well."""
    whole.isolate("michael")
    assert refusal(api.nodes("michael").time.get) == (595, "No route to host")
    alone = whole.api(node="michael")
    assert refusal(alone.pools.post, poolid="never") == (500, "cluster not ready - no quorum?")
    assert refusal(alone.nodes("franklin").time.get) == (595, "No route to host")
    whole.rejoin("michael")
    assert api.nodes("michael").time.get()
    assert alone.nodes("franklin").time.get()


def test_a_node_that_is_killed_from_outside_is_off(whole, api):
    """As if somebody had pulled its plug; it stays off until it is switched on."""
    os.kill(whole.pid("michael"), signal.SIGKILL)
    end = time.monotonic() + 60
    while whole.pid("michael") and time.monotonic() < end:
        time.sleep(0.02)
    assert refusal(api.nodes("michael").time.get) == (595, "No route to host")
    whole.power_on("michael")
    assert api.nodes("michael").time.get()


def test_a_node_shuts_down_and_wakes_over_the_network(whole, api):
    """By the API alone."""
    pid = whole.pid("michael")
    api.nodes("michael").status.post(command="shutdown")
    end = time.monotonic() + 60
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(pid)
    api.nodes("michael").wakeonlan.post()
    await_ready(whole, "michael")
    assert api.nodes("michael").time.get()


def test_a_watchdog_that_nobody_keeps_quiet_resets_the_node(whole, api):
    """It comes back by itself."""
    pid = whole.pid("michael")
    end = time.monotonic() + 60
    while alive(pid) and time.monotonic() < end:
        whole.hardware.ask("watchdog", node="michael", timeout_s=0.01)
        time.sleep(0.02)
    assert not alive(pid)
    await_ready(whole, "michael")
    assert api.nodes("michael").time.get()


def test_nothing_acknowledged_is_lost_in_a_power_cut(whole):
    """Power cuts at random moments of many changes: what was answered is there, and each file can be read."""
    chance = random.Random(169)
    acknowledged: list[str] = []
    try:
        for attempt in range(4):
            ended = threading.Event()
            writer = threading.Thread(target=write, args=(whole, f"cut{attempt}", acknowledged, ended))
            writer.start()
            time.sleep(chance.uniform(0.02, 0.3))
            whole.power_off("michael")
            ended.wait(120)
            writer.join()
            whole.power_on("michael")
        config = UserConfig.parse((whole.state / "pve" / "user.cfg").read_text())
        assert config.warnings == []
        assert acknowledged
        assert set(acknowledged) <= config.pools.keys()
        names = [path.name for path in (whole.state / "pve").rglob("*") if path.suffix in (".cfg", ".conf")]
        assert len(names) == len(set(names))
    finally:
        api = whole.api()
        for pool in api.pools.get():
            if pool["poolid"].startswith("cut"):
                api.pools(pool["poolid"]).delete()


def write(lab, prefix, acknowledged, ended):
    """Make pools on michael until it is gone; remember what was answered."""
    try:
        session = login(lab)
        for number in range(2000):
            name = f"{prefix}-{number}"
            url = f"https://{lab.host_of('michael')}/api2/json/pools"
            if session.post(url, data={"poolid": name}, verify=lab.ca, timeout=60).status_code == 200:
                acknowledged.append(name)
    except requests.RequestException:
        pass
    finally:
        ended.set()


def test_what_a_cluster_has_survives_its_end(tmp_path, cluster_of):
    """Pools, tokens and the authority are there when it is started again; what a killed writer left goes."""
    with cluster_of(tmp_path / "state") as lab:
        lab.api().pools.post(poolid="stays")
        ca = lab.ca_path.read_text()
        tokens = lab.api().access.users("root@pam").token("tt").post(privsep=0)
    rubbish = tmp_path / "state" / "pve" / ".unfinished-abc"
    rubbish.write_text("half")
    with cluster_of(tmp_path / "state") as lab:
        assert lab.ca_path.read_text() == ca
        api = lab.api("root@pam", token_name="tt", token_value=tokens["value"])
        assert [pool["poolid"] for pool in api.pools.get()] == ["stays"]
        assert not rubbish.exists()
        run = lab.run
    assert not run.exists()


def test_the_lab_and_all_its_nodes_end_with_their_owner(tmp_path, cluster_of):
    """A killed rack takes its nodes along, and a second cluster on the same state directory is refused meanwhile."""
    with cluster_of(tmp_path / "state") as lab:
        pids = [lab.pid(node) for node in lab.nodes]
        with pytest.raises(Exception, match="is running already"), cluster_of(tmp_path / "state"):
            pass
        assert all(alive(pid) for pid in pids)
        os.kill(lab._rack.pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while any(alive(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.02)
        assert not any(alive(pid) for pid in pids)
    assert json.loads((tmp_path / "state" / "nodes" / "michael" / "log" / "cluster").read_text().splitlines()[0])
