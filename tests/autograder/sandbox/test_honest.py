"""What lessons do must work inside a box: machines, guests, foreign programs, networks, tracing."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from autograder.sandbox import probing
from tests.autograder.sandbox.student import PATIENCE_S, await_until

LEVELS = ["namespaces", "userns", "bubblewrap"]
ALL = [*LEVELS, "landlock"]

TRACE = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(7)
stopped = os.WIFSTOPPED(os.waitpid(pid, 0)[1])
print(stopped, libc.ptrace(7, pid, 0, 0), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def needs_open_python(level):
    """Skip where the student is another user, in the root of the host, and Python lies in somebody's home."""
    if level == "landlock" and os.getuid() == 0 and (folder := probing.closed(sys.base_prefix)):
        pytest.skip(f"landlock: {folder} lets nobody through to Python")


@pytest.mark.parametrize("level", LEVELS)
def test_loopback_tcp_works(enter, level):
    """A box has a network of its own, and it is up."""
    said = enter(level).run(
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    with socket.create_connection(server.getsockname()) as client:\n"
        "        peer = server.accept()[0]\n"
        "        peer.sendall(b'hello')\n"
        "        print(client.recv(5))\n"
        "        peer.close()"
    )
    assert said == "b'hello'\n"


@pytest.mark.parametrize("level", ALL)
def test_a_child_can_be_traced(enter, level):
    """Lesson 03 stops a program at each system call."""
    assert enter(level).run(TRACE) == "True 0 7\n"


@pytest.mark.parametrize("level", ALL)
def test_the_course_can_be_imported_whole(enter, level):
    """Modules that were not imported beforehand are found too, also by programs that an answer starts."""
    needs_open_python(level)
    said = enter(level).run(
        "import subprocess, sys\n"
        "from course.check import why_virtualize\n"
        "print(subprocess.run([sys.executable, '-c', 'import course.machine; print(42)'],"
        " capture_output=True, text=True))"
    )
    assert "stdout='42\\n'" in said


@pytest.mark.parametrize("level", ALL)
def test_a_pseudo_terminal_works(enter, level):
    """Consoles are driven through one."""
    needs_open_python(level)
    said = enter(level).run(
        "import os, pty\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0:\n"
        "    os.execvp('sh', ['sh', '-c', 'test -t 0 && echo terminal'])\n"
        "print(os.read(fd, 100)); os.close(fd); os.waitpid(pid, 0)"
    )
    assert "terminal" in said


@pytest.mark.parametrize("level", ALL)
def test_the_grader_interrupts_a_cell(enter, level):
    """SIGINT to the box is a KeyboardInterrupt in the running cell; the kernel goes on."""
    student = enter(level)
    started = student.box.run_dir / "started"
    thread = threading.Thread(target=lambda: (await_until(started.exists), student.box.interrupt()))
    thread.start()
    said = student.run(f"open({str(started)!r}, 'w').close()\nwhile True: pass")
    thread.join()
    assert "KeyboardInterrupt" in said
    assert student.value("6 * 7") == 42


@pytest.mark.parametrize("level", LEVELS)
def test_a_forwarded_port_reaches_a_socket_outside(enter, folders, level):
    """Lesson 10 onwards: the cluster runs outside, and answers on the box's own 127.0.0.1."""
    path = folders[1] / "pve.sock"
    student = enter(level, forwards={8006: path})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        thread = threading.Thread(target=_answer_twice, args=(server,), daemon=True)
        thread.start()
        said = student.run(
            "import socket\n"
            "for word in (b'one', b'x' * 300_000):\n"
            "    with socket.create_connection(('127.0.0.1', 8006)) as client:\n"
            "        client.sendall(word); client.shutdown(socket.SHUT_WR)\n"
            "        with client.makefile('rb') as answer: print(len(answer.read()))"
        )
        thread.join(PATIENCE_S)
    assert said == "6\n600000\n"


def _answer_twice(server: socket.socket) -> None:
    """Send back to two clients all that they said, doubled."""
    for _ in range(2):
        client, _ = server.accept()
        with client, client.makefile("rb") as request:
            client.sendall(request.read() * 2)


@pytest.mark.qemu
@pytest.mark.parametrize("level", ALL)
def test_a_program_of_another_machine_runs(enter, level):
    """QEMU's user-mode emulation."""
    said = enter(level).run(
        "from course.isa import programs, userland\n"
        "print(userland.run(programs.hello('aarch64', 'hi'), 'aarch64', timeout_s=100).stdout)"
    )
    assert said == "b'hi'\n"


@pytest.mark.qemu
@pytest.mark.parametrize("level", LEVELS)
def test_a_machine_boots_inside_and_answers_outside(enter, folders, level):
    """A bare-metal guest speaks on its console; its QMP socket in the run directory is reached from the host."""
    student = enter(level)
    said = student.run(
        "from course import Machine\nfrom course.guest import baremetal\n"
        f"vm = Machine('-kernel', baremetal.hello('hello'), '-qmp', 'unix:{folders[1]}/qmp,server=on,wait=off')\n"
        "vm.launch(); print(vm.console.expect('hello').group())"
    )
    assert said == "hello\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folders[1] / "qmp"))
        assert b'"QMP"' in client.recv(1000)


@pytest.mark.qemu
@pytest.mark.parametrize("level", LEVELS)
def test_a_guest_is_cloned_inside(enter, level):
    """The cache of the host, which is read-only there, gives the template; the clone's shell answers."""
    said = enter(level).run(
        "from course import guest\nwith guest.linux() as vm:\n    print(vm.console.run('uname -m; hostname'))"
    )
    assert said == "(0, 'x86_64\\nvm\\n')\n"


def test_the_cache_of_the_host_is_not_changed(enter, tmp_path):
    """What a student builds goes into the box's own part of the cache."""
    student = enter()
    student.run("from course.guest import cache\nprint(cache.image(b'mine', 'mine.img'))")
    place = Path(student.value("str(cache.image(b'mine', 'mine.img'))"))
    assert place.name == "mine.img"
    assert not place.exists()
