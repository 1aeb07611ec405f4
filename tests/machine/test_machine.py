"""A machine from launch to end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import zlib
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError, QMPClient

from course import Machine
from course.error import (
    CapabilityError,
    EventTimeout,
    LaunchError,
    MachineError,
    MachineGone,
    UsageError,
)
from course.machine import State
from course.machine.process import alive, await_end_of
from course.machine.screenshot import png_of_ppm
from tests.machine import programs

pytestmark = pytest.mark.qemu

EMPTY = ("-M", "none")


def test_machine_lives_inside_its_with_block() -> None:
    """QEMU exists exactly as long as the block, and its state says so."""
    vm = Machine(*EMPTY)
    assert vm.state is State.NEW
    assert vm.pid is None
    with vm:
        assert vm.state is State.RUNNING
        pid = vm.pid
        assert pid is not None
        assert b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert f"pid {pid}" in repr(vm)
    assert vm.state is State.ENDED
    assert vm.exitcode == -signal.SIGKILL
    assert not alive(pid)


def test_machine_is_launched_once() -> None:
    """Launching again is refused, in life and after."""
    with Machine(*EMPTY) as vm, pytest.raises(UsageError, match="launched once"):
        vm.launch()
    with pytest.raises(UsageError, match="launched once"):
        vm.launch()


def test_machine_before_launch_says_what_to_do() -> None:
    """Commands and console of a machine that was not launched name the remedy."""
    vm = Machine(*EMPTY)
    with pytest.raises(UsageError, match="with block"):
        vm.execute("query-status")
    with pytest.raises(UsageError, match="launch"):
        _ = vm.console
    with pytest.raises(UsageError, match="qmp_sockets=1"):
        _ = vm.qmp_path


def test_execute_returns_qemus_answer() -> None:
    """Values, keyword names with underscores, exact names and refusals pass through."""
    with Machine(*EMPTY, name="ada, lovelace") as vm:
        assert vm.execute("query-name") == {"name": "ada, lovelace"}
        assert vm.execute("human-monitor-command", command_line="info name") == "ada, lovelace\r\n"
        assert vm.execute("human-monitor-command", {"command-line": "info name"}) == "ada, lovelace\r\n"
        assert vm.hmp("info name") == "ada, lovelace\r\n"
        with pytest.raises(ExecuteError) as caught:
            vm.execute("device_del", id="nothing")
        assert caught.value.error_class == "DeviceNotFound"
        with pytest.raises(ExecuteError, match="is unexpected"):
            vm.execute("query-status", no_such_argument=1)
        with pytest.raises(UsageError, match="not JSON"):
            vm.execute("query-status", argument={1, 2})


def test_execute_serves_many_threads_at_once() -> None:
    """Each of many concurrent callers gets the reply to its own command."""
    threads_of_qemu = [word for n in range(8) for word in ("-object", f"iothread,id=io{n}")]
    with Machine(*EMPTY, *threads_of_qemu) as vm:
        wrong: list[object] = []

        def ask(number: int) -> None:
            for _ in range(30):
                kind = vm.execute("qom-get", path=f"/objects/io{number}", property="type")
                listed = vm.execute("qom-list", path="/objects" if number % 2 else "/machine")
                names = {entry["name"] for entry in listed}
                if kind != "iothread" or ("io0" in names) != bool(number % 2):
                    wrong.append((number, kind, names))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_execute_works_inside_a_running_loop() -> None:
    """A notebook's own loop does not stand in the way."""

    async def notebook() -> str:
        with Machine(*EMPTY) as vm:
            return vm.runstate

    assert asyncio.run(notebook()) == "running"


def test_execute_gives_up_on_a_qemu_that_does_not_answer() -> None:
    """A stopped QEMU process costs the time limit; its late reply confuses no later command."""
    with Machine(*EMPTY, name="slow") as vm:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGSTOP)
        with pytest.raises(MachineError, match=r"did not reply to query-version within 0.2 s"):
            vm.execute("query-version", timeout_s=0.2)
        os.kill(vm.pid, signal.SIGCONT)
        assert vm.execute("query-name") == {"name": "slow"}
        assert vm.runstate == "running"


def test_execute_after_a_kill_from_outside_tells_how_qemu_ended() -> None:
    """The error carries signal, exit code and command line."""
    with Machine(*EMPTY) as vm:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(MachineGone, match="SIGKILL") as caught:
            vm.execute("query-status")
        assert caught.value.exitcode == -9
        assert "-nodefaults" in caught.value.command


def test_execute_after_the_with_block_tells_that_the_block_ended() -> None:
    """Nobody is sent looking for a lack of memory when the machine was ended on purpose."""
    with Machine(*EMPTY) as vm:
        pass
    with pytest.raises(MachineGone, match=r"`with` block ended. Make a new machine") as caught:
        vm.execute("query-status")
    assert "memory" not in caught.value.message


