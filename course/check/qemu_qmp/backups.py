"""`backup(qmp_path, target_file) -> None`: copy a disk to a file while the guest goes on writing to it.

The guest numbers its writes (see `course.guest.diskwriter`), so a copy either is what the disk was after some write, or
it was never the disk. The witness is the file, read by qemu-img, and the check's own monitor: is the guest still
running, and on the same disk?
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...error import MachineError
from ...guest.diskwriter import last_write, writer
from ...machine import Machine, disk
from ...machine.transcript import QmpProxy
from ..answer import Call, Outcome
from ..exercise import Exercise, Trial
from .witness import Transcript, counter, counts_on

backup = Exercise("backup", deadline_s=20)

DISK_MIB = 16
SECTORS = 256
"""The guest writes to the first sectors of its disk, round and round."""
KEPT = b"never written by the guest\n"
"""What lies elsewhere on the disk; with a backing file, only there."""
KEPT_AT = 8 << 20
ASKED = "backup(qmp_path, target_file)"


@dataclasses.dataclass
class Writing:
    """A machine whose guest writes to its disk, and a directory for the copy."""

    vm: Machine
    directory: Path
    node: str

    @property
    def target(self) -> Path:
        """Where the copy shall be."""
        return self.directory / "copy.qcow2"


@contextlib.contextmanager
def writing(*, node: str = "disk0", backed: bool = False) -> Iterator[Writing]:
    """Run a guest that writes to its qcow2 disk all the time.

    Args:
        node: name of the disk's block node.
        backed: put `KEPT` into a backing file instead of the disk's own file.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        directory = Path(name)
        raw = directory / "base.raw"
        with raw.open("wb") as file:
            file.truncate(DISK_MIB << 20)
            file.seek(KEPT_AT)
            file.write(KEPT)
        base, image = directory / "base.qcow2", directory / "disk.qcow2"
        disk.convert(raw, base if backed else image)
        if backed:
            disk.create(image, backing=base)
        block = f"driver=qcow2,node-name={node},file.driver=file,file.filename={image}"
        device = f"ide-hd,drive={node},bus=ide.0,id=hd0"
        program = writer(SECTORS)
        with Machine(
            "-m", "32", "-kernel", program, "-blockdev", block, "-device", device, name="check", qmp_sockets=1
        ) as vm:
            counts_on(vm, SECTORS)
            yield Writing(vm, directory, node)


def ask(trial: Trial, guest: Writing, target: Path) -> tuple[Call, Transcript]:
    """Call the answer through a relay that is slow to tell what becomes of jobs."""
    late = {"JOB_STATUS_CHANGE": 0.1, "BLOCK_JOB_COMPLETED": 0.1, "BLOCK_JOB_READY": 0.1}
    with QmpProxy(guest.vm.qmp_path, delay_events_s=late) as proxy:
        done = trial.attempt(proxy.path, str(target))
        return done, Transcript.of(proxy)


def judge(trial: Trial, *, node: str = "disk0", backed: bool = False) -> None:
    """Have the disk of a writing guest copied, and compare."""
    with writing(node=node, backed=backed) as guest:
        before = attached(guest.vm)
        begin = counter(guest.vm)
        done, seen = ask(trial, guest, guest.target)
        end = counter(guest.vm)
        if done.outcome is not Outcome.RETURNED:
            _explain_exception(trial, done, seen, node)
        _require_end_of_job(trial, guest, seen)
        _require_life(trial, guest, before, seen)
        _require_file(trial, guest, seen)
        _require_content(trial, guest, begin, end)


def attached(vm: Machine) -> dict[str, Any]:
    """Say which file the guest's disk is, and how deep its backing chain is."""
    inserted = next(entry["inserted"] for entry in vm.execute("query-block") if "inserted" in entry)
    depth, image = 1, inserted["image"]
    while "backing-image" in image:
        depth, image = depth + 1, image["backing-image"]
    return {"file": inserted["image"]["filename"], "depth": depth}


def _explain_exception(trial: Trial, done: Call, seen: Transcript, node: str) -> None:
    said = f"{seen.errors()} {seen.errors_of_jobs()} {done.detail}"
    if node != "disk0" and "disk0" in said:
        trial.wrong(
            "node-name",
            f"{ASKED} named the node 'disk0'; this machine's disk is {node!r}. QEMU: {(seen.errors() or [''])[-1]}",
            "Ask the machine which block nodes it has.",
        )
    if 'write" lock' in said:
        trial.wrong(
            "disk-in-use",
            f"{ASKED} raised {done.error}: {done.detail}",
            "QEMU holds the disk, and for good reason. Who can read it while the guest writes?",
        )
    trial.value_of(done, ASKED, none_is_an_answer=True)


def _require_life(trial: Trial, guest: Writing, before: dict[str, Any], seen: Transcript) -> None:
    """The guest goes on writing to the same disk, and was not stopped for the copy."""
    now = attached(guest.vm)
    if now["file"] == str(guest.target):
        trial.wrong(
            "pivoted",
            f"The guest's disk is {now['file']} now: it writes to your copy from here on.",
            "A mirror can end in two ways. Which of them keeps the guest where it was?",
        )
    if now != before:
        trial.wrong(
            "chain-grew",
            f"The guest's disk was {before['file']} (chain of {before['depth']}), and is {now['file']} "
            f"(chain of {now['depth']}).",
            "Each snapshot makes reading slower. Merge it back, or copy without one.",
        )
    if "stop" in seen.commands:
        trial.wrong(
            "not-live",
            f"You sent: {seen.told}. The guest stood still meanwhile.",
            "QEMU can copy what the guest is about to overwrite. Which command does that?",
        )
    trial.expect(
        guest.vm.runstate == "running", "left-paused", f"The guest is {guest.vm.runstate!r}.", "It was to go on."
    )


