"""`checkpoint(qmp_path, tag)` and `rollback(qmp_path, tag)`: keep a whole machine, RAM included, and return to it.

The witness is a number that the guest counts in its RAM, read by the check's own monitor: a snapshot that holds only
the disk cannot bring it back, a restart begins again at zero. Whether the answer saw its job end is read from the
transcript; whether it tidied up, from ``query-jobs``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ...machine import Machine, disk
from ...machine.transcript import QmpProxy
from ..answer import Call, Outcome
from ..exercise import Exercise, Trial
from .witness import Transcript, bare_metal, counter, counts_on

checkpoint = Exercise("checkpoint", deadline_s=15)
rollback = Exercise("rollback", deadline_s=15)

SLOW_MIB = 16
"""So much RAM takes long enough to keep that the beginning and the end of the job can be told apart."""
_LATE_S = 0.25  # by which news of a job come late: longer than the job itself
_RATE_HZ = 100  # of the guest's counter
_GAP = 50  # counts between a snapshot and its use, so that a running guest does not reach the old number again at once
_JOB = "What does the reply to a job's command promise, and which message tells the job's end?"


@contextlib.contextmanager
def machine(node: str = "disk0", *, dirty_mib: int = 0) -> Iterator[Machine]:
    """Run a machine that counts in RAM and has a qcow2 disk under the given node name.

    Args:
        node: the name.
        dirty_mib: MiB of RAM that the guest writes to, so that keeping it takes a moment; without, the guest counts a
            hundred times a second.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as directory:
        image = Path(directory) / "disk.qcow2"
        disk.create(image, 64)
        block = f"driver=qcow2,node-name={node},file.driver=file,file.filename={image}"
        with bare_metal("-blockdev", block, "-device", f"ide-hd,drive={node}", dirty_mib=dirty_mib) as vm:
            counts_on(vm)
            yield vm


def kept(vm: Machine, tag: str) -> dict[str, Any] | None:
    """Return what a qcow2 disk says of the snapshot `tag`, or None."""
    for node in vm.execute("query-named-block-nodes"):
        for snapshot in node["image"].get("snapshots", []):
            if node["drv"] == "qcow2" and snapshot["name"] == tag:
                return dict(snapshot)
    return None


def ask(trial: Trial, vm: Machine, tag: str) -> tuple[Call, Transcript]:
    """Call the answer through a relay that is slow to tell what becomes of jobs."""
    with QmpProxy(vm.qmp_path, delay_events_s={"JOB_STATUS_CHANGE": _LATE_S}) as proxy:
        done = trial.attempt(proxy.path, tag)
        return done, Transcript.of(proxy)


def _require_end_of_job(trial: Trial, vm: Machine, seen: Transcript, command: str, asked: str) -> None:
    """The answer saw its job conclude, and dismissed it."""
    if command in seen.commands:
        news = seen.news_of_jobs()
        if not {"concluded", "null"} & set(news):
            last = (
                f"the last news of the job that you had received was {news[-1]!r}"
                if news
                else "no news of the job had reached you"
            )
            trial.wrong("did-not-wait", f"{asked} sent {command} and ended when {last}.", _JOB)
    if jobs := vm.execute("query-jobs"):
        trial.nearly(
            "job-not-dismissed",
            f"{asked} left the job {jobs[0]['id']!r} behind: {jobs[0]['status']}.",
            "A concluded job keeps its id, and its error, until it is dismissed.",
        )


def _require_state(trial: Trial, vm: Machine, before: str, asked: str, when: str = "") -> None:
    state = vm.runstate
    if state != before:
        trial.wrong(
            "left-paused" if before == "running" else "left-running",
            f"{asked}{when}: the machine was {before!r} before and is {state!r} now.",
            "Leave a running machine running and a paused one paused, whatever happened in between.",
        )


# ─── checkpoint ──────────────────────────────────────────────────────────────


def judge_checkpoint(trial: Trial, vm: Machine, tag: str, *, node: str = "disk0") -> None:
    """Have the running machine kept under `tag`; then go back to it from the check's side."""
    asked = f"checkpoint(qmp_path, {tag!r})"
    begin = counter(vm)
    done, seen = ask(trial, vm, tag)
    end = counter(vm)
    if done.outcome is not Outcome.RETURNED:
        _explain_refusal(trial, done, seen, node, asked)
    snapshot = kept(vm, tag)
    if snapshot is None:
        errors = [*seen.errors(), *seen.errors_of_jobs()]
        trial.wrong(
            "nothing-kept",
            f"{asked} returned, but no disk has a snapshot of this name."
            + (f" QEMU had said: {errors[-1]}" if errors else f" You sent: {seen.told}."),
            "Look at the error of the job, too: query-jobs has it.",
        )
    if not snapshot["vm-state-size"]:
        trial.wrong(
            "snapshot-disk-only",
            f"{asked} kept the disk with {snapshot['vm-state-size']} bytes of machine state: the RAM is not in it.",
            "The disk is one half of a machine. Which command takes the other half along?",
        )
    _require_end_of_job(trial, vm, seen, "snapshot-save", asked)
    _require_state(trial, vm, "running", asked)
    vm.pause()
    vm.rollback(tag)
    trial.expect(
        begin <= counter(vm) <= end,
        "another-moment",
        f"{asked}: the guest had counted from {begin} to {end} meanwhile; going back gave {counter(vm)}.",
    )
    vm.resume()


