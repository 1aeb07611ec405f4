"""QEMU dies with its parent, however the parent ends; and never because a thread or a copy of it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from course import Machine
from course.error import UsageError
from course.machine.process import _mortal, _setpriv, alive, await_end_of, spawn

ROOT = Path(__file__).parents[2]
HOLD_A_MACHINE = """
import sys, time
from course import Machine
import course.machine.process as process
if "without setpriv" in sys.argv:
    process._setpriv = lambda: None
vm = Machine("-M", "none")
vm.launch()
print(vm.pid, flush=True)
time.sleep(60)
"""


def _holder(*options: str) -> tuple[subprocess.Popen[str], int]:
    """Start a Python process that holds a machine; returns it and the pid of its QEMU."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_MACHINE, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    return holder, int(holder.stdout.readline())


def _assert_ends(pid: int) -> None:
    ended = await_end_of(pid, 10)
    if not ended:
        os.kill(pid, signal.SIGKILL)  # a failing test leaves nothing running either
    assert ended


@pytest.mark.qemu
@pytest.mark.parametrize("options", [(), ("without setpriv",)])
def test_machine_dies_when_its_python_is_killed(options: tuple[str, ...]) -> None:
    """SIGKILL leaves the parent no chance to clean up; QEMU goes all the same."""
    holder, pid = _holder(*options)
    with holder:
        assert alive(pid)
        holder.kill()
    _assert_ends(pid)


@pytest.mark.qemu
def test_machine_dies_with_a_terminated_python() -> None:
    """SIGTERM, which runs no cleanup in Python either."""
    holder, pid = _holder()
    with holder:
        holder.terminate()
    _assert_ends(pid)


@pytest.mark.qemu
def test_interrupted_script_leaves_no_machine() -> None:
    """Ctrl-C in a script that holds a machine without a with block: finalizers end it."""
    holder, pid = _holder()
    with holder:
        holder.send_signal(signal.SIGINT)
        assert holder.wait(20) != 0
    _assert_ends(pid)


@pytest.mark.qemu
def test_machine_dies_with_a_killed_notebook_kernel(tmp_path: Path) -> None:
    """A real Jupyter kernel that holds a machine is killed with SIGKILL."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path / "kernel"))
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(cwd=str(ROOT), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            said: list[dict[str, object]] = []
            client.execute_interactive(
                "from course import Machine\nvm = Machine('-M', 'none')\nvm.launch()\nprint(vm.pid, vm.runstate)",
                timeout=60,
                output_hook=lambda message: said.append(message["content"]),
            )
            pid, state = "".join(str(content.get("text", "")) for content in said).split()
            assert state == "running"
            assert alive(int(pid))
        finally:
            client.stop_channels()
        kernel_pid = manager.provisioner.process.pid  # type: ignore[union-attr]
        os.kill(kernel_pid, signal.SIGKILL)
        _assert_ends(int(pid))
    finally:
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.qemu
def test_machine_outlives_the_thread_that_launched_it() -> None:
    """The death signal belongs to a thread: the one that forks must never end."""
    machines: list[Machine] = []

    def launch() -> None:
        vm = Machine("-M", "none")
        vm.launch()
        machines.append(vm)

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    (vm,) = machines
    try:
        for _ in range(20):  # the signal, if it came, would come at once
            assert vm.runstate == "running"
            time.sleep(0.01)
    finally:
        vm.kill()


@pytest.mark.qemu
@pytest.mark.parametrize("leave", ["exit", "_exit", "with"])
def test_forked_copy_leaves_the_machine_alone(leave: str) -> None:
    """A child that inherits a machine cannot talk to it or end it, and can have its own; the parent notices nothing."""
    program = f"""
import os, sys
from course import Machine
from course.error import UsageError

def child(vm):
    try:
        vm.execute("query-status")
    except UsageError as error:
        assert "forked copy" in str(error), error
    else:
        raise AssertionError("the child could talk to its parent's machine")
    vm.kill()
    with Machine("-M", "none", name="own") as own:
        assert own.execute("query-name") == {{"name": "own"}}

with Machine("-M", "none", qmp_sockets=1) as vm:
    vm.execute("query-status")
    pid = os.fork()
    if pid == 0:
        try:
            child(vm)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(3)
        if {leave!r} == "with":
            raise SystemExit(0)  # leaves the with block of the parent's machine too
        if {leave!r} == "exit":
            sys.exit(0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert vm.runstate == "running"
    assert os.path.exists(vm.qmp_path)
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],  # Python 3.12 warns of fork with threads
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(_setpriv() is None, reason="here the child looks between fork and exec, not in a shell")
def test_child_gives_up_when_its_parent_is_gone_already() -> None:
    """A parent that dies before the death signal is asked for sends none: the child looks, and does not start."""
    line, _ = _mortal(["echo", "started"], parent=1)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""


def test_spawn_keeps_what_the_child_wrote() -> None:
    """Output and exit code are there after the end."""
    process = spawn(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
    assert process.wait(20) == 7
    process.close()
    assert process.output == "out\nerr\n"
    assert process.command[0] == "/bin/sh"


def test_spawn_of_a_missing_program_is_an_error() -> None:
    """The shell that guards the child cannot find it: exit code 127 and its words."""
    process = spawn(["/no/such/program"])
    assert process.wait(20) == 127
    assert "/no/such/program" in process.output
    process.close()


def test_wait_returns_none_while_the_child_runs() -> None:
    """A time limit is kept, and kill() is safe twice."""
    process = spawn(["sleep", "60"])
    assert process.wait(0.01) is None
    assert process.exitcode is None
    process.kill()
    process.kill()
    assert process.exitcode == -signal.SIGKILL
    process.close()
    process.close()


def test_child_is_out_of_reach_of_the_keyboard() -> None:
    """Ctrl-C goes to the terminal's foreground process group: the child is in a session of its own."""
    process = spawn(["sleep", "60"])
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        process.close()


def test_machine_of_another_process_is_refused_by_name() -> None:
    """The message names both processes and the way out."""
    vm = Machine("-M", "none")
    vm._process = spawn(["sleep", "60"])
    try:
        vm._process.owner = 1
        with pytest.raises(UsageError, match=r"belongs to process 1, .* qmp_path"):
            vm.execute("query-status")
    finally:
        vm._process.owner = os.getpid()
        vm._process.close()
