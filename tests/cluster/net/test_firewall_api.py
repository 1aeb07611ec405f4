"""The firewall's calls at all levels: what they write, answer and refuse."""

from __future__ import annotations

import pytest
from proxmoxer import ResourceException


@pytest.fixture
def cluster(lab, api):
    """The datacenter's firewall, empty again afterwards."""
    yield api.cluster.firewall
    (lab.state / "pve" / "firewall" / "cluster.fw").unlink(missing_ok=True)


@pytest.fixture
def guest(lab, api):
    """The firewall of a guest that does not even exist, as on a real cluster; gone afterwards."""
    yield api.nodes("michael").qemu(8169).firewall
    (lab.state / "pve" / "firewall" / "8169.fw").unlink(missing_ok=True)


def refusal(call, *arguments, **values):
    """Return how a call is refused: status, words and errors by field."""
    with pytest.raises(ResourceException) as refused:
        call(*arguments, **values)
    return refused.value.status_code, refused.value.content, refused.value.errors


def test_rules_come_in_at_the_top_and_switched_off(lab, guest):
    """The latest rule is the first; without `enable` it does not count; the file is Proxmox VE's."""
    guest.rules.post(type="in", action="ACCEPT", macro="ssh", enable=1, comment="from outside")
    guest.rules.post(type="out", action="REJECT", proto="tcp", dport="25,465", dest="10.0.0.0/8", log="info")
    rules = guest.rules.get()
    assert [(rule["pos"], rule["type"], rule["action"], rule["enable"]) for rule in rules] == [
        (0, "out", "REJECT", 0),
        (1, "in", "ACCEPT", 1),
    ]
    assert guest.rules(1).get()["macro"] == "SSH"
    assert (lab.state / "pve" / "firewall" / "8169.fw").read_text() == (
        "[RULES]\n\n|OUT REJECT -p tcp -dest 10.0.0.0/8 -dport 25,465 -log info\nIN SSH(ACCEPT) # from outside\n"
    )


def test_rules_are_changed_moved_and_removed(guest):
    """A field is set, another taken away; a rule moves before the position that is named."""
    for number in (3, 2, 1, 0):
        guest.rules.post(type="in", action="ACCEPT", proto="tcp", dport=str(number), enable=1)
    guest.rules(0).put(action="DROP", delete="dport")
    guest.rules(0).put(moveto=3)
    guest.rules(3).put(moveto=0)
    assert [(rule["action"], rule.get("dport")) for rule in guest.rules.get()] == [
        ("ACCEPT", "3"),
        ("ACCEPT", "1"),
        ("ACCEPT", "2"),
        ("DROP", None),
    ]
    guest.rules(3).delete()
    assert len(guest.rules.get()) == 3


