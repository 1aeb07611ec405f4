"""The serial console, on a guest of 70 bytes and on a real POSIX shell."""

from __future__ import annotations

import os
import pty
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from course import Machine
from course.error import ConsoleTimeout, MachineError, MachineGone, UsageError
from course.machine import Console
from course.machine.console import TRANSCRIPT_LIMIT
from tests.machine import programs


@pytest.fixture
def line() -> Iterator[tuple[Console, socket.socket]]:
    """A console, and the other end of its wire."""
    ours, theirs = socket.socketpair()
    console = Console(ours, lambda kind, message: kind(message))
    yield console, theirs
    theirs.close()
    console.close()


@pytest.fixture
def shell(line: tuple[Console, socket.socket]) -> Iterator[Console]:
    """A console with an interactive shell behind it, on a terminal that echoes."""
    console, theirs = line
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PS1="# ", PS2="> ", TERM="dumb", ENV="")
        os.execv("/bin/sh", ["/bin/sh", "-i"])

    def pump() -> None:
        while True:
            for ready in select.select([terminal, theirs], [], [])[0]:
                try:
                    data = os.read(terminal, 4096) if ready is terminal else theirs.recv(4096)
                except OSError:
                    data = b""
                if not data:
                    return
                theirs.sendall(data) if ready is terminal else os.write(terminal, data)

    thread = threading.Thread(target=pump)
    thread.start()
    yield console
    console.send("\x03\x04exit\n")
    thread.join(20)
    os.waitpid(pid, 0)
    os.close(terminal)


@pytest.mark.qemu
def test_console_talks_with_a_guest(boot_image: Path) -> None:
    """What the guest prints is expected, what is typed arrives."""
    with Machine(*programs.arguments(boot_image)) as vm:
        vm.console.expect("READY\n")
        vm.console.sendline("hello")
        assert vm.console.expect(r"h(.*)o\n")[1] == "ell"
        assert vm.console.text == "READY\nhello\n"
    assert vm.console.text == "READY\nhello\n"
    assert vm.console.closed


@pytest.mark.qemu
def test_console_timeout_shows_the_end_of_the_console(boot_image: Path) -> None:
    """The error says what was expected, and carries what was there."""
    with Machine(*programs.arguments(boot_image)) as vm:
        vm.console.expect("READY")
        with pytest.raises(ConsoleTimeout, match=r"'login:' within 0.1 s") as caught:
            vm.console.expect("login:", timeout_s=0.1)
        assert caught.value.output == "READY\n"
        assert "the console ended with: READY" in str(caught.value)


@pytest.mark.qemu
def test_console_of_a_killed_qemu_does_not_wait(boot_image: Path) -> None:
    """expect() hears of QEMU's end at once; typing afterwards is refused."""
    with Machine(*programs.arguments(boot_image)) as vm:
        vm.console.expect("READY")
        timer = threading.Timer(0.1, vm._owned_process().kill)
        timer.start()
        with pytest.raises(MachineGone, match="SIGKILL"):
            vm.console.expect("never", timeout_s=60)
        timer.join()
        with pytest.raises(MachineGone, match="nothing can be typed"):
            vm.console.sendline("ls")


@pytest.mark.qemu
def test_machine_without_console_says_so() -> None:
    """console=False leaves the serial port to the arguments."""
    with Machine("-M", "none", console=False) as vm:
        assert "course-console" not in vm.command_line
        with pytest.raises(UsageError, match="console=True"):
            _ = vm.console


def test_expect_consumes_up_to_its_match(line: tuple[Console, socket.socket]) -> None:
    """The next expect sees what came after; the transcript keeps all."""
    console, guest = line
    guest.sendall(b"one two one three")
    assert console.expect("one").start() == 0
    match = console.expect("one")
    assert match.string[: match.start()] == " two "
    with pytest.raises(ConsoleTimeout):
        console.expect("two", timeout_s=0)
    assert console.text == "one two one three"


@pytest.mark.parametrize("cut", range(1, 12))
def test_transcript_does_not_depend_on_how_the_bytes_arrive(line: tuple[Console, socket.socket], cut: int) -> None:
    """Line ends and UTF-8 characters that are cut in two come out whole."""
    console, guest = line
    data = "a\r\né€\rb\r\n.".encode()
    guest.sendall(data[:cut])
    while len(console.text.encode()) < cut - 3:  # at least the first part is read before the second is sent
        pass
    guest.sendall(data[cut:])
    console.expect(r"\.")
    assert console.text == "a\né€\rb\n."


def test_bytes_that_are_no_text_are_replaced(line: tuple[Console, socket.socket]) -> None:
    """Line noise does not stop the reader."""
    console, guest = line
    guest.sendall(b"\xff\xfe login:")
    console.expect("login:")
    assert console.text == "\ufffd\ufffd login:"


def test_transcript_keeps_its_end(line: tuple[Console, socket.socket]) -> None:
    """A guest that never stops printing does not fill the host's memory."""
    console, guest = line
    block = b"x" * (1 << 16)
    for _ in range(TRANSCRIPT_LIMIT // len(block) * 3):
        guest.sendall(block)
    guest.sendall(b"end")
    console.expect("end", timeout_s=30)
    assert len(console.text) <= 2 * TRANSCRIPT_LIMIT
    assert console.text.endswith("xend")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_run_returns_status_and_output_of_a_real_shell(shell: Console) -> None:
    """Output without the echo of what was typed; state such as the directory stays."""
    assert shell.run("echo hello; false") == (1, "hello\n")
    assert shell.run("cd /; x=5") == (0, "")
    assert shell.run("pwd; echo $x") == (0, "/\n5\n")
    assert shell.run("printf 'no newline'") == (0, "no newline")
    assert shell.run("sh -c 'exit 42'")[0] == 42
    assert shell.run("true # a comment") == (0, "")
    assert shell.run("for i in 1 2\ndo echo $i\ndone") == (0, "1\n2\n")
    assert shell.run("sleep 0 &")[0] == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_run_that_does_not_end_says_what_was_there(shell: Console) -> None:
    """The time limit is one for the whole command; Ctrl-C brings the shell back."""
    with pytest.raises(ConsoleTimeout) as caught:
        shell.run("echo begun; sleep 60", timeout_s=0.5)
    assert "begun" in caught.value.output
    shell.send("\x03")
    assert shell.run("echo back") == (0, "back\n")


def test_run_needs_a_command(line: tuple[Console, socket.socket]) -> None:
    """An empty line would be a syntax error in the guest."""
    with pytest.raises(UsageError, match="sendline"):
        line[0].run("  ")


def test_send_to_a_guest_that_does_not_read_ends(line: tuple[Console, socket.socket]) -> None:
    """More than the wire holds, and nobody at the other end."""
    console, _guest = line
    console._sock.settimeout(0.2)
    with pytest.raises(ConsoleTimeout, match="read only a part"):
        console.send(b"x" * (8 << 20))


def test_console_errors_are_machine_errors() -> None:
    """One except clause catches them all."""
    assert issubclass(ConsoleTimeout, MachineError)
