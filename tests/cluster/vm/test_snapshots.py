"""The engine of snapshots, on the fifty cases of upstream's own regression tests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course.cluster.config.guest import GuestConfig, Section
from course.cluster.vm import snapshots
from course.cluster.vm.hardware import Drive
from course.error import ClusterError
from tests.cluster.conftest import Compare

SNAPSHOTTED = {f"local:snapshotable-disk-{number}" for number in (1, 2, 3)}


class FakeHost:
    """A world in which things fail as a case says; what upstream's tests fake, faked the same way."""

    def __init__(self, text: str, flags: dict[str, int]) -> None:
        self.text = text
        self.flags = flags
        self.running = bool(flags["running"])
        self.done: dict[str, str] = {}
        self.deleted: dict[str, str] = {}
        self.returned: dict[str, str] = {}

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Nobody else is there."""
        return contextlib.nullcontext()

    def load(self) -> GuestConfig:
        """Read the text."""
        return GuestConfig.parse(self.text)

    def save(self, config: GuestConfig) -> None:
        """Write the text."""
        self.text = config.text()

    def now(self) -> int:
        """Return the tests' only time."""
        return 1234567890

    def log(self, text: str) -> None:
        """Nobody listens."""

    def is_possible(self, config: GuestConfig, name: str) -> bool:
        """Say what the case says."""
        return bool(self.flags["snapshot_possible"])

    def is_running(self) -> bool:
        """Say whether it runs."""
        return self.running

    def reserve_state(self, config: GuestConfig, name: str) -> dict[str, str]:
        """Make a state, or fail."""
        self._need("save_vmstate_works", "save_vmstate failed")
        return {"vmstate": "somestorage:state-volume", "runningmachine": "q35"}

    def remove_state(self, volume: str) -> None:
        """There is nothing to remove."""

    def activate(self, snapshot: Section) -> None:
        """Work, or fail."""
        self._need("activate_storage_possible", "storage activation failed")

    def begin(self, snapshot: Section, name: str) -> None:
        """Begin, or fail."""
        if "vmstate" in snapshot.values:
            self.activate(snapshot)
        self._need("savevm_start", "savevm-start disabled")

    def end(self, snapshot: Section, name: str) -> None:
        """Nothing stood still."""

    def snapshot(self, drive: Drive, name: str) -> None:
        """Note it, or fail."""
        self._of(drive, self.done, name, "volume snapshot disabled")

    def delete(self, drive: Drive, name: str) -> None:
        """Note it, or fail."""
        self._of(drive, self.deleted, name, "volume snapshot delete disabled")

    def assert_rollback(self, drive: Drive, name: str) -> None:
        """Agree, or fail."""
        if drive.volume not in {*SNAPSHOTTED, "local:snapshotable-disk-4"}:
            raise ClusterError("volume_rollback_is_possible failed")

    def rollback(self, drive: Drive, name: str) -> None:
        """Note it, or fail."""
        self._of(drive, self.returned, name, "volume snapshot rollback disabled")

    def stop(self) -> None:
        """Stop, if it can be stopped."""
        self.running = self.running and not self.flags["stop_possible"]

    def start(self, config: GuestConfig, snapshot: Section) -> None:
        """Run."""
        self.running = True

    def _need(self, flag: str, words: str) -> None:
        if not self.flags[flag]:
            raise ClusterError(words)

    @staticmethod
    def _of(drive: Drive, where: dict[str, str], name: str, words: str) -> None:
        if drive.volume not in SNAPSHOTTED:
            raise ClusterError(words)
        where[drive.volume] = name


def play(case: dict[str, Any], host: FakeHost) -> str:
    """Do what a case does; return the words that it ends with."""
    vmid, name, *rest = case["args"]
    try:
        if case["op"] == "prepare":
            snapshots.prepare(host, name, ram=bool(rest[0]), comment=rest[1])
        elif case["op"] == "commit":
            snapshots.commit(host, name)
        elif case["op"] == "create":
            snapshots.create(host, name, ram=bool(rest[0]), comment=rest[1])
        elif case["op"] == "delete":
            snapshots.delete(host, name, force=bool(rest[0]))
        else:
            snapshots.rollback(host, name, int(vmid))
    except ClusterError as error:
        return error.message
    return ""


ARGUMENTS = {"prepare": 4, "commit": 2, "create": 4, "delete": 3, "rollback": 2}


def outcomes(folder: Path) -> Iterator[tuple[str, object, object]]:
    """Yield each case: error, configuration and volumes, as they should be and as they are."""
    for case in json.loads((folder / "snapshot-tests.json").read_text()):
        place = f"{case['dir']}/qemu-server/{case['args'][0]}.conf"
        host = FakeHost((folder / "snapshot-input" / place).read_text(), case["flags"])
        words = play(case, host)
        error, *volumes = case["args"][ARGUMENTS[case["op"]] :]
        expected = GuestConfig.parse((folder / "snapshot-expected" / place).read_text()).text()
        seen = {"create": [host.done, host.deleted], "delete": [host.deleted], "rollback": [host.returned]}
        wanted = [volumes[number] if number < len(volumes) else {} for number in range(len(seen.get(case["op"], [])))]
        yield (
            f"{place}: {case['description'].strip()}",
            (error.strip(), expected, wanted),
            (words, host.text, seen.get(case["op"], [])),
        )


def test_the_engine_ends_each_upstream_case_as_upstream_does(pve: Path, compare: Compare) -> None:
    """Same error, same configuration afterwards, same volumes touched."""
    compare("snapshot cases", list(outcomes(pve / "vectors" / "qemu-8.4")))
