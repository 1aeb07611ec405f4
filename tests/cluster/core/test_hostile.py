"""Bad input of all kinds: each is answered, in words, and the nodes go on."""

from __future__ import annotations

import random
import re
import socket
import ssl
from typing import Any
from urllib.parse import quote

import pytest
import requests

from course.cluster.declaration import Parameter
from course.cluster.route import Endpoint, registry
from tests.cluster.core.test_schema import login

ASKED = 250
"""How many calls are made with values that nobody would send."""
LEFT_OUT = ("/nodes/{node}/status", "/access/ticket", "/access/password", "vncwebsocket")
PYTHON = re.compile(r"\w+Error\(|NoneType|attribute|out of range|invalid literal|unpack|codec|Traceback|object at 0x")
ODD = ("x", "0", "", "é ü", "../..", "a,b", "a=b,c", "%00", "\x7f", "999999999999999999999", "-1", "💣")
PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "pve-node": ("franklin", "trevor", "michael"),
    "pve-vmid": ("100", "101", "99999"),
    "pve-storage-id": ("local", "local-lvm", "shared", "none"),
    "pve-userid": ("alice@pve", "nobody@pve"),
    "pve-volume-id": ("local:iso/none.iso", "local-lvm:vm-100-disk-0", "none:x"),
    "pve-configid": ("scsi0", "net0", "abc"),
    "pve-calendar-event": ("*/5",),
    "CIDR": ("10.0.0.0/24",),
}


def value(chance: random.Random, declared: Parameter) -> str:
    """Return something that a parameter might be given: often right, sometimes odd."""
    form = re.sub(r"(-opt|-list)+$", "", declared.format) if isinstance(declared.format, str) else ""
    if chance.random() < 0.2:
        return chance.choice(ODD)
    if declared.enum:
        return chance.choice(declared.enum)
    if form in PLAUSIBLE:
        return chance.choice(PLAUSIBLE[form])
    if declared.type in ("integer", "number"):
        return str(int(declared.minimum or 0) + chance.randrange(3))
    return chance.choice("01") if declared.type == "boolean" else chance.choice(ODD)


def request(chance: random.Random, found: Endpoint) -> tuple[str, str, dict[str, Any]]:
    """Return a call with values by chance."""
    given = {
        name: value(chance, each)
        for name, each in found.parameters.items()
        if not each.optional or chance.random() < 2.5 / max(3, len(found.parameters))
    }
    path = re.sub(r"\{(\w+)\}", lambda word: quote(given.get(word[1]) or "x", safe=":"), found.path)
    sent = {name: each for name, each in given.items() if name not in found.uri_parameters}
    return found.method, path, {"data" if found.method in ("POST", "PUT") else "params": sent}


def test_whatever_is_asked_is_answered(tmp_path, cluster_of):
    """Calls with values by chance: no error of ours is in any answer or log, and all nodes answer afterwards."""
    chance = random.Random(11)
    calls = [found for found in registry() if not found.path.endswith(LEFT_OUT) and not found.upload]
    strange = []
    with cluster_of(tmp_path / "state") as lab:
        session = login(lab)
        session.post(f"https://{lab.host}/api2/json/nodes/franklin/qemu", data={"vmid": 100}, verify=lab.ca, timeout=60)
        for _ in range(ASKED):
            method, path, sent = request(chance, chance.choice(calls))
            answer = session.request(method, f"https://{lab.host}/api2/json{path}", **sent, verify=lab.ca, timeout=120)
            if answer.status_code not in (200, 400, 500, 501) or PYTHON.search(answer.reason):
                strange.append(f"{method} {path} {sent}: {answer.status_code} {answer.reason}")
        assert strange == []
        for node in lab.nodes:
            log = (lab.state / "nodes" / node / "log" / "syslog").read_text()
            assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
            assert lab.api(node=node).nodes(node).time.get()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\xfe" * 100,
        b"GET /api2/json/version HTTP/9.9\r\n\r\n",
        b"GET /api2/json/" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api2/json/version HTTP/1.1\r\nHost: x\r\nCookie: " + b"PVEAuthCookie=%ff%00; " * 50 + b"\r\n\r\n",
        b"GET /api2/json/nodes/%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Content-Type: application/json\r\n\r\n{\x00[}\xff",
        b"BREW /api2/json/version HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request_harms_nobody(lab, sent):
    """Garbage is refused or hung up on; the next client is answered."""
    context = ssl.create_default_context(cafile=lab.ca)
    with (
        socket.create_connection(lab.address(), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(sent)
        answer = secure.recv(4096)
    assert answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer
    url = f"https://{lab.host}/api2/json/access/domains"
    assert requests.get(url, verify=lab.ca, timeout=60).status_code == 200


def test_plain_http_on_the_tls_port_harms_nobody(lab):
    """Somebody forgot the s."""
    with socket.create_connection(lab.address(), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.recv(4096)
    assert requests.get(f"https://{lab.host}/api2/json/access/domains", verify=lab.ca, timeout=60).status_code == 200
