"""`quorum(votes) -> int` and `recover(access, vmid, patience_s) -> str`: what is left when nodes die.

For the second one the check cuts a node's power. High availability brings the guest back elsewhere; the answer has to
know when, from what the cluster says, and to say so when nobody can.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..answer import Outcome
from ..exercise import Exercise, Trial
from .lab import Lab, Transcript, asked, lab, shuffled_nodes
from .laboratory import NODES

quorum = Exercise("quorum")
recover = Exercise("recover", deadline_s=120)

PATIENCE_S = 90.0


def judge_quorum(trial: Trial, votes: int) -> None:
    """Ask how many of so many votes are needed."""
    got = trial.call(votes)
    call = f"quorum({votes})"
    if not isinstance(got, int) or isinstance(got, bool):
        trial.wrong("no-number", f"{call} returned {got!r}; expected a number of votes.")
    trial.expect(
        2 * got > votes,
        "two-rulers",
        f"{call} returned {got}: cut into two parts, {got} nodes here and {votes - got} there, "
        f"{'both parts' if votes - got >= got else 'this part'} of the cluster could decide.",
        "Can two parts that do not see each other both have it?",
    )
    trial.expect(
        got <= votes // 2 + 1,
        "too-careful",
        f"{call} returned {got}: with {votes // 2 + 1} of {votes} votes no other part can decide, yet all stand still.",
        "How many nodes may be lost before nobody can decide?",
    )


@quorum.step("no two parts of three, four or five nodes can decide at once, and one can")
def _small(trial: Trial) -> None:
    for votes in (5, 4, 3):
        judge_quorum(trial, votes)


@contextlib.contextmanager
def dead(cluster: Lab, *nodes: str) -> Iterator[None]:
    """Cut the power of nodes for the time of a ``with`` block; the relay leads to one that lives."""
    alive = next(name for name in NODES if name not in nodes)
    cluster.outside.ask("through", alive)
    try:
        for node in nodes:
            cluster.outside.ask("power", node, False)
        yield
    finally:
        for node in nodes:
            cluster.outside.ask("power", node, True)
        cluster.outside.ask("through", NODES[0])


@contextlib.contextmanager
def managed(cluster: Lab, node: str) -> Iterator[int]:
    """Run a guest that high availability looks after; yields its VMID."""
    with cluster.guest(node, counting=False) as vmid:
        cluster.do("POST", "cluster/ha/resources", sid=f"vm:{vmid}", state="started", max_relocate=3, max_restart=3)
        try:
            await_state(cluster, vmid, "started")
            yield vmid
        finally:
            with contextlib.suppress(Exception):
                cluster.do("DELETE", f"cluster/ha/resources/vm:{vmid}")


def await_state(cluster: Lab, vmid: int, wanted: str, timeout_s: float = 60) -> None:
    """Wait until high availability says so of a guest."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for entry in cluster.get("cluster/ha/status/current"):
            if entry.get("sid") == f"vm:{vmid}" and entry.get("state", entry.get("crm_state")) == wanted:
                return
        time.sleep(0.05)


def judge(trial: Trial) -> None:
    """Cut the power of a guest's node and have it looked for."""
    cluster = lab()
    node = shuffled_nodes(trial)[0]
    with managed(cluster, node) as vmid:
        call = asked("recover", vmid, PATIENCE_S)
        with dead(cluster, node):
            done, transcript = cluster.ask(trial, vmid, PATIENCE_S)
            got = trial.value_of(done, call)
            _require_alive(trial, cluster, transcript, vmid=vmid, died=node, got=got, call=call)


def _require_alive(
    trial: Trial, cluster: Lab, transcript: Transcript, *, vmid: int, died: str, got: object, call: str
) -> None:
    trial.expect(
        got != died,
        "still-dead",
        f"{call} returned {got!r}, the node that has lost its power.",
        "The cluster repeats the last that a dead node told. Which of its words say that a node, or a guest, is dead?",
    )
    trial.expect(got in NODES, "no-node", f"{call} returned {got!r}; expected a node's name.")
    seen = [entry for entry in transcript.entries if _tells_running(entry, vmid, str(got))]
    if not seen:
        trial.wrong(
            "guessed",
            f"{call} returned {got!r} before the cluster had said that guest {vmid} runs there. "
            f"It asked {len(transcript.entries)} times.",
            "High availability makes sure first that the old node is dead. Who tells you that the guest runs again?",
        )
    processes = cluster.processes(vmid)
    trial.expect(
        [process["node"] for process in processes] == [got],
        "other-node",
        f"{call} returned {got!r}; the guest runs on {', '.join(p['node'] for p in processes) or 'no node'}.",
    )


def _tells_running(entry: dict[str, object], vmid: int, node: str) -> bool:
    """Tell whether a client could read from this answer that the guest runs on the node."""
    data, path = entry["data"], str(entry["path"])
    if isinstance(data, dict):
        return path.startswith(f"nodes/{node}/qemu/{vmid}/status") and data.get("status") == "running"
    for one in data if isinstance(data, list) else []:
        if not isinstance(one, dict) or one.get("node", node) != node:
            continue
        here = str(one.get("vmid")) == str(vmid) and (one.get("node") == node or path == f"nodes/{node}/qemu")
        if here and one.get("status") == "running":
            return True
        if one.get("sid") == f"vm:{vmid}" and one.get("node") == node and "started" in str(one.get("state")):
            return True
    return False


def judge_without_quorum(trial: Trial) -> None:
    """With one node of three nothing can be recovered: the answer has to say so in time."""
    cluster = lab()
    node, other, _ = shuffled_nodes(trial)
    with cluster.guest(node, running=False, counting=False) as vmid:
        patience_s = 1.0
        call = asked("recover", vmid, patience_s)
        with dead(cluster, node, other):
            done, _ = cluster.ask(trial, vmid, patience_s, deadline_s=45)
        if done.outcome is Outcome.RETURNED:
            trial.wrong(
                "claimed-without-quorum",
                f"{call} returned {done.value!r}; two of three nodes are dead, and the cluster can decide nothing.",
                "After the patience is over, the caller must not believe that all is well: raise.",
            )
        trial.expect(done.outcome is Outcome.RAISED, "endless", f"{call} had not returned after {done.error}.")


@recover.step("it returns the node on which a guest runs again, and not before it does")
def _recovered(trial: Trial) -> None:
    judge(trial)
