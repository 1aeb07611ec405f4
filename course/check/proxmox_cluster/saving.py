"""`save_and_restore(access, vmid, storage, new_vmid) -> str`: a backup that is proved by restoring it.

The witness compares what a guest would read from both disks, looks for the archive, and at the original: it has to run
on, in its own life.
"""

from __future__ import annotations

from ..answer import Call, Outcome
from ..compare import shorten
from ..exercise import Exercise, Trial
from .lab import Lab, Transcript, asked, lab, require_waited, shuffled_nodes

save_and_restore = Exercise("save_and_restore", deadline_s=60)

STORAGE = "shared"


def judge(trial: Trial, seed: int, *, older: bool = False) -> None:
    """Have a running guest saved and restored under another number."""
    cluster = lab()
    node = shuffled_nodes(trial)[0]
    card = "virtio,bridge=vmbr0"
    with cluster.guest(node, running=False, scsi0="shared:0.01,format=qcow2", net0=card) as vmid:
        volume = _volume(cluster.config(node, vmid))
        if older:
            cluster.do("POST", f"nodes/{node}/vzdump", vmid=vmid, storage=STORAGE, mode="stop")
        cluster.outside.ask("fill", volume, seed)
        content = cluster.outside.ask("content", volume)
        cluster.start(node, vmid)
        before, life = cluster.counts_on(node, vmid)
        new = cluster.free_vmid()
        call = asked("save_and_restore", vmid, STORAGE, new)
        try:
            done, transcript = cluster.ask(trial, vmid, STORAGE, new)
            cluster.finish(transcript)
            _explain_hang(trial, done, transcript, call)
            require_waited(trial, transcript, call)
            got = trial.value_of(done, call)
            _require_original(trial, cluster, transcript, node=node, vmid=vmid, moment=(before, life), call=call)
            _require_archive(trial, cluster, transcript, node=node, vmid=vmid, got=got, call=call)
            _require_copy(trial, cluster, transcript, vmid=vmid, new=new, content=content, call=call)
        finally:
            cluster.remove(new)
            _forget(cluster, node, vmid)


def _explain_hang(trial: Trial, done: Call, transcript: Transcript, call: str) -> None:
    modes = [made["values"].get("mode") for made in transcript.find("POST", "/vzdump")]
    if done.outcome is Outcome.TIMED_OUT and "stop" in modes:
        trial.wrong(
            "stopped-for-it",
            f"{call} had not returned after {done.error}: a backup in mode stop waits until the guest has shut itself "
            "down, and this one does not listen.",
            "vzdump has three modes. Which of them leaves the guest running?",
        )


def _volume(config: dict[str, object]) -> str:
    return str(config.get("scsi0", "")).partition(",")[0]


def _forget(cluster: Lab, node: str, vmid: int) -> None:
    """Delete the guest's backups."""
    for found in cluster.get(f"nodes/{node}/storage/{STORAGE}/content", content="backup", vmid=vmid):
        cluster.do("DELETE", f"nodes/{node}/storage/{STORAGE}/content/{found['volid']}")


def _require_original(
    trial: Trial, cluster: Lab, transcript: Transcript, *, node: str, vmid: int, moment: tuple[int, int], call: str
) -> None:
    running = bool(cluster.processes(vmid))
    now = cluster.counts_on(node, vmid) if running else (0, 0)
    if now[1] != moment[1]:
        state = f"counts from 1, now {now[0]}" if running else "does not run"
        trial.wrong(
            "stopped-for-it",
            f"{call} ended the original's life: it had counted to {moment[0]}, and {state}. "
            f"You asked for: {transcript.told}.",
            "vzdump has three modes. Which of them leaves the guest running?",
        )


def _require_archive(
    trial: Trial, cluster: Lab, transcript: Transcript, *, node: str, vmid: int, got: object, call: str
) -> None:
    found = [one["volid"] for one in cluster.get(f"nodes/{node}/storage/{STORAGE}/content", content="backup")]
    mine = [volid for volid in found if f"-{vmid}-" in volid]
    trial.expect(
        bool(mine),
        "no-archive",
        f"After {call} the storage {STORAGE} has no backup of guest {vmid}. You asked for: {transcript.told}.",
        "A clone lies beside the original and burns with it. Which path below the node makes a backup?",
    )
    trial.expect(
        got == max(mine),
        "other-archive",
        f"{call} returned {shorten(got)}; the archive that you made of guest {vmid} is {max(mine)}.",
        "Its name stands in the storage's content, and in the task's log.",
    )


def _require_copy(
    trial: Trial, cluster: Lab, transcript: Transcript, *, vmid: int, new: int, content: str, call: str
) -> None:
    place = cluster.place(new)
    trial.expect(
        bool(place),
        "not-restored",
        f"After {call} there is no guest {new}. You asked for: {transcript.told}.",
        "A backup that nobody has restored is a hope. Which parameter of a POST that creates guests names one?",
    )
    config, original = cluster.config(place, new), cluster.config(cluster.place(vmid), vmid)
    volume = _volume(config)
    trial.expect(
        bool(volume) and volume != _volume(original),
        "no-content",
        f"Guest {new} has the disk {volume or 'none'}; the original has {_volume(original)}.",
        "Restore the archive itself.",
    )
    trial.expect(
        cluster.outside.ask("content", volume) == content,
        "no-content",
        f"The disk of guest {new}, {volume}, does not hold what the original's holds. "
        f"You asked for: {transcript.told}.",
        "A configuration is copied quickly. What has to come out of the archive besides?",
    )
    mac = str(original.get("net0", "")).partition(",")[0]
    trial.expect(
        str(config.get("net0", "")).partition(",")[0] != mac,
        "same-address",
        f"Guest {new} has the original's hardware address, {mac.partition('=')[2]}: both on one bridge cannot work.",
        "Which parameter of the restore asks for new, unique addresses?",
    )


@save_and_restore.step("the copy comes from an archive, holds the disk's content, and the original runs on")
def _restored(trial: Trial) -> None:
    judge(trial, trial.seed)