def test_two_editors_do_not_overwrite_each_other(guest):
    """A digest that is not the list's any more refuses the change."""
    guest.rules.post(type="in", action="ACCEPT")
    seen = guest.rules.get()[0]["digest"]
    guest.rules(0).put(comment="first", digest=seen)
    words = "detected modified configuration - file changed by other user? Try again."
    assert refusal(guest.rules(0).put, comment="second", digest=seen)[:2] == (500, words)
    assert refusal(guest.rules(0).delete, digest=seen)[:2] == (500, words)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"action": "ALLOW"}, "action", "unknown action 'ALLOW'"),
        ({"macro": "Gopher"}, "macro", "unknown macro 'Gopher'"),
        ({"dport": "80"}, "proto", "missing property - 'dport' requires this property"),
        ({"proto": "icmp", "sport": "80"}, "sport", "protocol 'icmp' does not support ports"),
        ({"proto": "tcp", "dport": "90:80"}, "dport", "backwards range '90:80' not allowed"),
        ({"proto": "tcp", "dport": "70000"}, "dport", "invalid port '70000'"),
        ({"proto": "carrier-pigeon"}, "proto", "unknown protocol 'carrier-pigeon'"),
        ({"source": "+nobody"}, "source", "no such ipset 'nobody'"),
        ({"source": "nobody"}, "source", "no such alias 'nobody'"),
        ({"dest": "10.0.0.300"}, "dest", "invalid IP address"),
        ({"dest": "10.0.0.1,fd00::1"}, "dest", "mixed ipv4/ipv6"),
        ({"iface": "eth0"}, "iface", r"value does not match the regex pattern 'net\d+'"),
        ({"macro": "SSH", "dport": "2222"}, "dport", "parameter 'dport' already define in macro (value = '22')"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(guest, values, field, words):
    """Status 400, the field, and what is wrong with it; nothing is written."""
    status, content, errors = refusal(guest.rules.post, **{"type": "in", "action": "ACCEPT", **values})
    assert (status, content.startswith("Parameter verification failed.")) == (400, True)
    assert words in errors[field]
    assert guest.rules.get() == []


def test_there_is_no_rule_beyond_the_last(guest):
    """Reading, changing and removing it is refused with its position."""
    for call, values in ((guest.rules(4).get, {}), (guest.rules(4).put, {"enable": 1}), (guest.rules(4).delete, {})):
        assert refusal(call, **values)[:2] == (500, "no rule at position 4")


def test_options_have_types_and_can_be_taken_back(cluster, guest):
    """Switches are numbers, policies words; a policy that does not exist is refused."""
    cluster.options.put(enable=1, policy_in="REJECT", log_ratelimit="enable=1,burst=9")
    found = cluster.options.get()
    assert (found["enable"], found["policy_in"], found["log_ratelimit"]) == (1, "REJECT", "enable=1,burst=9")
    cluster.options.put(delete="policy_in", digest=found["digest"])
    assert "policy_in" not in cluster.options.get()
    guest.options.put(enable=1, ipfilter=1, policy_out="DROP")
    assert {"enable": 1, "ipfilter": 1, "policy_out": "DROP"}.items() <= guest.options.get().items()
    assert refusal(guest.options.put, policy_in="MAYBE")[0] == 400
    assert refusal(cluster.options.put, delete="colour")[2] == {"delete": "no such option 'colour'"}


def test_sets_and_aliases(cluster, guest):
    """Names are made, used, renamed, and not removed while something is in them."""
    cluster.aliases.post(name="Admin", cidr="10.0.0.5", comment="the desk")
    assert refusal(cluster.aliases.post, name="admin", cidr="10.0.0.6")[2] == {"name": "alias 'admin' already exists"}
    cluster.ipset.post(name="blocked", comment="noisy")
    cluster.ipset("blocked").post(cidr="10.9.1.1/16")
    cluster.ipset("blocked").post(cidr="admin", nomatch=1)
    assert [(entry["cidr"], entry.get("nomatch")) for entry in cluster.ipset("blocked").get()] == [
        ("admin", 1),
        ("10.9.0.0/16", None),
    ]
    assert "already exists" in refusal(cluster.ipset("blocked").post, cidr="10.9.0.0/16")[2]["cidr"]
    assert "zero prefix" in refusal(cluster.ipset("blocked").post, cidr="0.0.0.0/0")[2]["cidr"]
    assert refusal(cluster.ipset("blocked").delete)[:2] == (500, "IPSet 'blocked' is not empty")
    assert {(ref["type"], ref["ref"], ref["scope"]) for ref in guest.refs.get()} == {
        ("ipset", "+blocked", "dc"),
        ("alias", "admin", "dc"),
    }
    guest.rules.post(type="in", action="DROP", source="+dc/blocked", dest="dc/admin", enable=1)
    cluster.aliases("admin").put(cidr="10.0.0.7", rename="desk")
    assert [alias["name"] for alias in cluster.aliases.get()] == ["desk"]
    cluster.ipset("blocked")("admin").delete()
    cluster.ipset("blocked").delete(force=1)
    assert cluster.ipset.get() == []


def test_a_network_can_be_named_in_a_path(cluster):
    """An entry with a slash is found when the slash is escaped, as clients do."""
    cluster.ipset.post(name="blocked")
    cluster.ipset("blocked").post(cidr="10.9.0.0/16")
    cluster.ipset("blocked")("10.9.0.0%2F16").put(comment="all of it")
    assert cluster.ipset("blocked")("10.9.0.0%2F16").get()["comment"] == "all of it"
    cluster.ipset("blocked")("10.9.0.0%2F16").delete()
    assert cluster.ipset("blocked").get() == []


def test_security_groups(cluster, guest):
    """A group holds rules but no groups, is used by name, renamed with its uses, and removed when empty."""
    cluster.groups.post(group="web", comment="what web servers need")
    cluster.groups("web").post(type="in", action="ACCEPT", macro="Web", enable=1)
    words = refusal(cluster.groups("web").post, type="group", action="web")[2]
    assert words == {"type": "security groups not allowed"}
    guest.rules.post(type="group", action="web", enable=1, iface="net0")
    cluster.groups.post(group="pages", rename="web")
    assert [(group["group"], group["comment"]) for group in cluster.groups.get()] == [
        ("pages", "what web servers need")
    ]
    assert guest.rules(0).get()["action"] == "pages"
    assert refusal(cluster.groups("pages").delete)[:2] == (500, "Security group 'pages' is not empty")
    cluster.groups("pages")(0).delete()
    cluster.groups("pages").delete()
    assert refusal(cluster.groups("pages").get)[:2] == (500, "no such security group 'pages'")


def test_nodes_have_rules_too(lab, api):
    """A node's rules and options are in its host.fw."""
    node = api.nodes("trevor").firewall
    node.rules.post(type="in", action="ACCEPT", iface="vmbr0", proto="tcp", dport="8006", enable=1)
    node.options.put(tcpflags=1, log_level_in="info")
    path = lab.state / "pve" / "nodes" / "trevor" / "host.fw"
    assert "IN ACCEPT -i vmbr0 -p tcp -dport 8006" in path.read_text()
    assert node.options.get()["tcpflags"] == 1
    assert {entry["name"] for entry in node.get()} >= {"rules", "options", "log"}
    assert isinstance(node.log.get(), list)
    path.unlink()


def test_macros_are_named(cluster):
    """The list holds the names that rules may use, each with words about it."""
    macros = {macro["macro"]: macro["descr"] for macro in cluster.macros.get()}
    assert {"SSH", "Ping", "HTTPS", "DNS", "SMB", "NeighborDiscovery"} <= macros.keys()
    assert all(macros.values())


def test_who_may_not_is_refused(lab, api, guest):
    """Rules of a guest need a right on the guest; a user without any is refused by name of the right."""
    api.access.users.post(userid="wallflower@pve", password="wallflower-1")
    try:
        rules = lab.api(user="wallflower@pve", password="wallflower-1").nodes("michael").qemu(8169).firewall.rules
        refused = "Permission check failed (/vms/8169, {})"
        assert refusal(rules.get)[:2] == (403, refused.format("VM.Audit"))
        assert refusal(rules.post, type="in", action="ACCEPT")[:2] == (403, refused.format("VM.Config.Network"))
    finally:
        api.access.users("wallflower@pve").delete()
