"""Saving, restoring and moving a running guest: it goes on where it was, or stays where it was."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from course import Machine
from course.error import MachineGone, MigrationError, UsageError
from tests.machine import programs

pytestmark = pytest.mark.qemu


def counter(vm: Machine) -> int:
    """The number that the guest is counting up in its RAM."""
    return int.from_bytes(vm.read_memory(programs.COUNTER_GPA, 4), "little")


@contextlib.contextmanager
def booted(image: Path) -> Iterator[Machine]:
    """Boot a guest, and wait until it says so."""
    with Machine(*programs.arguments(image), name="source") as vm:
        vm.console.expect("READY")
        yield vm


def assert_goes_on(vm: Machine, since: int) -> None:
    """The guest counts on from at least `since`, hears what is typed, and did not boot anew."""
    now = counter(vm)
    assert now >= since
    vm.console.send("x")
    vm.console.expect("x")
    end = time.monotonic() + 10
    while counter(vm) <= now:
        assert time.monotonic() < end
    assert "READY" not in vm.console.text or vm.name == "source"


def test_restored_guest_goes_on_where_it_was(boot_image: Path, tmp_path: Path) -> None:
    """A file, any number of copies; the original runs on too."""
    state = tmp_path / "state"
    with booted(boot_image) as vm:
        before = counter(vm)
        vm.save(state)
        assert_goes_on(vm, before)
        later = counter(vm)
    for _ in range(2):
        with Machine(*programs.arguments(boot_image), incoming=True) as copy:
            copy.restore(state)
            assert before <= counter(copy) <= later + (1 << 24)
            assert_goes_on(copy, before)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_save_of_a_paused_guest_leaves_it_paused(boot_image: Path, tmp_path: Path) -> None:
    """And restore with resume=False shows exactly what was saved."""
    with booted(boot_image) as vm:
        vm.pause()
        vm.save(tmp_path / "state")
        assert vm.runstate != "running"
        saved = counter(vm)
    with Machine(*programs.arguments(boot_image), incoming=True) as copy:
        copy.restore(tmp_path / "state", resume=False)
        assert copy.runstate == "paused"
        assert counter(copy) == saved


def test_template_leaves_its_ram_in_the_shared_file(boot_image: Path, tmp_path: Path) -> None:
    """With x-ignore-shared the state holds no RAM; clones map the file privately and go on on their own."""
    ram, state = tmp_path / "ram", tmp_path / "state"

    def arguments(share: str) -> list[str]:
        backend = f"memory-backend-file,id=ram0,size=16M,mem-path={ram},share={share}"
        return [*programs.arguments(boot_image), "-object", backend, "-machine", "memory-backend=ram0"]

    with Machine(*arguments("on"), name="source") as vm:
        vm.console.expect("READY")
        vm.save(state, capabilities=("x-ignore-shared",), resume=False)
        assert vm.runstate == "postmigrate"
        saved = counter(vm)
    assert state.stat().st_size < 1 << 20
    with (
        Machine(*arguments("off"), incoming=True, name="a") as a,
        Machine(*arguments("off"), incoming=True, name="b") as b,
    ):
        for clone in (a, b):
            clone.restore(state, capabilities=("x-ignore-shared",))
            assert_goes_on(clone, saved)
            capabilities = clone.execute("query-migrate-capabilities")
            assert {"capability": "x-ignore-shared", "state": False} in capabilities
    assert int.from_bytes(ram.read_bytes()[programs.COUNTER_GPA :][:4], "little") == saved


def test_restore_into_another_memory_size_carries_qemus_words(boot_image: Path, tmp_path: Path) -> None:
    """QEMU ends; the error says that the machines differ, and how."""
    with booted(boot_image) as vm:
        vm.save(tmp_path / "state")
    with (
        Machine(*programs.arguments(boot_image, ram_mib=32), incoming=True) as other,
        pytest.raises(MigrationError, match="same machine type, memory size") as caught,
    ):
        other.restore(tmp_path / "state")
    assert "Size mismatch: pc.ram" in caught.value.output
    assert caught.value.exitcode == 1


def test_restore_of_a_damaged_state_is_an_error(boot_image: Path, tmp_path: Path) -> None:
    """A cut file is not taken for a whole one."""
    with booted(boot_image) as vm:
        vm.save(tmp_path / "state")
    data = (tmp_path / "state").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "noise").write_bytes(b"not a state")
    for name in ("cut", "noise"):
        with (
            Machine(*programs.arguments(boot_image), incoming=True) as other,
            pytest.raises(MigrationError, match=name),
        ):
            other.restore(tmp_path / name)


def test_restore_of_a_missing_file_loses_nothing(boot_image: Path, tmp_path: Path) -> None:
    """The machine still waits, and takes the right file."""
    with booted(boot_image) as vm:
        vm.save(tmp_path / "state")
    with Machine(*programs.arguments(boot_image), incoming=True) as copy:
        with pytest.raises(UsageError, match="No such file"):
            copy.restore(tmp_path / "stat")
        copy.restore(tmp_path / "state")
        with pytest.raises(UsageError, match="taken up a state before"):
            copy.restore(tmp_path / "state")


def test_save_where_no_file_can_be_made_is_refused(boot_image: Path, tmp_path: Path) -> None:
    """The guest goes on."""
    with booted(boot_image) as vm:
        with pytest.raises(UsageError, match="Choose another directory"):
            vm.save(tmp_path / "no" / "such" / "state")
        assert vm.runstate == "running"


def test_save_with_an_unknown_capability_names_those_there_are(boot_image: Path, tmp_path: Path) -> None:
    """A misspelt capability is refused before anything is written."""
    with booted(boot_image) as vm:
        with pytest.raises(UsageError, match=r"'ignore-shared'; it has .*x-ignore-shared"):
            vm.save(tmp_path / "state", capabilities=("ignore-shared",))
        assert vm.runstate == "running"
    assert list(tmp_path.iterdir()) == []


def test_save_over_a_file_size_limit_leaves_guest_and_old_file(boot_image: Path, tmp_path: Path) -> None:
    """The guest goes on, the file saved before is still there, no half file is."""
    state = tmp_path / "state"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with booted(boot_image) as vm:
        state.write_bytes(b"the one before")
        resource.prlimit(vm.pid or 0, resource.RLIMIT_FSIZE, (64 << 10, hard))
        with pytest.raises(MigrationError, match="No file was left"):
            vm.save(state)
        assert vm.runstate == "running"
        assert state.read_bytes() == b"the one before"
        assert [path.name for path in tmp_path.iterdir()] == ["state"]
        resource.prlimit(vm.pid or 0, resource.RLIMIT_FSIZE, (soft, hard))
        vm.save(state)
        assert_goes_on(vm, 0)


def test_save_on_a_full_disk_leaves_no_half_file(boot_image: Path, full_disk: Path) -> None:
    """No space left: the error says how much there is, the guest goes on."""
    with booted(boot_image) as vm:
        with pytest.raises(MigrationError, match=r"could not be saved.*No file was left"):
            vm.save(full_disk / "state")
        assert vm.runstate == "running"
    assert list(full_disk.iterdir()) == []


def test_migrated_guest_goes_on_at_its_destination(boot_image: Path) -> None:
    """The source stands in postmigrate; the numbers of query-migrate come back."""
    with (
        booted(boot_image) as source,
        Machine(*programs.arguments(boot_image), incoming=True, name="destination") as destination,
    ):
        before = counter(source)
        told = source.migrate(destination)
        assert told["status"] == "completed"
        assert told["total-time"] > 0
        assert told["ram"]["total"] >= 16 << 20
        assert source.runstate == "postmigrate"
        assert destination.runstate == "running"
        assert counter(source) >= before
        assert_goes_on(destination, counter(source))


def test_migration_to_another_memory_size_leaves_the_guest_where_it_was(boot_image: Path) -> None:
    """The error carries the destination's command line, exit code and words; the source runs and can try again."""
    with booted(boot_image) as source:
        before = counter(source)
        with (
            Machine(*programs.arguments(boot_image, ram_mib=32), incoming=True, name="wrong") as wrong,
            pytest.raises(MigrationError, match=r"wrong did not take up the guest of source") as caught,
        ):
            source.migrate(wrong)
        assert "Size mismatch: pc.ram" in caught.value.output
        assert caught.value.exitcode == 1
        assert caught.value.command[caught.value.command.index("-m") + 1] == "32"
        assert source.runstate == "running"
        assert_goes_on(source, before)
        with Machine(*programs.arguments(boot_image), incoming=True, name="right") as right:
            source.migrate(right)
            assert_goes_on(right, before)


