"""The lab as a whole: nodes that answer, die and come back."""

import pytest
import requests
from proxmoxer import ResourceException


def online(api):
    """Return which nodes the cluster sees."""
    return {entry["name"]: entry["online"] for entry in api.cluster.status.get() if entry["type"] == "node"}


def test_each_node_answers_for_the_cluster(lab):
    """Whichever node is asked, the answer is the cluster's."""
    found = [online(lab.api(node=node)) for node in lab.nodes]
    assert found == [{"franklin": 1, "trevor": 1, "michael": 1}] * 3


def test_a_node_without_power_is_missed_and_comes_back(lab, api):
    """The others say 595 for what only it could answer, and go on; when it is back, it answers again."""
    lab.power_off("trevor")
    try:
        with pytest.raises(ResourceException) as refused:
            api.nodes("trevor").version.get()
        assert (refused.value.status_code, refused.value.content) == (595, "No route to host")
        assert online(api) == {"franklin": 1, "trevor": 0, "michael": 1}
        with pytest.raises(requests.ConnectionError):
            requests.get(f"https://{lab.host_of('trevor')}/api2/json/version", verify=lab.ca, timeout=10)
    finally:
        lab.power_on("trevor")
    assert api.nodes("trevor").version.get()["release"] == "8.1"