def _require_end_of_job(trial: Trial, guest: Writing, seen: Transcript) -> None:
    news = [*seen.news_of_jobs(), *(["concluded"] if seen.delivered("BLOCK_JOB_COMPLETED") else [])]
    started = [name for name in seen.commands if name.endswith(("-backup", "-mirror", "drive_backup"))]
    asked = seen.asked_for_jobs()
    if started and not {"concluded", "null", "ready"} & set(news) and not asked:
        last = f"the last news of the job was {news[-1]!r}" if news else "no news of the job had come"
        trial.wrong("did-not-wait", f"{ASKED} sent {started[0]} and ended when {last}.", "When is the file complete?")
    if jobs := guest.vm.execute("query-jobs"):
        if jobs[0]["status"] != "concluded":
            trial.wrong("did-not-wait", f"{ASKED} ended while its job was {jobs[0]['status']!r}.", "When is it over?")
        trial.nearly("job-not-dismissed", f"{ASKED} left the job {jobs[0]['id']!r} behind: {jobs[0]['status']}.")


def _require_file(trial: Trial, guest: Writing, seen: Transcript) -> None:
    """The copy exists, stands alone, and QEMU has let go of it."""
    if not guest.target.exists():
        errors = [*seen.errors(), *seen.errors_of_jobs()]
        trial.wrong(
            "no-file",
            f"{ASKED} returned, but there is no file {guest.target.name}."
            + (f" QEMU had said: {errors[-1]}" if errors else f" You sent: {seen.told}."),
            "Who makes the file, and who fills it?",
        )
    files = [node["file"] for node in guest.vm.execute("query-named-block-nodes")]
    if str(guest.target) in files:
        trial.nearly(
            "target-left-open",
            f"QEMU still holds {guest.target.name} open: nobody else can write to it.",
            "You have added a node. Who removes it?",
        )


def _require_content(trial: Trial, guest: Writing, begin: int, end: int) -> None:
    """The copy is what the disk was at some moment of the call, all of it."""
    raw = guest.directory / "copy.raw"
    try:
        info = disk.info(guest.target)
        disk.convert(guest.target, raw, format="raw")
    except MachineError as error:
        trial.wrong("torn", f"qemu-img cannot read the copy: {error.message}", "Who knows which bytes belong together?")
    size = info["virtual-size"]
    trial.expect(
        size == DISK_MIB << 20,
        "wrong-size",
        f"The copy is a disk of {size} bytes, not {DISK_MIB << 20}.",
        "query-block knows the disk's virtual-size.",
    )
    content = raw.read_bytes()
    moment = last_write(content, SECTORS)
    told = f"The guest made the writes {begin} to {end} meanwhile"
    if moment is None:
        numbers = sorted({int.from_bytes(content[i * 512 : i * 512 + 4], "little") for i in range(SECTORS)})
        trial.wrong(
            "torn",
            f"{told}; the copy holds writes between {numbers[0]} and {numbers[-1]}, but the disk never was like that.",
            "You have read a book while somebody was writing in it. Who could tell which pages to keep?",
        )
    kept = content[KEPT_AT : KEPT_AT + len(KEPT)] == KEPT
    if not moment and not kept:
        trial.wrong("empty", f"{told}; the copy holds nothing.", "You have made the file. Who fills it?")
    if not begin <= moment <= end + 1:
        trial.wrong(
            "torn",
            f"{told}; the copy is the disk after write {moment}.",
            "Some of the disk is in QEMU's memory, not yet in its file.",
        )
    if not kept:
        trial.wrong(
            "only-top",
            "What the guest writes is in the copy; what lies in the disk's backing file is not.",
            "A backup has to be complete by itself. How much of the chain does your job copy?",
        )
    if info.get("backing-filename"):
        trial.wrong(
            "only-top",
            f"The copy needs {info['backing-filename']} to be complete.",
            "What becomes of the copy when that file is gone?",
        )


def judge_failure(trial: Trial) -> None:
    """Ask for a copy where none can be made: the answer has to raise, and to leave the guest in peace."""
    with writing() as guest:
        before = attached(guest.vm)
        done, seen = ask(trial, guest, guest.directory / "no such directory" / "copy.qcow2")
        if done.outcome is Outcome.RETURNED:
            errors = [*seen.errors(), *seen.errors_of_jobs(), "nothing"]
            trial.wrong(
                "error-swallowed",
                f"{ASKED} returned as if all were well, for a directory that does not exist. QEMU: {errors[0]}",
                "Somebody will want to restore from that file one day.",
            )
        if done.outcome is not Outcome.RAISED:
            trial.value_of(done, ASKED, none_is_an_answer=True)
        _require_life(trial, guest, before, seen)
        counts_on(guest.vm)


@backup.step("the copy is the disk at one moment, and the guest never stopped writing")
def _live(trial: Trial) -> None:
    judge(trial)


@backup.step("a copy that cannot be made is an error")
def _refused(trial: Trial) -> None:
    judge_failure(trial)
