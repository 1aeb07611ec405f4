"""Interfaces of a node: changes that wait, count or are taken back."""

from __future__ import annotations

import pytest
from proxmoxer import ResourceException
from proxmoxer.tools import Tasks


@pytest.fixture
def network(api):
    """The network of a node, as it was installed."""
    yield api.nodes("trevor").network
    api.nodes("trevor").network.delete()


def names(network, **values):
    """Return the names of the interfaces that are listed."""
    return [entry["iface"] for entry in network.get(**values)]


def apply(api, network):
    """Reload the network and wait for it."""
    done = Tasks.blocking_status(api, network.put(), timeout=60, polling_interval=0.1)
    assert done["exitstatus"] == "OK"


def test_a_new_node_has_a_bridge_on_its_first_card(network):
    """What the installer leaves: two cards, and vmbr0 with the node's address."""
    assert names(network) == ["eno1", "eno2", "vmbr0"]
    assert names(network, type="any_bridge") == ["vmbr0"]
    bridge = network("vmbr0").get()
    expected = {"type": "bridge", "cidr": "10.0.0.2/24", "gateway": "10.0.0.254", "bridge_ports": "eno1", "active": 1}
    assert expected.items() <= bridge.items()


def test_a_bridge_counts_once_the_network_is_reloaded(api, lab, network):
    """Until then it waits, and the list says so; afterwards guests can be plugged into it."""
    network.post(iface="vmbr7", type="bridge", autostart=1, bridge_ports="eno2", comments="second cable")
    waiting = {entry["iface"]: entry for entry in network.get()}["vmbr7"]
    assert "active" not in waiting
    assert (lab.state / "nodes" / "trevor" / "etc" / "network" / "interfaces.new").exists()
    apply(api, network)
    assert network("vmbr7").get()["active"] == 1
    text = (lab.state / "nodes" / "trevor" / "etc" / "network" / "interfaces").read_text()
    assert "auto vmbr7\niface vmbr7 inet manual\n\tbridge-ports eno2\n\tbridge-stp off\n\tbridge-fd 0\n" in text
    network("vmbr7").delete()
    apply(api, network)
    assert names(network) == ["eno1", "eno2", "vmbr0"]


def test_what_waits_can_be_taken_back(network):
    """DELETE on the whole network forgets it."""
    network.post(iface="vmbr8", type="bridge")
    assert "vmbr8" in names(network)
    network.delete()
    assert "vmbr8" not in names(network)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"iface": "vmbr0", "type": "bridge"}, "iface", "interface already exists"),
        ({"iface": "vmbr8", "type": "bridge", "cidr": "10.0.0.2/24"}, "address", "already exists on interface 'vmbr0'"),
        ({"iface": "vmbr8", "type": "bridge", "gateway": "10.0.0.9"}, "gateway", "Default gateway already exists"),
        ({"iface": "vmbr8", "type": "cloud"}, "type", "does not have a value in the enumeration"),
    ],
)
def test_what_cannot_be_is_refused(network, values, field, words):
    """Status 400, and the field that is wrong."""
    with pytest.raises(ResourceException) as refused:
        network.post(**values)
    assert refused.value.status_code == 400
    assert words in refused.value.errors[field]


def test_a_settings_change_is_written(network):
    """Changing a bridge's comment and cards shows at once, marked as waiting by the file."""
    network("vmbr0").put(type="bridge", bridge_ports="eno1 eno2", comments="both cards")
    found = network("vmbr0").get()
    assert (found["bridge_ports"], found["comments"].strip()) == ("eno1 eno2", "both cards")