def test_kill_during_a_command_ends_the_wait() -> None:
    """A caller that waits for a reply hears of QEMU's end at once, not after its time limit."""
    with Machine(*EMPTY) as vm:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGSTOP)
        timer = threading.Timer(0.2, os.kill, (vm.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(MachineGone, match="query-status"):
            vm.execute("query-status", timeout_s=60)
        timer.join()


@pytest.mark.parametrize(
    ("arguments", "said", "advice"),
    [
        (("-M", "nope"), "unsupported machine type", "-M help"),
        (("-device", "nope"), "not a valid device", "-device help"),
        (("-no-such-option",), "invalid option", "--help"),
        (("-drive", "file=/no/such/disk.img"), "No such file", "exists"),
    ],
)
def test_launch_with_a_bad_argument_carries_the_evidence(arguments: tuple[str, ...], said: str, advice: str) -> None:
    """QEMU's words, its exit code, the command line and the next step are in the error."""
    with pytest.raises(LaunchError) as caught:
        Machine(*arguments).launch()
    error = caught.value
    assert said in error.output
    assert error.exitcode == 1
    assert error.command[-len(arguments) :] == list(arguments)
    for part in (said, advice, "exit code: 1", "qemu-system"):
        assert part in str(error)


def test_launch_with_a_taken_port_says_so() -> None:
    """A TCP port in use is named, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LaunchError, match="choose another port") as caught:
            Machine(*EMPTY, "-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off").launch()
        with pytest.raises(LaunchError, match="choose another port"):
            Machine("-nic", f"user,hostfwd=tcp:127.0.0.1:{port}-:22").launch()
    assert "Address already in use" in caught.value.output


def test_launch_leaves_a_socket_alone_on_which_someone_listens(tmp_path: Path) -> None:
    """QEMU would unlink it without a word; the machine refuses, and the listener keeps working."""
    path = tmp_path / "taken"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(UsageError, match="a process listens on it"):
            Machine(*EMPTY, "-qmp", f"unix:{path},server=on,wait=off").launch()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_launch_refuses_what_cannot_be_meant() -> None:
    """A list as one argument, two words in one, a path too long for a socket."""
    with pytest.raises(UsageError, match="Unpack a list"):
        Machine(["-M", "pc"]).launch()  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="two arguments: '-M', 'pc'"):
        Machine("-M pc").launch()
    long = "/tmp/" + "x" * 110
    with pytest.raises(UsageError, match="115 bytes long; Unix allows 107"):
        Machine(*EMPTY, "-chardev", f"socket,id=s,path={long},server=on,wait=off").launch()


def test_launch_with_a_long_temporary_directory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets of its own that would have too long a path are refused with the remedy, and nothing is left."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UsageError, match="TMPDIR"):
        Machine(*EMPTY, qmp_sockets=1).launch()
    assert list(deep.iterdir()) == []


def test_launch_without_qemu_names_the_package() -> None:
    """A missing QEMU is a missing capability, not a crash."""
    with pytest.raises(CapabilityError, match="apt-get install qemu-system-arm"):
        Machine(*EMPTY, binary="/nowhere/qemu-system-aarch64").launch()


def test_launch_of_a_silent_qemu_ends_in_time(tmp_path: Path) -> None:
    """A QEMU that never greets is killed after the time limit."""
    fake = tmp_path / "qemu-system-fake"
    fake.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo QEMU emulator version 9.9.9;; --help) ;; *) exec sleep 60;; esac\n'
    )
    fake.chmod(0o755)
    vm = Machine(binary=str(fake), launch_timeout_s=0.3)
    with pytest.raises(LaunchError, match=r"no sign of life within 0.3 s"):
        vm.launch()
    assert vm.pid is not None
    assert not alive(vm.pid)


def test_launch_leaves_no_file_descriptor_behind(boot_image: Path) -> None:
    """Machines that ran, failed to start, or were refused have closed all they opened."""

    def all_kinds() -> None:
        with Machine(*programs.arguments(boot_image), qmp_sockets=1) as vm:
            vm.console.expect("READY")
        with pytest.raises(LaunchError):
            Machine("-M", "nope").launch()
        with pytest.raises(UsageError):
            Machine("-M nope").launch()

    all_kinds()
    before = len(list(Path("/proc/self/fd").iterdir()))
    all_kinds()
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_second_monitor_serves_other_clients() -> None:
    """qmp_sockets gives paths that qemu.qmp itself can use, beside the machine's own monitor."""

    async def ask(path: str) -> object:
        client = QMPClient("student")
        await client.connect(path)
        try:
            return await client.execute("query-name")
        finally:
            await client.disconnect()

    with Machine(*EMPTY, qmp_sockets=2, name="shared") as vm:
        assert len(vm.qmp_paths) == 2
        for path in vm.qmp_paths:
            assert asyncio.run(ask(path)) == {"name": "shared"}
        assert vm.execute("query-name") == {"name": "shared"}
        directory = Path(vm.qmp_path).parent
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()


def test_events_before_the_wait_are_not_lost() -> None:
    """An event that came with the command's reply is still there for a later wait, once."""
    with Machine(*EMPTY) as vm:
        vm.execute("stop")
        vm.execute("query-status")
        assert vm.wait_event("STOP")["event"] == "STOP"
        with pytest.raises(EventTimeout, match=r"STOP did not come within 0.05 s"):
            vm.wait_event("STOP", timeout_s=0.05)


def test_pause_and_resume_leave_no_stale_event() -> None:
    """A wait after pause() and resume() sees the next STOP, not the one of pause()."""
    with Machine(*EMPTY) as vm:
        vm.pause()
        assert vm.runstate == "paused"
        vm.resume()
        assert vm.runstate == "running"
        with pytest.raises(EventTimeout):
            vm.wait_event("STOP", timeout_s=0.05)


def test_recording_keeps_its_events_in_order_and_ends_with_its_block() -> None:
    """Only the named events, only those of the block; each wait takes one."""
    with Machine(*EMPTY) as vm:
        vm.pause()
        with vm.record("RESUME", "STOP") as events:
            vm.resume()
            vm.pause()
            vm.resume()
            assert events.wait("STOP")["event"] == "STOP"
            assert events.wait()["event"] == "RESUME"
            assert events.wait("RESUME")["event"] == "RESUME"
            with pytest.raises(EventTimeout, match="seen: RESUME, STOP, RESUME"):
                events.wait("STOP", timeout_s=0.05)
        vm.pause()
        assert [event["event"] for event in events] == ["RESUME", "STOP", "RESUME"]


def test_wait_event_matches_data() -> None:
    """Values of the data select the event, with an underscore for a dash."""
    with Machine("-M", "pc", "-S") as vm:  # paused: the firmware's own resets would be the guest's
        vm.execute("system_reset")
        event = vm.wait_event("RESET", guest=False, reason="host-qmp-system-reset")
        assert event["data"]["reason"] == "host-qmp-system-reset"
        with pytest.raises(EventTimeout, match="guest"):
            vm.wait_event("RESET", guest=True, timeout_s=0.05)


def test_wait_event_hears_of_qemus_end() -> None:
    """Waiting for an event ends when QEMU does."""
    with Machine(*EMPTY) as vm:
        vm.execute("quit")
        vm.wait_event("SHUTDOWN")
        with pytest.raises(MachineGone, match="exit code 0"):
            vm.wait_event("STOP", timeout_s=60)
        assert vm.wait(10) == 0


def test_shutdown_of_a_guest_without_operating_system_says_what_to_do() -> None:
    """The guest goes on, the error names the way out, and kill() works."""
    with Machine("-M", "pc") as vm:
        with pytest.raises(EventTimeout, match=r"within 0.2 s of the power button.*kill\(\) always works"):
            vm.shutdown(timeout_s=0.2)
        assert vm.runstate == "running"


def test_shutdown_of_a_paused_guest_is_refused_at_once() -> None:
    """A guest that stands still cannot react to its power button."""
    with Machine("-M", "pc", "-S") as vm, pytest.raises(UsageError, match=r"prelaunch.*resume"):
        vm.shutdown()


@pytest.mark.parametrize("stay", [(), ("-no-shutdown",)])
def test_shutdown_lets_the_guest_power_off(boot_image: Path, stay: tuple[str, ...]) -> None:
    """The guest switches itself off; QEMU's exit code is returned, also when it was to stay (-no-shutdown)."""
    with Machine(*programs.arguments(boot_image), *stay) as vm:
        vm.console.expect("READY")
        assert vm.shutdown() == 0
        assert vm.wait_event("SHUTDOWN")["data"]["reason"] == "guest-shutdown"
        assert vm.state is State.ENDED


def test_wait_says_that_qemu_still_runs() -> None:
    """wait() does not hang on a machine that does not end."""
    with Machine(*EMPTY) as vm, pytest.raises(EventTimeout, match=r"kill\(\)"):
        vm.wait(0.05)


def test_read_memory_shows_the_guests_ram(boot_image: Path) -> None:
    """The boot sector is found where the BIOS loads it; the counter counts."""
    with Machine(*programs.arguments(boot_image)) as vm:
        vm.console.expect("READY")
        assert vm.read_memory(0x7C00, 512) == programs.SECTOR
        first = int.from_bytes(vm.read_memory(programs.COUNTER_GPA, 4), "little")
        vm.console.send("x")
        vm.console.expect("x")
        assert int.from_bytes(vm.read_memory(programs.COUNTER_GPA, 4), "little") > first
        assert len(vm.read_memory(0, 4 << 20)) == 4 << 20


def test_screenshot_is_a_png_with_words() -> None:
    """The picture decodes to the size it states; IPython gets PNG and alt text."""
    with Machine("-M", "pc", "-vga", "std", name="eniac") as vm:
        shot = vm.screenshot()
    width, height = shot.size
    assert len(_pixels(shot.png)) == height * (1 + 3 * width)
    data, metadata = shot._repr_png_()
    assert data == shot.png
    assert metadata["alt"] == shot.alt == f"Screen of eniac, {width} by {height} pixels"
    assert f'alt="{shot.alt}"' in shot._repr_html_()


def test_screenshot_of_an_old_qemu_is_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A QEMU that knows no format= writes PPM; what we make of it has the same pixels as QEMU's PNG."""
    with Machine("-M", "pc", "-S", "-vga", "std") as vm:
        modern = vm.screenshot()
        execute = vm.execute

        def old(command: str, arguments: dict[str, object] | None = None, **keywords: object) -> object:
            if command == "screendump" and arguments and "format" in arguments:
                execute("screendump", no_such=1)  # refused with the words of a QEMU that does not know it
            return execute(command, arguments, **keywords)

        def refuse(command: str, arguments: dict[str, object] | None = None, **keywords: object) -> object:
            try:
                return old(command, arguments, **keywords)
            except ExecuteError as error:
                error.error.error.desc = "Parameter 'format' is unexpected"
                raise

        monkeypatch.setattr(vm, "execute", refuse)
        packed = vm.screenshot()
    assert packed.size == modern.size
    assert packed.png != modern.png
    rows, width = packed.size[1], packed.size[0]
    assert _unfiltered(modern.png, width, rows) == _unfiltered(packed.png, width, rows)


def test_screenshot_without_display_says_what_is_missing() -> None:
    """No display device: the error names the argument to add."""
    with Machine("-M", "pc") as vm, pytest.raises(MachineError, match="'-vga', 'std'"):
        vm.screenshot()


def test_png_of_ppm_refuses_what_it_cannot_read() -> None:
    """Other formats and cut pictures are refused by name."""
    with pytest.raises(ValueError, match="not a binary PPM"):
        png_of_ppm(b"P3 1 1 255 0 0 0")
    with pytest.raises(ValueError, match="needs 12 bytes, it has 2"):
        png_of_ppm(b"P6\n2 2\n255\nxx")


def test_dropped_machine_is_ended() -> None:
    """A machine that nobody ended and nobody refers to any more does not go on."""
    vm = Machine(*EMPTY, qmp_sockets=1)
    vm.launch()
    pid, directory = vm.pid, Path(vm.qmp_path).parent
    assert pid is not None
    del vm
    gc.collect()
    assert await_end_of(pid, 10)
    assert not directory.exists()


def test_keyboard_interrupt_in_a_wait_ends_the_machine() -> None:
    """Ctrl-C while waiting leaves the with block, and no process."""
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    vm = Machine(*EMPTY)
    with pytest.raises(KeyboardInterrupt), vm:  # noqa: PT012 - the interrupt is what is tested
        pid = vm.pid
        vm.wait_event("NEVER", timeout_s=60)
    assert pid is not None
    assert not alive(pid)


def test_keyboard_interrupt_during_launch_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt that comes while QEMU starts does not lose the process."""
    started = []
    from course.machine import process

    start = process._start

    def slow(command: list[str], pass_fds: tuple[int, ...]) -> process.Process:
        made = start(command, pass_fds)
        started.append(made)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)  # the caller is interrupted before it gets the process
        return made

    monkeypatch.setattr(process, "_start", slow)
    with pytest.raises(KeyboardInterrupt):
        Machine(*EMPTY).launch()
    monkeypatch.undo()
    with Machine(*EMPTY):  # waits for the spawner to be done with the first
        pass
    assert len(started) == 1
    assert not alive(started[0].pid)


def _chunks(png: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == int.from_bytes(png[at + 8 + length : at + 12 + length], "big")
        found[kind] = found.get(kind, b"") + data
        at += 12 + length
    return found


def _pixels(png: bytes) -> bytes:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return zlib.decompress(_chunks(png)[b"IDAT"])


def _unfiltered(png: bytes, width: int, height: int) -> bytes:
    """Pixels of an 8-bit RGB PNG, filters undone with the plotting library's reader."""
    import io

    from matplotlib import image

    picture = image.imread(io.BytesIO(png), format="png")
    assert picture.shape[:2] == (height, width)
    return (picture[:, :, :3] * 255).round().astype("uint8").tobytes()
