"""Status lines, headers and bodies, as clients of a real one read them."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from urllib.parse import quote, urlencode

import pytest
import requests
from proxmoxer import ResourceException
from proxmoxer.tools import Tasks

from course.cluster.lab import Cluster

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Client:
    """Speaks HTTP without any library's help, so that nothing is smoothed over."""

    def __init__(self, lab: Cluster, node: str = "franklin") -> None:
        context = ssl.create_default_context(cafile=lab.ca)
        self._connection = http.client.HTTPSConnection(*lab.address(node), context=context, timeout=60)
        self.headers: dict[str, str] = {}

    def ask(self, method, path, *, body=None, headers=None):
        """Return status, reason, headers and body."""
        self._connection.request(method, path, body, {**self.headers, **(headers or {})})
        answer = self._connection.getresponse()
        found = answer.status, answer.reason, answer.headers, answer.read()
        if answer.will_close:
            self._connection.close()
        return found

    def login(self, password):
        """Log in as root and keep ticket and token."""
        form = urlencode({"username": "root@pam", "password": password})
        body = self.ask("POST", "/api2/json/access/ticket", body=form, headers=FORM)[3]
        self.ticket = re.search(rb'"ticket":"([^"]+)"', body)[1].decode()
        self.csrf = re.search(rb'"CSRFPreventionToken":"([^"]+)"', body)[1].decode()
        self.headers = {"Cookie": f"PVEAuthCookie={self.ticket}", "CSRFPreventionToken": self.csrf}

    def close(self):
        """Hang up."""
        self._connection.close()


@pytest.fixture
def client(lab):
    """A client of the first node that is logged in."""
    found = Client(lab)
    found.login(lab.password)
    yield found
    found.close()


def test_a_success_has_the_headers_of_the_real_server(client):
    """Server, content type and the ban on caching; the connection stays."""
    status, reason, headers, body = client.ask("GET", "/api2/json/version")
    assert (status, reason) == (200, "OK")
    wanted = {
        "Server": "pve-api-daemon/3.0",
        "Content-Type": "application/json;charset=UTF-8",
        "Cache-Control": "max-age=0",
        "Pragma": "no-cache",
    }
    assert {name: headers[name] for name in wanted} == wanted
    assert headers["Expires"] == headers["Date"]
    assert headers.get("Connection", "").lower() != "close"
    assert body.startswith(b'{"data":{')


@pytest.mark.parametrize(
    ("asked", "status", "reason", "body"),
    [
        ("GET /pve2/images/logo.png", 501, "no such uri", b""),
        ("GET /api2/yaml/version", 501, "no formatter for uri", b""),
        ("GET /api2/json/nodes/franklin/x", 501, "Method 'GET /nodes/franklin/x' not implemented", b'{"data":null}'),
        ("PUT /api2/json/version", 501, "Method 'PUT /version' not implemented", b'{"data":null}'),
        (
            "GET /api2/json/nodes/nowhere/time",
            500,
            "hostname lookup 'nowhere' failed - failed to get address info for: nowhere: Name or service not known",
            b'{"data":null}',
        ),
        (
            "GET /api2/json/cluster/nextid?vmid=99",
            400,
            "Parameter verification failed.",
            rb'{"data":null,"errors":{"vmid":"invalid format - value does not look like a valid VM ID\n"}}',
        ),
        (
            "GET /api2/json/nodes/franklin/tasks/UPID:x/status",
            400,
            "Parameter verification failed.",
            b'{"data":null,"errors":{"upid":"unable to parse worker upid \'UPID:x\'"}}',
        ),
    ],
)
def test_an_error_is_in_the_status_line_and_ends_the_connection(client, asked, status, reason, body):
    """The reason has the words; the body has no data; the connection closes."""
    found = client.ask(*asked.split())
    assert (found[0], found[1], found[3]) == (status, reason, body)
    assert found[2]["Connection"].lower() == "close"


def test_errors_of_extjs_are_in_the_body(client):
    """The web interface's form always succeeds and says in the body what went wrong."""
    status, reason, _, body = client.ask("GET", "/api2/extjs/cluster/nextid?vmid=99")
    assert (status, reason) == (200, "OK")
    assert b'"success":0' in body
    assert b'"status":400' in body
    assert b'"message":"Parameter verification failed."' in body
    assert b'"success":1' in client.ask("GET", "/api2/extjs/version")[3]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_belongs_is_refused(client, method):
    """GET and DELETE take their parameters in the URL."""
    found = client.ask(method, "/api2/json/nodes/franklin/tasks", body="x=1", headers=FORM)
    assert found[:2] == (501, f"Unexpected content for method '{method}'")


def test_without_a_ticket_there_is_no_body(lab):
    """Nobody is told anything."""
    found = Client(lab).ask("GET", "/api2/json/version")
    assert (found[0], found[1], found[3]) == (401, "No ticket", b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "PVEAuthCookie=PVE:root@pam:65F0A1C2::bm90IGEgc2lnbmF0dXJl"},
        {"Cookie": "PVEAuthCookie=nonsense"},
        {"Authorization": "PVEAPIToken=root@pam!none=00000000-0000-0000-0000-000000000000"},
    ],
)
def test_wrong_tickets_and_tokens_are_refused(lab, headers):
    """Forged, malformed, unknown."""
    found = Client(lab).ask("GET", "/api2/json/version", headers=headers)
    assert (found[0], found[1], found[3]) == (401, "Authentication failed!", b"")


