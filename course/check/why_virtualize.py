"""Visible checks of lesson 01: what machines really use, and what that is worth.

Every measured answer is compared with a measurement of our own, taken before and after it: what a busy host does to
the one it does to the other.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..load import burners, cpu_seconds
from .cost import judge_cost
from .exercise import Exercise, Trial
from .memory import judge_footprint, judge_overcommit, paused_vms
from .placement import RESOURCES, free, refuge, sizes_problem, unsurvived

__all__ = [
    "FIELDS",
    "NODES",
    "counterexample",
    "cpu_busy",
    "fatal_losses",
    "footprint",
    "greedy_pack",
    "overcommit",
    "pack",
    "share",
    "tco",
]

NODES = {name: {"cores": 8, "ram_mib": 16384} for name in ("franklin", "trevor", "michael")}

# ── cpu_busy ─────────────────────────────────────────────────────────────────────────────────────────────────────────

FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
cpu_busy = Exercise("cpu_busy")


def stat_text(cpus: Mapping[str, Mapping[str, int]], columns: int = len(FIELDS)) -> str:
    """Write what ``/proc/stat`` would say: a line of totals, one line per CPU, and some of what follows them."""
    rows = {name: [ticks.get(field, 0) for field in FIELDS[:columns]] for name, ticks in cpus.items()}
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [f"cpu  {' '.join(map(str, total))}", *(f"{name} {' '.join(map(str, row))}" for name, row in rows.items())]
    return "\n".join([*lines, "intr 8765 0 9", "ctxt 115315", "btime 1764000000", "processes 26442", ""])


def judge_busy(trial: Trial, before: str, after: str, expected: Mapping[str, float], blame: tuple[str, str]) -> None:
    """Compare the answer, CPU by CPU, with known percentages; `blame` is a misconception and the next step."""
    got = as_percentages(trial, trial.call(before, after))
    for cpu, percent in expected.items():
        trial.expect(cpu in got, "cpu-missing", f"{cpu} is in both texts but not in your result {got}.")
        if not math.isclose(got[cpu], percent, abs_tol=0.6):
            if percent > 1 and math.isclose(got[cpu] * 100, percent, abs_tol=0.6):
                trial.nearly(
                    "fraction", f"{cpu}: you returned {got[cpu]:g}; expected {percent:g}.", "Percent is asked."
                )
            trial.wrong(blame[0], f"{cpu} was {percent:.1f} % busy; you returned {got[cpu]:.1f} %.", blame[1])
    extra = sorted(set(got) - set(expected))
    trial.expect(
        not extra, "cpu-extra", f"Your result holds {extra}, which is not in both texts.", "Whose line is that?"
    )


def as_percentages(trial: Trial, got: Any) -> dict[str, float]:
    """The answer's value as percentages per CPU, or the end of the check."""
    if isinstance(got, int | float):
        trial.wrong(
            "average-of-cpus",
            f"You returned the single number {got!r}.",
            "One busy CPU of 64 disappears in an average. Return one entry per CPU.",
        )
    if not isinstance(got, dict) or not all(isinstance(v, int | float) for v in got.values()):
        trial.wrong("not-a-dict", f"You returned {got!r}.", 'Return a dict such as {"cpu0": 12.5}.')
    if "cpu" in got and len(got) > 1:
        trial.nearly(
            "total-line",
            f'Your result has a CPU named "cpu": {got["cpu"]!r}.',
            "The first line of /proc/stat is the sum of all CPUs, not one of them.",
        )
    return got


@cpu_busy.step("only the time between the two readings counts")
def _between(trial: Trial) -> None:
    history = {"user": 90_000, "system": 20_000, "idle": 400_000}
    worked = {"user": 90_040, "system": 20_000, "idle": 400_060}
    before, after = (
        stat_text({"cpu0": history, "cpu1": history}),
        stat_text({"cpu0": worked, "cpu1": {**worked, "idle": 400_360}}),
    )
    judge_busy(
        trial,
        before,
        after,
        {"cpu0": 40.0, "cpu1": 10.0},
        ("cumulative", "/proc/stat counts ticks since the machine started. What happened between two readings?"),
    )