def test_migration_that_does_not_converge_is_cancelled(writing_image: Path) -> None:
    """The guest writes faster than the channel: the error has the numbers and the remedy; all is as before."""
    with (
        booted(writing_image) as source,
        Machine(*programs.arguments(writing_image), incoming=True) as destination,
    ):
        parameters = source.execute("query-migrate-parameters")
        with pytest.raises(MigrationError) as caught:
            source.migrate(destination, timeout_s=1, bandwidth_mib_s=0.25, downtime_limit_ms=1)
        assert "not migrated within 1 s" in caught.value.message
        assert "MiB of RAM left after" in caught.value.message
        assert "Raise bandwidth_mib_s or downtime_limit_ms" in caught.value.message
        assert source.runstate == "running"
        assert source.execute("query-migrate-parameters") == parameters
        capabilities = {c["capability"]: c["state"] for c in source.execute("query-migrate-capabilities")}
        assert not capabilities["events"]
        assert not capabilities["return-path"]
        before = counter(source)
        with Machine(*programs.arguments(writing_image), incoming=True, name="second") as second:
            source.migrate(second, bandwidth_mib_s=200, downtime_limit_ms=500)
            assert counter(second) > before


def test_migration_survives_the_destinations_death(writing_image: Path) -> None:
    """The destination is killed in the middle: the source goes on."""
    with (
        booted(writing_image) as source,
        Machine(*programs.arguments(writing_image), incoming=True, name="victim") as victim,
    ):
        killer = threading.Timer(0.4, os.kill, (victim.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(MigrationError, match=r"victim ended before .* SIGKILL") as caught:
            source.migrate(victim, bandwidth_mib_s=0.25, downtime_limit_ms=1)
        killer.join()
        assert caught.value.exitcode == -9
        assert source.runstate == "running"


def test_migration_of_a_killed_source_is_reported_as_such(writing_image: Path) -> None:
    """Nobody to go on: MachineGone, with the source's end."""
    with (
        booted(writing_image) as source,
        Machine(*programs.arguments(writing_image), incoming=True) as destination,
    ):
        killer = threading.Timer(0.4, os.kill, (source.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(MachineGone, match="SIGKILL"):
            source.migrate(destination, bandwidth_mib_s=0.25, downtime_limit_ms=1)
        killer.join()


def test_migration_needs_a_destination_that_waits(boot_image: Path) -> None:
    """A machine that runs its own guest is not overwritten."""
    with booted(boot_image) as source, booted(boot_image) as other:
        with pytest.raises(UsageError, match="incoming=True"):
            source.migrate(other)
        assert source.runstate == other.runstate == "running"


def test_interrupted_migration_leaves_the_guest_running(writing_image: Path) -> None:
    """Ctrl-C during a migration cancels it."""
    with (
        booted(writing_image) as source,
        Machine(*programs.arguments(writing_image), incoming=True) as destination,
    ):
        main = threading.main_thread().ident or 0
        interrupt = threading.Timer(0.4, signal.pthread_kill, (main, signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            source.migrate(destination, bandwidth_mib_s=0.25, downtime_limit_ms=1)
        interrupt.join()
        # "failed" when QEMU's sending thread met the closed connection before it met the cancellation
        assert source.execute("query-migrate")["status"] in {"cancelled", "failed"}
        assert source.runstate == "running"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 64 KiB of space."""
    mount = tmp_path / "full"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("no tmpfs can be mounted here; the file size limit above tests the same path")
    yield mount
    for _ in range(100):
        if subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