def _explain_refusal(trial: Trial, done: Call, seen: Transcript, node: str, asked: str) -> None:
    said = [*seen.errors(), *seen.errors_of_jobs(), ""][0]
    if node != "disk0" and "disk0" in f"{said}{seen.arguments('snapshot-save')}{seen.arguments('snapshot-load')}":
        trial.wrong(
            "node-name",
            f"{asked} named the node 'disk0'; this machine's disk is {node!r}. QEMU: {said}",
            "Ask the machine which block nodes it has.",
        )
    if "already in use" in said:
        trial.wrong("job-not-dismissed", f"{asked} raised {done.error}. QEMU: {said}", "Which job has that id?")
    trial.value_of(done, asked, none_is_an_answer=True)


def _silent_failure(trial: Trial, asked: str, seen: Transcript, truth: str) -> NoReturn:
    """End the check: the job failed, and the answer said nothing of it."""
    said = [*seen.errors_of_jobs(), *seen.errors(), "nothing"][0]
    trial.wrong(
        "job-error-ignored",
        f"{asked} returned as if all were well{truth}. You had sent {seen.told}; QEMU had told you: {said}",
        "That a job has concluded does not mean that it succeeded. Where is its error?",
    )


def judge_taken_tag(trial: Trial, vm: Machine, tag: str) -> None:
    """Have a tag kept that exists: the answer may replace it or raise, but not say nothing."""
    asked = f"checkpoint(qmp_path, {tag!r})"
    old = kept(vm, tag)
    done, seen = ask(trial, vm, tag)
    if done.outcome is Outcome.RETURNED and kept(vm, tag) == old:
        _silent_failure(trial, asked, seen, ", but the snapshot is the old one")
    if done.outcome is not Outcome.RAISED:
        trial.value_of(done, asked, none_is_an_answer=True)
    if jobs := vm.execute("query-jobs"):
        trial.nearly("job-not-dismissed", f"{asked} failed, rightly, and left the job {jobs[0]['id']!r} behind.")
    _require_state(trial, vm, "running", asked, " failed, rightly")


@checkpoint.step("the machine is kept with its RAM, goes on, and can be kept again")
def _kept(trial: Trial) -> None:
    with machine(dirty_mib=SLOW_MIB) as vm:
        judge_checkpoint(trial, vm, "before")
        judge_checkpoint(trial, vm, "after")


@checkpoint.step("a snapshot that cannot be made is not passed over in silence")
def _refused(trial: Trial) -> None:
    with machine() as vm:
        vm.snapshot("taken")
        judge_taken_tag(trial, vm, "taken")


# ─── rollback ────────────────────────────────────────────────────────────────


def judge_rollback(trial: Trial, vm: Machine, tag: str, *, paused: bool, node: str = "disk0") -> None:
    """Keep the machine from the check's side, let it count on, and have the answer go back."""
    asked = f"rollback(qmp_path, {tag!r})"
    vm.pause()
    saved = counter(vm)
    vm.snapshot(tag)
    vm.resume()
    reached = counts_on(vm, 3 if paused else _GAP)
    state = "paused" if paused else "running"
    if paused:
        vm.pause()
    done, seen = ask(trial, vm, tag)
    now = counter(vm)
    since_then = 0.0 if paused else done.seconds * _RATE_HZ
    if done.outcome is not Outcome.RETURNED:
        _explain_refusal(trial, done, seen, node, asked)
    told = (
        f"{asked}: the guest's counter was {saved} when it was kept, {reached} before you went back, and is {now} now"
    )
    if now < saved or "system_reset" in seen.commands:
        trial.wrong("restarted", f"{told}.", "The guest has begun anew. Was a restart asked for?")
    _require_end_of_job(trial, vm, seen, "snapshot-load", asked)
    _require_state(trial, vm, state, asked)
    if now >= reached and since_then < reached - saved:
        trial.wrong("nothing-restored", f"{told}. You sent: {seen.told}.", "Which command loads a snapshot's RAM?")
    trial.expect(not paused or now == saved, "another-moment", f"{told}, although it was paused all the time.")
    if not paused:
        counts_on(vm)
    vm.resume()


def judge_unknown_tag(trial: Trial, vm: Machine, tag: str) -> None:
    """Ask for a snapshot that does not exist: the answer has to raise, and the machine to go on."""
    asked = f"rollback(qmp_path, {tag!r})"
    done, seen = ask(trial, vm, tag)
    if done.outcome is Outcome.RETURNED:
        _silent_failure(trial, asked, seen, "; there is no such snapshot")
    if done.outcome is not Outcome.RAISED:
        trial.value_of(done, asked, none_is_an_answer=True)
    if jobs := vm.execute("query-jobs"):
        trial.nearly("job-not-dismissed", f"{asked} failed, rightly, and left the job {jobs[0]['id']!r} behind.")
    _require_state(trial, vm, "running", asked, " failed, rightly")


@rollback.step("the RAM of a paused machine returns to exactly what it was")
def _exact(trial: Trial) -> None:
    with machine() as vm:
        judge_rollback(trial, vm, "then", paused=True)


@rollback.step("a running machine goes on running, from the saved moment")
def _running(trial: Trial) -> None:
    with machine() as vm:
        judge_rollback(trial, vm, "then", paused=False)


@rollback.step("a snapshot that does not exist is an error, and the machine survives it")
def _unknown(trial: Trial) -> None:
    with machine() as vm:
        judge_unknown_tag(trial, vm, "never")
