"""Services outside the box: reached from inside at the ports that are listed, and ended with the judge."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from autograder import session
from autograder.judge import Court, JudgeError
from course.check import outside
from course.error import UsageError
from tests.autograder.sandbox import standin
from tests.autograder.sandbox.student import await_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")

MODULE = "tests.autograder.sandbox.standin"
LEVELS = ["namespaces", "userns", "bubblewrap"]
OPEN = f"""
from course.check.outside import kept, outside
from {MODULE} import broken, say, standin, undeclared
import os
cluster = kept(standin, word="moin")
"""
SAY = """
import json, socket, ssl
context = ssl.create_default_context(cadata={certificate!r})
with socket.create_connection({tls!r}) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
    client.sendall(b"x" * 300_000 + b"\\n")
    with client.makefile("rb") as answer: print(len(answer.readline()))
with socket.create_connection({plainly!r}) as client:
    client.sendall(b"from the student\\n")
    client.shutdown(socket.SHUT_WR)
    print(client.makefile("rb").read())
"""


@pytest.fixture(scope="module")
def court():
    """One usher for all tests."""
    with Court() as court:
        yield court


@pytest.fixture
def judge_of(court):
    """Return what makes a judge, in a box or without one."""
    made = []

    def make(run_dir, box=None):
        made.append(court.judge(Path(run_dir), modules=[MODULE], box=box))
        return made[-1]

    yield make
    for judge in made:
        judge.close()


def run(judge, source, timeout_s=120):
    """Run a test cell and return what it printed; its error is the text of an AssertionError."""
    result = judge.run(session.Test(name="t", source=source, points=1.0, answers="/nowhere"), timeout_s)
    assert result.marks == 1, result.outputs
    return "".join(output.get("text", "") for output in result.outputs)


def error(judge, source):
    """Run a test cell that fails, and return its error."""
    [output] = [one for one in judge.run(session.Test("t", source, 1.0, "/nowhere"), 120).outputs if "ename" in one]
    return output["ename"], output["evalue"]


@pytest.mark.parametrize("level", LEVELS)
def test_student_and_check_reach_a_service_outside(enter, judge_of, level):
    """TLS from the student's kernel, the check's own connection and its questions: one server, outside of the box."""
    student = enter(level)
    judge = judge_of(student.box.run_dir, student.box)
    said = run(judge, f"{OPEN}print((cluster.addresses, cluster.told['certificate'].decode()))")
    addresses, certificate = eval(said)
    told = student.run(SAY.format(certificate=certificate, tls=addresses[0], plainly=addresses[1]))
    assert told == "300006\nb'moin from the student\\n'\n"
    seen = run(
        judge,
        "from course.check.reply import encode\nprint(say(cluster.own[0], b'the check', cluster.told['certificate']))\n"
        "heard = cluster.ask('heard')\nprint([len(heard[0]), *heard[1:]])\nuid, pid = cluster.ask('who')\n"
        "print(uid, len(set(cluster.own + cluster.addresses)))",
    )
    assert seen.splitlines() == [
        "b'moin the check\\n'",
        "[300000, b'from the student', b'the check']",
        f"{os.getuid()} 4",
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_no_other_port_of_the_host_is_reached(enter, judge_of, level):
    """What is not listed stays out of reach, for the student and for the check."""
    student = enter(level)
    judge = judge_of(student.box.run_dir, student.box)
    run(judge, OPEN)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; print(socket.socket().connect_ex({server.getsockname()!r}) != 0)"
        assert student.run(connect) == "True\n"
        assert run(judge, connect) == "True\n"


def test_a_box_without_a_network_is_refused_with_a_reason(enter, judge_of):
    """At level landlock nobody is told that an answer is wrong."""
    student = enter("landlock")
    judge = judge_of(student.box.run_dir, student.box)
    name, words = error(judge, OPEN)
    assert name == "NotJudged"
    assert "landlock" in words


def test_without_a_box_addresses_are_what_they_are(judge_of, tmp_path):
    """A judge without a box uses the service's own ports; the service ends in good order with it."""
    ended = tmp_path / "ended"
    judge = judge_of(tmp_path)
    source = OPEN.replace('word="moin"', f'word="moin", ended={str(ended)!r}')
    said = run(judge, f"{source}print(say(cluster.addresses[1], b'you'), cluster.own == cluster.addresses)")
    assert said == "b'moin you\\n' True\n"
    judge.close()
    await_until(ended.exists)


def test_a_service_ends_when_its_judge_is_killed(enter, judge_of, tmp_path):
    """A check that hangs costs its judge; what it had started outside ends in good order, and the port is dead."""
    tmp_path.chmod(0o755)
    ended = tmp_path / "ended"
    student = enter()
    judge = judge_of(student.box.run_dir, student.box)
    source = OPEN.replace('word="moin"', f'word="moin", ended={str(ended)!r}')
    [address, *_] = eval(run(judge, f"{source}print(cluster.addresses)"))
    with pytest.raises(JudgeError):
        judge.run(session.Test("t", "while True: pass", 1.0, "/nowhere"), 1)
    await_until(ended.exists)
    await_until(lambda: student.run(f"import socket; print(socket.socket().connect_ex({address!r}) != 0)") == "True\n")


def test_a_service_ends_with_its_block(enter, judge_of):
    """Behind the ``with`` nobody answers any more, also on connections that are open."""
    student = enter()
    judge = judge_of(student.box.run_dir, student.box)
    said = run(
        judge,
        f"{OPEN}import socket\nwith outside(standin) as one:\n"
        "    client = socket.create_connection(one.addresses[1])\n    client.sendall(b'a\\n')\n"
        "    print(client.recv(100))\n"
        "print(client.recv(100), socket.socket().connect_ex(one.addresses[1]) != 0)\n"
        "print(kept(standin, word='moin') is cluster)",
    )
    assert said == "b'hello a\\n'\nb'' True\nTrue\n"


def test_failures_are_told(enter, judge_of):
    """A service that does not start is no mark; a question that fails, or is none, is an error with its words."""
    student = enter()
    judge = judge_of(student.box.run_dir, student.box)
    run(judge, OPEN)
    name, words = error(judge, "with outside(broken): pass")
    assert (name, "no room on the shelf" in words) == ("NotJudged", True)
    assert error(judge, "with outside(undeclared): pass")[0] == "UsageError"
    name, words = error(judge, "cluster.ask('fail')")
    assert (name, "ZeroDivisionError" in words) == ("ServiceError", True)
    assert "it has: heard, who, fail" in error(judge, "cluster.ask('nothing')")[1]
    assert run(judge, "print(cluster.ask('heard'))") == "[]\n"


def test_in_a_notebook_a_service_runs_here():
    """Without a gate it is this process's own, and questions copy what they say."""
    with outside.outside(standin.standin, word="here") as found:
        assert found.own == found.addresses
        assert standin.say(found.addresses[0], b"you", found.told["certificate"]) == b"here you\n"
        assert found.ask("who") == [os.getuid(), os.getpid()]
        with pytest.raises(outside.ServiceError, match="ZeroDivisionError"):
            found.ask("fail")
    with pytest.raises(UsageError, match="undeclared"), outside.outside(standin.undeclared):
        pass


def test_a_kept_service_is_started_once():
    """The same request gets the same service, another one another, until they are let go."""
    first = outside.kept(standin.standin, word="one")
    assert outside.kept(standin.standin, word="one") is first
    assert outside.kept(standin.standin, word="two") is not first
    outside.let_go()
    with pytest.raises(ConnectionRefusedError):
        standin.say(first.addresses[1], b"anybody?")
