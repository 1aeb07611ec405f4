"""`create(access, node, vmid, iso, memory_mib) -> int`: make a virtual machine, start it, and know that it runs.

The witness is QEMU's process with its memory, the number that the guest counts in its RAM, and the transcript: what
the answer asked the cluster, and what it had been told when it went on.
"""

from __future__ import annotations

from ..answer import Call, Outcome
from ..exercise import Exercise, Trial
from .lab import Lab, Transcript, asked, lab, require_waited
from .laboratory import ISO

create = Exercise("create", deadline_s=60)

GONE = "shared:iso/deleted.iso"
_START = "/status/start"


def judge(trial: Trial, node: str, memory_mib: int, *, taken: bool = False) -> None:
    """Have one machine made.

    Args:
        trial: the trial.
        node: where.
        memory_mib: its memory.
        taken: whether another guest has the number wished for.
    """
    cluster = lab()
    wished = cluster.free_vmid()
    vmid = 0
    if taken:
        cluster.create("trevor", wished, counting=False, name="somebody-elses")
    before = {guest["vmid"] for guest in cluster.guests()}
    call = asked("create", node, wished, ISO, memory_mib)
    try:
        done, transcript = cluster.ask(trial, node, wished, ISO, memory_mib)
        cluster.finish(transcript)
        vmid = next((guest["vmid"] for guest in cluster.guests() if guest["vmid"] not in before), 0)
        _require_others_alone(trial, cluster, wished if taken else 0, call)
        _require_order(trial, transcript, call)
        _require_memory(trial, transcript, memory_mib, call)
        if taken and done.outcome is Outcome.RAISED:
            trial.wrong(
                "number-taken",
                f"{call} raised {done.error}: {done.detail}. Somebody else's guest has the number {wished}.",
                "Which question to the cluster gives a number that is free?",
            )
        got = trial.value_of(done, call)
        require_waited(trial, transcript, call)
        _require_machine(trial, cluster, transcript, node=node, vmid=vmid, memory_mib=memory_mib, call=call)
        trial.expect(
            got == vmid,
            "other-number",
            f"{call} returned {got!r}; the machine that it made is {vmid}.",
            "The caller needs the number that the machine really has.",
        )
    finally:
        for number in {guest["vmid"] for guest in cluster.guests()} - before | {wished}:
            cluster.remove(number)


def _require_others_alone(trial: Trial, cluster: Lab, other: int, call: str) -> None:
    if other and cluster.config("trevor", other).get("name") != "somebody-elses":
        trial.wrong(
            "destroyed-other",
            f"After {call} the guest {other} of somebody else is gone from trevor.",
            "A number that is taken belongs to somebody. Take another one.",
        )


def _require_order(trial: Trial, transcript: Transcript, call: str) -> None:
    """It had been told that the machine was made before it asked for its start."""
    starts = [at for at, e in enumerate(transcript.entries) if e["method"] == "POST" and e["path"].endswith(_START)]
    for at in starts:
        if upid := transcript.unfinished(at):
            trial.wrong(
                "started-too-early",
                f"{call} asked for the start while its task {upid.split(':')[5]} was under way: "
                "nothing had said that it was over.",
                "The answer to a POST is a UPID: a promise. Wait for its end before the next step.",
            )


def _require_memory(trial: Trial, transcript: Transcript, memory_mib: int, call: str) -> None:
    for made in transcript.find("POST", "/qemu"):
        asked_for = made["values"].get("memory", "nothing")
        trial.expect(
            asked_for == str(memory_mib),
            "memory-unit",
            f"{call} asked for memory={asked_for}; wished were {memory_mib} MiB.",
            "In which unit does the API count a machine's memory?",
        )


def _require_machine(
    trial: Trial, cluster: Lab, transcript: Transcript, *, node: str, vmid: int, memory_mib: int, call: str
) -> None:
    trial.expect(bool(vmid), "not-made", f"After {call} there is no new guest. You asked for: {transcript.told}.")
    place = cluster.place(vmid)
    trial.expect(place == node, "other-node", f"{call} made guest {vmid} on {place!r}; expected {node!r}.")
    processes = cluster.processes(vmid)
    if not processes:
        trial.wrong(
            "not-started",
            f"{call} made guest {vmid}, and no QEMU process of it runs: a configuration is no machine yet.",
            "Which path below the guest has the power button?",
        )
    has = processes[0]["memory_mib"]
    trial.expect(has == memory_mib, "memory-unit", f"QEMU runs guest {vmid} with {has} MiB; expected {memory_mib}.")
    drives = [v for k, v in cluster.config(node, vmid).items() if k.startswith(("ide", "sata", "scsi"))]
    trial.expect(
        any(ISO in str(drive) and "cdrom" in str(drive) for drive in drives),
        "no-image",
        f"Guest {vmid} has no drive with {ISO}; its drives: {', '.join(map(str, drives)) or 'none'}.",
        "A CD drive is a key such as ide2, and its value says that the volume is a CD-ROM.",
    )
    cluster.counts_on(node, vmid)


def judge_refusal(trial: Trial) -> None:
    """A machine that is made and cannot start: its CD image was deleted a moment ago."""
    cluster = lab()
    wished = cluster.free_vmid()
    call = asked("create", "trevor", wished, GONE, 32)
    try:
        done, transcript = cluster.ask(trial, "trevor", wished, GONE, 32)
        cluster.finish(transcript)
        _judge_failure(trial, done, transcript, call)
    finally:
        cluster.remove(wished)


def _judge_failure(trial: Trial, done: Call, transcript: Transcript, call: str) -> None:
    """The machine could not start; the caller has to hear of it."""
    ended = [e["data"]["exitstatus"] for e in transcript.entries if _failed(e)]
    if done.outcome is not Outcome.RETURNED:
        return
    if not ended:
        require_waited(trial, transcript, call)
    why = ended[-1] if ended else "; ".join(transcript.refused)
    trial.wrong(
        "failure-hidden",
        f"{call} returned {done.value!r}, as if all were well; the cluster had said: {why}",
        "A task that is stopped has ended, well or badly. Which word tells?",
    )


def _failed(entry: dict[str, object]) -> bool:
    data = entry["data"]
    return isinstance(data, dict) and data.get("exitstatus", "OK") != "OK"


@create.step("the machine runs on the node, with its memory and its image, when the function returns")
def _runs(trial: Trial) -> None:
    judge(trial, "michael", trial.rng.choice([48, 64, 96]))


@create.step("it takes another number where the one wished for is taken")
def _taken(trial: Trial) -> None:
    judge(trial, "michael", 32, taken=True)