@cpu_busy.step("waiting for a disk is not work")
def _iowait(trial: Trial) -> None:
    before = {"user": 100, "idle": 500, "iowait": 50}
    after = {"user": 120, "idle": 520, "iowait": 110}
    why = "While a CPU is in iowait, it has nothing to run: it could work for somebody else."
    judge_busy(trial, stat_text({"cpu0": before}), stat_text({"cpu0": after}), {"cpu0": 20.0}, ("iowait-busy", why))


@cpu_busy.step("a CPU of this machine that we keep busy is seen as busy")
def _live(trial: Trial) -> None:
    cpu = max(os.sched_getaffinity(0))
    with burners("user") as (pid,):
        os.sched_setaffinity(pid, {cpu})
        before, start, used = Path("/proc/stat").read_text(), time.monotonic(), cpu_seconds(pid)
        wait_until(lambda: cpu_seconds(pid) > used + 0.25)
        after, least = Path("/proc/stat").read_text(), 100 * (cpu_seconds(pid) - used) / (time.monotonic() - start)
    got = as_percentages(trial, trial.call(before, after)).get(f"cpu{cpu}")
    trial.expect(got is not None, "cpu-missing", f"Our process ran on cpu{cpu}, which your result does not name.")
    trial.expect(
        isinstance(got, int | float) and least - 15 <= got <= 100.5,
        "live",
        f"Our process alone used {least:.0f} % of cpu{cpu}; you returned {got!r}.",
        "The texts came from this machine's /proc/stat. Print both cpu lines and compute by hand.",
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Look every few milliseconds until `condition` holds or the time is over."""
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)


# ── footprint, overcommit ────────────────────────────────────────────────────────────────────────────────────────────

footprint = Exercise("footprint")
overcommit = Exercise("overcommit")


@footprint.step("a paused VM is weighed as the kernel weighs it, however much RAM it was promised")
def _weighed(trial: Trial) -> None:
    with paused_vms(64, 512, 2048) as vms:
        for vm in vms:
            judge_footprint(trial, vm["pid"], vm["ram_mib"])


@overcommit.step("what three VMs were promised is divided by what they hold together")
def _overcommitted(trial: Trial) -> None:
    with paused_vms(64, 512, 2048) as vms:
        judge_overcommit(trial, vms)


# ── fatal_losses, pack ───────────────────────────────────────────────────────────────────────────────────────────────

fatal_losses = Exercise("fatal_losses")
pack = Exercise("pack", deadline_s=20.0)


def vms_of(*sizes: tuple[int, int]) -> dict[str, dict[str, int]]:
    """VMs named web, db, … from pairs (cores, GiB)."""
    names = ("web", "db", "mail", "files", "build", "wiki", "dns", "proxy")
    return {name: {"cores": cores, "ram_mib": gib * 1024} for name, (cores, gib) in zip(names, sizes, strict=False)}


def judge_losses(
    trial: Trial,
    vms: Mapping[str, Any],
    nodes: Mapping[str, Any],
    placement: Mapping[str, str],
    blame: tuple[str, str],
) -> None:
    """Compare the answer with the exact search; `blame` is a misconception and the next step."""
    got = trial.call(vms, nodes, placement)
    expected = unsurvived(vms, nodes, placement)
    if not isinstance(got, list | tuple | set) or not set(got) <= set(nodes):
        trial.wrong("not-node-names", f"You returned {got!r}.", f"Return a list of names out of {list(nodes)}.")
    asked = f"VMs: {dict(vms)}\nnodes: {dict(nodes)}\nplacement: {dict(placement)}"
    said = f"{asked}\nfatal losses: {expected}; you returned {sorted(got)}."
    trial.expect(set(got) == set(expected), blame[0], said, blame[1])


@fatal_losses.step("a lost node's VMs may start wherever there is room")
def _room(trial: Trial) -> None:
    vms = vms_of((2, 8), (2, 8), (2, 8))
    for placement in (
        {"web": "franklin", "db": "trevor", "mail": "michael"},
        {"web": "franklin", "db": "franklin", "mail": "trevor"},
    ):
        judge_losses(trial, vms, NODES, placement, ("alarm", "Which node's free room did you use for which VM?"))


@fatal_losses.step("cores count as well as RAM")
def _both(trial: Trial) -> None:
    nodes = {**NODES, "franklin": {"cores": 32, "ram_mib": 65536}}
    for vms, resource in ((vms_of((20, 1), (1, 1)), "cores"), (vms_of((1, 40), (1, 1)), "ram")):
        placement = {"web": "franklin", "db": "trevor"}
        why = "web runs on the one large node. Compare what it needs, both cores and RAM, with what the others have."
        judge_losses(trial, vms, nodes, placement, (f"ignores-{resource}", why))


@fatal_losses.step("room that is already used is not free")
def _used(trial: Trial) -> None:
    vms = vms_of((2, 12), (2, 12), (2, 12))
    placement = {"web": "franklin", "db": "trevor", "mail": "michael"}
    why = "The surviving nodes go on running what they run. How much do they have left?"
    judge_losses(trial, vms, NODES, placement, ("ignores-survivors", why))


@fatal_losses.step("two VMs of a lost node do not get the same room twice")
def _twice(trial: Trial) -> None:
    vms = vms_of((1, 6), (1, 6), (1, 8), (1, 8))
    placement = {"web": "franklin", "db": "franklin", "mail": "trevor", "files": "michael"}
    judge_losses(trial, vms, NODES, placement, ("alarm", "One VM fits on trevor, the other on michael."))
    crowded = {**vms, "build": {"cores": 1, "ram_mib": 5120}}
    why = "Each VM alone finds room here. Do all of them, at the same time?"
    judge_losses(trial, crowded, NODES, {**placement, "build": "trevor"}, ("each-alone", why))


@fatal_losses.step("a VM is not cut in two")
def _whole(trial: Trial) -> None:
    spread = {"web": "franklin", "db": "trevor", "mail": "michael"}
    why = "Both other nodes together have the room. Does one of them have it?"
    judge_losses(trial, vms_of((1, 10), (1, 10), (1, 10)), NODES, spread, ("only-total", why))


def judge_pack(
    trial: Trial, vms: Mapping[str, Any], nodes: Mapping[str, Any], got: Any, *, feasible: bool, losses: bool = True
) -> None:
    """Judge a placement, whatever it is, by its validity; None is right only when nothing else is possible."""
    asked = f"VMs {dict(vms)} on nodes {dict(nodes)}"
    if got is None:
        said = f"You returned None for {asked}, but a placement that survives any single loss exists."
        trial.expect(not feasible, "none-too-easily", said, "Which placements did you not try?")
        return
    trial.expect(
        isinstance(got, dict), "not-a-dict", f"You returned {got!r}.", 'Return {"web": "franklin", …} or None.'
    )
    missing = sorted(set(vms) - set(got))
    trial.expect(not missing, "incomplete", f"{missing} got no node: {got}.", "Every VM needs a place.")
    strange = sorted({str(node) for node in got.values()} - set(nodes) | (set(got) - set(vms)))
    trial.expect(
        not strange, "unknown-name", f"{strange} is not among {list(nodes)} or the VMs.", "Use the names given."
    )
    for node, left in free(vms, nodes, got).items():
        for resource, misconception in zip(RESOURCES, ("ignores-cores", "ignores-ram"), strict=True):
            has = nodes[node][resource]
            said = f"{node} has {has} {resource} and would need {has - left[resource]} with {got}."
            trial.expect(left[resource] >= 0, misconception, said, f"Add up {resource} per node.")
    if losses and (fatal := unsurvived(vms, nodes, got)):
        _explain_loss(trial, vms, nodes, got, fatal[0])


def _explain_loss(
    trial: Trial, vms: Mapping[str, Any], nodes: Mapping[str, Any], got: Mapping[str, str], lost: str
) -> None:
    homeless = [vm for vm, node in got.items() if node == lost]
    left = {node: room for node, room in free(vms, nodes, got).items() if node != lost}
    said = f"When {lost} is lost, {homeless} must restart, and there is no way to fit them into {left}."
    if all(sum(vms[vm][r] for vm in homeless) <= sum(room[r] for room in left.values()) for r in RESOURCES):
        trial.wrong("only-total", said, "In total there is room enough. Can one VM be cut in two?")
    trial.wrong("no-n-plus-1", said, "Lose each node in turn, in thought, before you return a placement.")


@pack.step("every VM gets a node that has its cores and its RAM")
def _placed(trial: Trial) -> None:
    for vms in (vms_of((1, 2), (1, 2), (2, 4)), vms_of((1, 9), (1, 6), (1, 6)), vms_of((5, 1), (3, 1), (4, 1))):
        got = trial.call(vms, NODES, none_is_an_answer=True)
        judge_pack(trial, vms, NODES, got, feasible=True, losses=False)


@pack.step("None is returned when no placement survives the loss of a node")
def _impossible(trial: Trial) -> None:
    vms = vms_of((2, 12), (2, 12), (2, 12))
    judge_pack(trial, vms, NODES, trial.call(vms, NODES, none_is_an_answer=True), feasible=False)


@pack.step("a placement that survives is found where one exists")
def _any_loss(trial: Trial) -> None:
    vms = vms_of((3, 8), (4, 6), (4, 2), (1, 6), (4, 2))
    judge_pack(trial, vms, NODES, trial.call(vms, NODES, none_is_an_answer=True), feasible=True)


# ── the bug hunt ─────────────────────────────────────────────────────────────────────────────────────────────────────

counterexample = Exercise("counterexample")


def greedy_pack(vms: Mapping[str, Any], nodes: Mapping[str, Any]) -> dict[str, str] | None:
    """Place the largest VM first, always on the node with the most free RAM. Keeps N+1, says its author."""
    free = {name: dict(node) for name, node in nodes.items()}
    placement = {}
    for vm in sorted(vms, key=lambda name: -vms[name]["ram_mib"]):
        node = max(free, key=lambda name: free[name]["ram_mib"])
        for resource in ("cores", "ram_mib"):
            free[node][resource] -= vms[vm][resource]
            if free[node][resource] < 0:
                return None
        placement[vm] = node
    for lost in nodes:
        for resource in ("cores", "ram_mib"):
            carried = nodes[lost][resource] - free[lost][resource]
            room = sum(free[other][resource] for other in nodes if other != lost)
            if carried > room:
                return None
    return placement


@counterexample.step("you return VMs and nodes of the right form")
def _form(trial: Trial) -> None:
    got = trial.call()
    right = isinstance(got, dict) and set(got) == {"vms", "nodes"}
    trial.expect(right, "not-an-instance", f"You returned {got!r}.", 'Return {"vms": {…}, "nodes": {…}}.')
    for what in ("vms", "nodes"):
        problem = sizes_problem(got[what], what)
        trial.expect(not problem, "not-an-instance", problem)
    trial.notes["instance"] = got


@counterexample.step("the packer places your VMs, and a lost node's VMs cannot restart")
def _broken(trial: Trial) -> None:
    judge_counterexample(trial, greedy_pack, **trial.notes["instance"])


def judge_counterexample(
    trial: Trial, packer: Callable[..., dict[str, str] | None], vms: Mapping[str, Any], nodes: Mapping[str, Any]
) -> None:
    """Run the packer on the student's instance and look for the loss that it did not foresee."""
    placement = packer(vms, nodes)
    if placement is None:
        trial.wrong(
            "refused",
            f"On your instance the packer returns None, it made no promise: {dict(vms)} on {dict(nodes)}.",
            "Ask for less, so that it dares.",
        )
    fatal = [node for node in nodes if refuge(vms, nodes, placement, node) is None]
    if not fatal:
        said = f"The packer chose {placement}, and every single loss is survived: no bug to be seen here."
        trial.wrong("survived", said, "Read its last loop again: what does it add up before it compares?")


# ── tco ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

tco = Exercise("tco")
EXAMPLE = {
    "services": 40, "services_per_host": 16, "spare_hosts": 2, "years": 3, "price_eur": 4000, "idle_watts": 100,
    "peak_watts": 300, "busy": 0.05, "eur_per_kwh": 0.2, "licence_eur_per_host_year": 500,
}  # fmt: skip


@tco.step("each part of the cost is right for a small company")
def _example(trial: Trial) -> None:
    judge_cost(trial, EXAMPLE)


@tco.step("one service per host and no spare is the company without virtualization")
def _physical(trial: Trial) -> None:
    judge_cost(trial, {**EXAMPLE, "services_per_host": 1, "spare_hosts": 0})


# ── share ────────────────────────────────────────────────────────────────────────────────────────────────────────────

share = Exercise("share", deadline_s=20.0)


def judge_share(
    trial: Trial, pids: Sequence[int], cpu: int, seconds: float = 0.3, blame: tuple[str, str] = ("", "")
) -> None:
    """Call the answer while we watch the processes ourselves; on a busy host, watch longer before rejecting a value.

    Args:
        trial: the running check.
        pids: processes that are there for this.
        cpu: where they have to run.
        seconds: how long, the first time.
        blame: misconception and next step, when the case leaves no doubt about them.
    """
    longer = (seconds, 1.2, 2.4)
    for duration in longer:
        before = [cpu_seconds(pid) for pid in pids]
        got = trial.call(list(pids), cpu, duration)
        used = [cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
        seen = {pid: part / (sum(used) or 1) for pid, part in zip(pids, used, strict=True)}
        _judge_shape(trial, pids, cpu, got, blame)
        worst = max(pids, key=lambda pid: abs(got[pid] - seen[pid]))
        if abs(got[worst] - seen[worst]) <= 0.12:
            return
        if duration == longer[-1] or _counts_from_the_start(got):
            _explain_share(trial, worst, got, seen, blame)


def _counts_from_the_start(got: Mapping[int, float]) -> bool:
    """Whether these parts are those of the processes' whole lives; longer watching would only hide it."""
    lives = {pid: cpu_seconds(pid) for pid in got}
    return all(math.isclose(got[pid], life / (sum(lives.values()) or 1), abs_tol=0.05) for pid, life in lives.items())


def _judge_shape(trial: Trial, pids: Sequence[int], cpu: int, got: Any, blame: tuple[str, str]) -> None:
    for pid in pids:
        allowed = os.sched_getaffinity(pid)
        trial.expect(
            allowed == {cpu},
            "not-pinned",
            f"After your function, process {pid} may run on CPUs {sorted(allowed)}; expected only {cpu}.",
            "Two neighbours who live in two houses do not disturb each other. Pin each of them to the one CPU.",
        )
    right = isinstance(got, dict) and set(got) == set(pids) and all(isinstance(v, int | float) for v in got.values())
    trial.expect(right, "not-a-dict", f"You returned {got!r}.", f"Return one number per pid of {list(pids)}.")
    total = sum(got.values())
    said = f"Your parts {got} add up to {total:.2f}; parts of one whole add up to 1."
    misconception, why = blame if blame[0] else ("not-a-share", "Divide what one used by what all used together.")
    trial.expect(abs(total - 1) < 0.02, misconception, said, why)


def _explain_share(
    trial: Trial, pid: int, got: Mapping[int, float], seen: Mapping[int, float], blame: tuple[str, str]
) -> None:
    said = f"Process {pid} used {seen[pid]:.0%} of the CPU time meanwhile; you returned {got[pid]:.0%}."
    if blame[0]:
        trial.wrong(blame[0], said, blame[1])
    if all(math.isclose(part, 1 / len(got), abs_tol=0.02) for part in got.values()):
        trial.wrong(
            "equal-split", said, "You gave everybody the same. Which file says how much CPU time each really got?"
        )
    if _counts_from_the_start(got):
        trial.wrong(
            "since-start", said, "The counters run since the process began. What did it use during your seconds?"
        )
    trial.wrong(
        "share-differs", said, "CPU time is user time and system time. Do you read both, from the right columns?"
    )


@share.step("two equal neighbours on one CPU get about half each")
def _equal(trial: Trial) -> None:
    with burners("user", "user") as pids:
        judge_share(trial, pids, min(os.sched_getaffinity(0)))


@share.step("a neighbour with less weight gets less")
def _nice(trial: Trial) -> None:
    with burners("user", "user", nice=[0, 10]) as pids:
        judge_share(trial, pids, min(os.sched_getaffinity(0)))