def test_a_ticket_may_come_raw_encoded_or_in_a_header(client):
    """Proxmoxer sends it raw, browsers percent-encoded, some clients as authorization."""
    for headers in (
        {"Cookie": f"PVEAuthCookie={client.ticket}"},
        {"Cookie": f"other=1; PVEAuthCookie={quote(client.ticket, safe='')}"},
        {"Authorization": f"PVEAuthCookie={client.ticket}", "Cookie": ""},
    ):
        assert client.ask("GET", "/api2/json/version", headers=headers)[0] == 200


def test_changes_need_the_token_against_forgery(client):
    """A ticket alone may read."""
    found = client.ask("POST", "/api2/json/pools", body="poolid=forged", headers={**FORM, "CSRFPreventionToken": ""})
    assert (found[0], found[1], found[3]) == (401, "Permission denied - invalid csrf token", b"")


def test_a_failed_login_says_no_more_than_that(lab):
    """Whether the user exists is not told."""
    for user in ("root@pam", "nobody@pve", "root", "root@nowhere"):
        form = urlencode({"username": user, "password": "wrong"})
        found = Client(lab).ask("POST", "/api2/json/access/ticket", body=form, headers=FORM)
        assert (found[0], found[1], found[3]) == (401, "authentication failure", b'{"data":null}')


def test_a_parameter_that_contradicts_the_path_is_refused(client):
    """The same again is no contradiction."""
    path = "/api2/json/nodes/franklin/time?node="
    assert client.ask("GET", path + "franklin")[0] == 200
    found = client.ask("GET", path + "trevor")
    assert found[0] == 400
    assert b'"node":"duplicate parameter (already defined in URI) with conflicting values!"' in found[3]


def test_parameters_may_come_as_json(client):
    """Clients in other languages send JSON."""
    headers = {"Content-Type": "application/json"}
    found = client.ask("PUT", "/api2/json/cluster/options", body='{"language":"fr"}', headers=headers)
    assert found[0] == 200
    assert b'"language":"fr"' in client.ask("GET", "/api2/json/cluster/options")[3]
    assert client.ask("PUT", "/api2/json/cluster/options?delete=language")[0] == 200


def test_a_body_that_is_too_large_is_not_read(client):
    """A megabyte of parameters is no configuration."""
    found = client.ask("POST", "/api2/json/pools", body=b"x" * (2 << 20), headers=FORM)
    assert found[:2] == (501, "for data too large")


def test_another_node_answers_through_the_one_that_is_asked(lab, client):
    """A request for another node is forwarded as it is, its errors too."""
    assert client.ask("GET", "/api2/json/nodes/trevor/time")[0] == 200
    found = client.ask("GET", "/api2/json/nodes/trevor/rrddata?timeframe=eon")
    assert found[0] == 400
    found = client.ask("DELETE", "/api2/json/nodes/michael/tasks/UPID:michael:00000001:00000001:00000001:x::root@pam:")
    assert (found[0], found[3]) == (400, b'{"data":null,"errors":{"upid":"no such task"}}')


def test_the_certificate_is_the_authoritys(lab):
    """Who believes the lab's authority may verify; who does not is warned."""
    url = f"https://{lab.host}/api2/json/access/domains"
    assert requests.get(url, verify=lab.ca, timeout=60).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=60)


def test_a_client_that_asks_first_may_go_on(lab, client):
    """Some wait for "100 Continue" before they send a body."""
    headers = {**client.headers, "Host": "lab", "Expect": "100-continue", **FORM, "Content-Length": "16"}
    context = ssl.create_default_context(cafile=lab.ca)
    with (
        socket.create_connection(lab.address(), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        secure.sendall(f"POST /api2/json/pools HTTP/1.1\r\n{lines}\r\n".encode())
        assert secure.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        secure.sendall(b"poolid=continued")
        assert secure.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.ask("DELETE", "/api2/json/pools/continued")[0] == 200


def test_who_opens_the_address_in_a_browser_is_told_what_it_is(client):
    """There is no web interface, and a page says so."""
    status, _, headers, body = client.ask("GET", "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert b"franklin" in body


def test_a_file_goes_to_the_disk_of_the_node_that_it_is_for(lab, api):
    """Through another node, as it comes; what is refused leaves nothing behind."""
    content = bytes(range(256)) * 4096
    for name, fits in (("whole.iso", True), ("whole.txt", False)):
        file = io.BytesIO(content)
        file.name = name
        store = api.nodes("trevor").storage("local")
        if fits:
            Tasks.blocking_status(api, store.upload.post(content="iso", filename=file), polling_interval=0.05)
            assert {entry["size"] for entry in store.content.get(content="iso") if name in entry["volid"]} == {1 << 20}
            store.content(f"local:iso/{name}").delete()
        else:
            with pytest.raises(ResourceException, match="wrong file extension"):
                store.upload.post(content="iso", filename=file)
    assert list((lab.state / "nodes" / "trevor" / "upload").iterdir()) == []
