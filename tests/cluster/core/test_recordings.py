"""What a real Proxmox VE was asked, and how it refused: ours refuses in the same words.

The recordings are of releases 6.2 and 7.4. What later ones say otherwise on purpose is named in `CHANGED`.
"""

from __future__ import annotations

import contextlib
import json
import re
from urllib.parse import parse_qsl

import pytest
from proxmoxer import ResourceException
from proxmoxer.tools import Tasks

from tests.cluster.core.test_schema import login

CHANGED = {
    "invalid token value!": "Authentication failed!",
    # Since release 8.0 no role of one's own may begin like the built-in ones.
    "create role failed: error during cfs-locked 'file-user_cfg' operation: role 'PVETestAuditor' already exists": (
        "Parameter verification failed."
    ),
}


@pytest.fixture
def twins(api):
    """What has to be there already for the recorded refusals."""
    api.access.groups.post(groupid="group1")
    api.access.users.post(userid="bobsinclar@pve", password="redacted")
    api.pools.post(poolid="pool1")
    api.access.domains.post(realm="LDAP", type="ldap", base_dn="dc=x", user_attr="uid", server1="localhost")
    api.access.domains.post(realm="ActiveDirectory", type="ad", domain="x", server1="localhost")
    Tasks.blocking_status(api, api.nodes("franklin").qemu.post(vmid=100), polling_interval=0.05)
    yield
    Tasks.blocking_status(api, api.nodes("franklin").qemu(100).delete(), polling_interval=0.05)
    realms = (api.access.domains("LDAP"), api.access.domains("ActiveDirectory"))
    for remove in (*realms, api.access.groups("group1"), api.access.users("bobsinclar@pve"), api.pools("pool1")):
        with contextlib.suppress(ResourceException):
            remove.delete()


def refusals(recordings):
    """Yield each recorded request that was refused, once."""
    seen = set()
    for exchange in recordings:
        key = (exchange["method"], exchange["uri"], exchange["request_body"])
        if exchange["status"] >= 400 and key not in seen:
            seen.add(key)
            yield exchange


AREAS = (
    "/access/domains",
    "/access/groups",
    "/access/users",
    "/pools",
    "/access/roles",
    "/cluster/nextid",
    "/access/ticket",
    "/nodes/pve/qemu",
    "/nodes/pve/lxc/",
)


def test_refusals_have_the_recorded_words(lab, api, recordings, compare, twins):
    """Status, reason and body of what needs no guest to be refused."""
    session = login(lab)
    cases = []
    for exchange in refusals(recordings):
        if not any(area in exchange["uri"] for area in AREAS):
            continue
        uri = re.sub(r"/nodes/\w+", "/nodes/franklin", exchange["uri"])
        uri = re.sub(r"/(10[01])/", r"/9990\1/", uri)
        token = "token/root1" in uri
        headers = {"Authorization": "PVEAPIToken=root@pam!root1=00000000-0000-0000-0000-000000000000"} if token else {}
        body = dict(parse_qsl(exchange["request_body"] or ""))
        asked = {"data": body} if body else {}
        answer = session.request(
            exchange["method"], f"https://{lab.host}{uri}", headers=headers, verify=lab.ca, timeout=60, **asked
        )
        words = re.sub(
            r"/(10[01])\.conf",
            r"/9990\1.conf",
            re.sub(r"nodes?/?( '?)?pve", lambda w: w[0].replace("pve", "franklin"), exchange["reason"]),
        )
        wanted = (exchange["status"], words, exchange["body"])
        if words in CHANGED:
            wanted = (400 if "verification" in CHANGED[words] else exchange["status"], CHANGED[words], answer.text)
        cases.append((f"{exchange['method']} {uri}", wanted, (answer.status_code, answer.reason, answer.text)))
    compare("recorded refusals", cases)


READ = ("/nodes", "/access/roles", "/access/domains")


def test_answers_have_the_recorded_fields(lab, recordings, compare):
    """What a real one tells about each node, role and realm, ours tells too."""
    session = login(lab)
    cases = []
    for exchange in recordings:
        path = exchange["uri"].removeprefix("/api2/json")
        if exchange["method"] == "GET" and path in READ and exchange["status"] == 200:
            answer = session.get(f"https://{lab.host}/api2/json{path}", verify=lab.ca, timeout=60).json()
            real, ours = fields(json.loads(exchange["body"])["data"]), fields(answer["data"])
            cases.append((path, sorted(real), sorted(real & ours)))
    compare("recorded answers: fields", cases)


def fields(data):
    """Return the names that each entry of an answer has."""
    if isinstance(data, dict):
        return set(data)
    entries = [set(entry) for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return set.intersection(*entries) if entries else set()
