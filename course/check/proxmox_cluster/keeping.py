"""`snapshot` and `rollback`: keep a machine with its RAM, and bring it back.

Both are judged by the life of the guest that counts: its RAM holds a number that each boot draws anew. After the
snapshot the check resets the machine; only a snapshot with RAM leads back to the old life.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from ..answer import Outcome
from ..exercise import Exercise, Trial
from .lab import Lab, asked, lab, require_waited, shuffled_nodes

snapshot = Exercise("snapshot", deadline_s=60)
rollback = Exercise("rollback", deadline_s=60)


@dataclasses.dataclass
class Subject:
    """A guest that counts, with a disk that snapshots can be kept in."""

    cluster: Lab
    node: str
    vmid: int

    @property
    def path(self) -> str:
        """Its path below the API."""
        return f"nodes/{self.node}/qemu/{self.vmid}"

    def moment(self) -> tuple[int, int]:
        """What it has counted to, and its life."""
        return self.cluster.counts_on(self.node, self.vmid)

    def reset(self) -> tuple[int, int]:
        """Begin a new life; returns a moment of it."""
        _, old = self.moment()
        self.cluster.do("POST", f"{self.path}/status/reset")
        while (now := self.moment())[1] == old:
            pass
        return now

    def snapshots(self) -> dict[str, dict[str, object]]:
        """Its snapshots by name, without the current state."""
        found = self.cluster.get(f"{self.path}/snapshot")
        return {str(one["name"]): one for one in found if one["name"] != "current"}

    def pid(self) -> int:
        """Its QEMU process; 0 when there is none."""
        found = self.cluster.processes(self.vmid)
        return int(found[0]["pid"]) if found else 0


@contextlib.contextmanager
def subject(trial: Trial) -> Iterator[Subject]:
    """Run a guest that counts."""
    cluster = lab()
    node = shuffled_nodes(trial)[0]
    with cluster.guest(node, scsi0="shared:0.01,format=qcow2") as vmid:
        yield Subject(cluster, node, vmid)


def judge_snapshot(trial: Trial, kept: Subject, name: str) -> None:
    """Have a running guest kept."""
    before, life = kept.moment()
    pid = kept.pid()
    call = asked("snapshot", kept.node, kept.vmid, name)
    done, transcript = kept.cluster.ask(trial, kept.node, kept.vmid, name)
    kept.cluster.finish(transcript)
    require_waited(trial, transcript, call)
    trial.value_of(done, call, none_is_an_answer=True)
    made = kept.snapshots()
    trial.expect(
        name in made,
        "not-kept",
        f"After {call} the guest has the snapshots {', '.join(made) or 'none'}. You asked for: {transcript.told}.",
        "Which path below the guest makes one?",
    )
    if not kept.pid() or kept.pid() != pid or kept.moment()[1] != life:
        trial.wrong(
            "stopped-for-it",
            f"{call} kept the guest, but its life is over: it had counted to {before} and began anew.",
            "The guest was to be kept while it runs.",
        )
    trial.expect(
        bool(int(str(made[name].get("vmstate") or 0))),
        "disk-only",
        f"{call} kept the guest's disks alone; it had counted to {before} in its RAM, which nobody will find again.",
        "Which parameter of the snapshot says that RAM and processor belong to it?",
    )
    kept.reset()
    kept.cluster.do("POST", f"{kept.path}/snapshot/{name}/rollback")
    count, now = kept.moment()
    trial.expect(
        now == life and count >= before,
        "other-life",
        f"Brought back to {name!r}, the guest counts from {count}; it had been at {before} in the life that was kept.",
    )


def judge_taken_name(trial: Trial, kept: Subject, name: str) -> None:
    """A name that is taken is refused by the cluster; the caller has to hear of it."""
    call = asked("snapshot", kept.node, kept.vmid, name)
    done, transcript = kept.cluster.ask(trial, kept.node, kept.vmid, name)
    kept.cluster.finish(transcript)
    if name not in kept.snapshots() or len(transcript.find("DELETE", name)):
        trial.wrong(
            "deleted-other",
            f"{call} deleted the snapshot that had this name.",
            "Somebody wanted to come back to it. A name that is taken is an error.",
        )
    if done.outcome is Outcome.RETURNED:
        require_waited(trial, transcript, call)
        trial.wrong(
            "failure-hidden",
            f"{call} returned {done.value!r}; there was a snapshot {name!r} before, and the cluster made none.",
            "How does the task end, and who reads it?",
        )
    trial.expect(done.outcome is Outcome.RAISED, "endless", f"{call} neither returned nor raised.")


def judge_rollback(trial: Trial, kept: Subject, name: str) -> None:
    """Have a guest brought back whose life has gone on, then ended."""
    kept.cluster.do("POST", f"{kept.path}/snapshot", snapname=name, vmstate=1)
    before, life = kept.moment()
    there, other = kept.reset()
    call = asked("rollback", kept.node, kept.vmid, name)
    done, transcript = kept.cluster.ask(trial, kept.node, kept.vmid, name)
    kept.cluster.finish(transcript)
    require_waited(trial, transcript, call)
    trial.value_of(done, call, none_is_an_answer=True)
    trial.expect(name in kept.snapshots(), "deleted-other", f"After {call} the snapshot {name!r} is gone.", "Keep it.")
    if not kept.pid():
        trial.wrong(
            "left-stopped",
            f"After {call} no QEMU process of guest {kept.vmid} runs.",
            "The snapshot holds a running guest. What did you do besides?",
        )
    count, now = kept.moment()
    if now == other:
        trial.wrong(
            "not-back",
            f"After {call} the guest goes on in its newer life ({there}, now {count}). "
            f"You asked for: {transcript.told}.",
            "Which path below the snapshot leads back?",
        )
    trial.expect(
        now == life,
        "restarted",
        f"{call} gave the guest a third life: now at {count}; kept was one that had counted to {before}. "
        f"You asked for: {transcript.told}.",
        "RAM that was brought back is lost again by a start, a stop or a reset.",
    )


def judge_unknown_name(trial: Trial, kept: Subject, name: str) -> None:
    """A snapshot that is not there cannot be returned to; the guest goes on."""
    _, life = kept.moment()
    call = asked("rollback", kept.node, kept.vmid, name)
    done, transcript = kept.cluster.ask(trial, kept.node, kept.vmid, name)
    kept.cluster.finish(transcript)
    if done.outcome is Outcome.RETURNED:
        require_waited(trial, transcript, call)
        trial.wrong(
            "failure-hidden",
            f"{call} returned {done.value!r}; there is no snapshot {name!r}, and the guest is where it was.",
            "How does the task end, and who reads it?",
        )
    trial.expect(kept.moment()[1] == life, "restarted", f"{call} could not bring the guest back, and ended its life.")


@snapshot.step("a guest that runs is kept with what it has counted in RAM, and goes on")
def _kept(trial: Trial) -> None:
    with subject(trial) as kept:
        judge_snapshot(trial, kept, f"s{trial.rng.randrange(10**6)}")


@rollback.step("the guest is back in the life that was kept, and counts on")
def _back(trial: Trial) -> None:
    with subject(trial) as kept:
        judge_rollback(trial, kept, f"s{trial.rng.randrange(10**6)}")
