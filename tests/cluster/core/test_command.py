"""``course cluster``: a cluster that outlives the command, and what is said when something is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import pytest
import requests
from typer.testing import CliRunner

from course.cli import app
from course.cluster import standing
from course.cluster.settings import NODES
from course.machine.process import alive

RUN = CliRunner()
WIDE = {"COLUMNS": "300"}


def command(*words, **environment):
    """Run a command; return its exit status and all that it said."""
    result = RUN.invoke(app, ["cluster", *words], env={**WIDE, **environment})
    return result.exit_code, result.output


def free_ports():
    """Return the first of three ports in a row that are free."""
    for first in range(20000 + os.getpid() % 20000, 60000, 7):
        try:
            for port in range(first, first + len(NODES)):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no three free ports in a row")


@pytest.fixture
def state(tmp_path):
    """A state directory; a cluster that is left there is shut down."""
    folder = tmp_path / "cluster"
    yield folder
    standing.down(folder)


def test_a_cluster_goes_on_until_it_is_told_to_end(state):
    """Up prints what one needs to connect; status shows it; down ends it and keeps its files; reset removes them."""
    port = free_ports()
    status, said = command("up", "--state", str(state), "--port", str(port))
    assert status == 0, said
    assert f"LAB_PVE_HOST=127.0.0.1:{port}" in said
    assert str(state / "pve" / "pve-root-ca.pem") in said
    url = f"https://127.0.0.1:{port + 2}/api2/json/access/domains"
    assert requests.get(url, verify=str(state / "pve" / "pve-root-ca.pem"), timeout=60).status_code == 200
    status, said = command("status", "--state", str(state))
    assert status == 0
    assert [node for node in NODES if node not in said] == []
    assert "3 of 3 votes: quorate" in said
    status, said = command("up", "--state", str(state), "--port", str(port))
    assert (status, "runs already" in said) == (2, True)
    pid = json.loads((state / standing.RECORD).read_text())["pid"]
    assert command("down", "--state", str(state)) == (0, "The lab cluster is down.\n")
    assert not alive(pid)
    assert (state / "pve" / "user.cfg").is_file()
    assert command("status", "--state", str(state))[0] == 1
    assert command("reset", "--yes", "--state", str(state))[0] == 0
    assert not state.exists()


def test_a_port_that_somebody_has_is_named(state):
    """Nothing is left running."""
    port = free_ports()
    with socket.create_server(("127.0.0.1", port + 1)):
        status, said = command("up", "--state", str(state), "--port", str(port))
    assert status == 2
    assert f"cannot use port {port + 1} of 127.0.0.1" in said
    assert standing.find(state) is None


def test_what_a_killed_cluster_left_is_in_nobodys_way(state):
    """Its record and its sockets are swept when the next one comes."""
    port = free_ports()
    first = standing.up(state, first_port=port)
    os.kill(first.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while alive(first.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert standing.find(state) is None
    assert not first.run.exists()
    assert standing.up(state, first_port=port).host_of("franklin") == f"127.0.0.1:{port}"


def test_the_example_password_is_for_loopback_only(state):
    """Others must not reach a cluster whose password everybody knows."""
    status, said = command("up", "--state", str(state), "--address", "0.0.0.0")
    assert status == 2
    assert "example password" in said
    assert standing.find(state) is None


def test_a_directory_with_something_else_is_left_alone(tmp_path):
    """Neither made a cluster's, nor deleted."""
    (tmp_path / "thesis.tex").write_text("years of work")
    for words in (("up",), ("reset", "--yes")):
        status, said = command(*words, "--state", str(tmp_path))
        assert status == 2, said
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
