"""`migrate(access, vmid, target) -> dict`: move a running guest to another node, and say what it cost.

The witness: QEMU's process on the target and nowhere else, the life of the guest in its RAM, and the log of the task
that moved it. An older migration's log lies about, for those who read the wrong one.
"""

from __future__ import annotations

import re
from typing import Any

from ..answer import Outcome
from ..compare import shorten
from ..exercise import Exercise, Trial
from .lab import Lab, Transcript, asked, lab, require_waited, shuffled_nodes
from .laboratory import LOCAL_ISO

migrate = Exercise("migrate", deadline_s=90)

FIELDS = ("upid", "downtime_ms", "speed_mib_s")
_LINE = re.compile(r"average migration speed: ([\d.]+) ([KMG]i?B)/s - downtime (\d+) ms")


def judge(trial: Trial, cluster: Lab, vmid: int, source: str, target: str) -> None:
    """Have a guest moved once."""
    before, life = cluster.counts_on(source, vmid)
    call = asked("migrate", vmid, target)
    done, transcript = cluster.ask(trial, vmid, target)
    cluster.finish(transcript)
    require_waited(trial, transcript, call)
    got = trial.value_of(done, call)
    _require_place(trial, cluster, transcript, vmid=vmid, source=source, target=target, call=call)
    count, now = cluster.counts_on(target, vmid)
    trial.expect(
        now == life and count >= before,
        "restarted",
        f"{call} gave the guest a new life on {target}: it had counted to {before} on {source}, and is at {count} now. "
        f"You asked for: {transcript.told}.",
        "A live migration takes the RAM along. Which parameter says that the guest runs on?",
    )
    _require_report(trial, cluster, transcript, got, call)


def _require_place(
    trial: Trial, cluster: Lab, transcript: Transcript, *, vmid: int, source: str, target: str, call: str
) -> None:
    processes = cluster.processes(vmid)
    nodes = sorted(process["node"] for process in processes)
    trial.expect(
        len(nodes) < 2,
        "split-brain",
        f"After {call} the guest runs twice, on {' and '.join(nodes)}.",
        "Two machines with one disk and one address destroy both. Let the cluster move the guest.",
    )
    if not nodes and cluster.place(vmid) == target:
        trial.wrong(
            "left-stopped",
            f"After {call} the guest is on {target} and does not run. You asked for: {transcript.told}.",
            "It ran before, and was to run all the way.",
        )
    trial.expect(
        nodes == [target],
        "not-moved",
        f"After {call} the guest runs on {', '.join(nodes) or 'no node'}; it was on {source}. "
        f"You asked for: {transcript.told}.",
        "Which node do you ask, and which one do you name as the target?",
    )


def _require_report(trial: Trial, cluster: Lab, transcript: Transcript, got: Any, call: str) -> None:
    if not isinstance(got, dict) or not set(FIELDS) <= got.keys():
        trial.wrong(
            "other-report",
            f"{call} returned {shorten(got)}; expected a dict with {', '.join(FIELDS)}.",
            "Look at the last lines of the task's log.",
        )
    moves = [upid for upid in transcript.tasks if upid.split(":")[5] in ("qmigrate", "hamigrate")]
    upid = str(got["upid"])
    trial.expect(
        upid in moves,
        "other-task",
        f"{call} reports on {upid.split(':')[5] if upid.startswith('UPID') else upid!r} that began at "
        f"{upid.split(':')[4] if upid.count(':') > 4 else 'no time'}; your migration is another task.",
        "Each task has a UPID of its own. Which one did your POST return?",
    )
    lines = [line["t"] for line in cluster.get(f"nodes/{upid.split(':')[1]}/tasks/{upid}/log", limit=500)]
    match = next((found for line in lines if (found := _LINE.search(line))), None)
    if match is None:
        trial.wrong("no-log", f"The task's log has no line with speed and downtime: {lines[-3:]}")
    scale = {"K": 1 / 1024, "M": 1.0, "G": 1024.0}[match[2][0]]
    speed, downtime = float(match[1]) * scale, int(match[3])
    right = _is(got["downtime_ms"], downtime, 0.5) and _is(got["speed_mib_s"], speed, 0.01 * speed + 0.05)
    trial.expect(
        right,
        "other-numbers",
        f"{call} returned a downtime of {got['downtime_ms']!r} ms and {got['speed_mib_s']!r} MiB/s; "
        f"the log of that task says: {match[0]}",
        "Read the numbers, and their units, from the log of your own task.",
    )


def _is(got: Any, expected: float, tolerance: float) -> bool:
    try:
        return abs(float(got) - expected) <= tolerance
    except (TypeError, ValueError):
        return False


@migrate.step("a guest goes from node to node to node, counts on all the way, and each report is of its own journey")
def _journey(trial: Trial) -> None:
    cluster = lab()
    first, second, third = shuffled_nodes(trial)
    with cluster.guest(first) as vmid:
        judge(trial, cluster, vmid, first, second)
        judge(trial, cluster, vmid, second, third)


def judge_refusal(trial: Trial) -> None:
    """A guest with a CD of its node's own storage cannot leave."""
    cluster = lab()
    node, target = shuffled_nodes(trial)[:2]
    with cluster.guest(node, ide2=f"{LOCAL_ISO},media=cdrom") as vmid:
        _, life = cluster.counts_on(node, vmid)
        call = asked("migrate", vmid, target)
        done, transcript = cluster.ask(trial, vmid, target)
        cluster.finish(transcript)
        if done.outcome is Outcome.RETURNED:
            ends = [e["data"]["exitstatus"] for e in transcript.entries if _ended_badly(e["data"])]
            trial.wrong(
                "failure-hidden",
                f"{call} returned {shorten(done.value)}; the guest is on {cluster.place(vmid)} as before. "
                f"The cluster had said: {(ends or transcript.refused or ['nothing that you asked for'])[-1]}",
                "Whoever asked wants to know that it has not worked. How does the task end?",
            )
        trial.expect(done.outcome is Outcome.RAISED, "endless", f"{call} had not returned after {done.error}.")
        trial.expect(
            cluster.place(vmid) == node and cluster.counts_on(node, vmid)[1] == life,
            "restarted",
            f"{call} could not move the guest, and ended its life. You asked for: {transcript.told}.",
            "When a guest cannot move alive, that is for its owner to decide.",
        )


def _ended_badly(data: Any) -> bool:
    return isinstance(data, dict) and data.get("exitstatus", "OK") != "OK"
