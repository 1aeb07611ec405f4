"""Hidden checks of lesson 01: other machines, other clusters, other prices, and what the visible ones omit."""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from course.check import why_virtualize as visible
from course.check.answer import Outcome, call_each
from course.check.cost import expected_cost, judge_cost
from course.check.exercise import Exercise, Trial
from course.check.memory import judge_footprint, judge_overcommit, paused_vms
from course.check.placement import RESOURCES, free, refuge, unsurvived
from course.check.why_virtualize import NODES, judge_busy, judge_losses, judge_pack, judge_share, stat_text, vms_of
from course.load import burners, cpu_seconds, sharers

__all__ = ["counterexample", "cpu_busy", "fatal_losses", "footprint", "overcommit", "pack", "share", "tco"]

Sizes = Mapping[str, Mapping[str, int]]

# ── cpu_busy ─────────────────────────────────────────────────────────────────────────────────────────────────────────

cpu_busy = Exercise("cpu_busy", hidden=True, varies=True)


def _ticks(**later: int) -> tuple[dict[str, int], dict[str, int]]:
    """Two readings: some history, and the history plus what happened."""
    before = {"user": 4000, "nice": 300, "system": 900, "idle": 70_000, "iowait": 600, "irq": 20, "softirq": 30}
    before |= {"steal": 50, "guest": 1000, "guest_nice": 100}
    return before, {field: ticks + later.get(field, 0) for field, ticks in before.items()}


@cpu_busy.step("system, nice and interrupt time are work too")
def _kinds(trial: Trial) -> None:
    for field in ("system", "nice", "irq", "softirq"):
        before, after = _ticks(**{field: 30}, idle=70)
        why = f"The CPU was busy with {field} time. Which fields mean that it was idle? All others mean work."
        judge_busy(trial, stat_text({"cpu0": before}), stat_text({"cpu0": after}), {"cpu0": 30.0}, ("user-only", why))


@cpu_busy.step("time given to a guest is counted once")
def _guest(trial: Trial) -> None:
    before, after = _ticks(user=60, guest=60, nice=20, guest_nice=20, idle=20)
    why = "proc(5): guest is already inside user, and guest_nice inside nice. Adding all columns counts it twice."
    judge_busy(trial, stat_text({"cpu0": before}), stat_text({"cpu0": after}), {"cpu0": 80.0}, ("guest-twice", why))


@cpu_busy.step("stolen time is not idle time")
def _steal(trial: Trial) -> None:
    before, after = _ticks(user=10, steal=40, idle=50)
    why = "steal: this machine wanted the CPU, and its host gave it to another guest. It was not idle."
    judge_busy(trial, stat_text({"cpu0": before}), stat_text({"cpu0": after}), {"cpu0": 50.0}, ("steal-idle", why))


@cpu_busy.step("a counter that went backwards does no harm")
def _backwards(trial: Trial) -> None:
    before, after = _ticks(user=50, iowait=-40, idle=50)
    why = "proc(5) says that iowait may decrease. Count such a field as no time."
    judge_busy(trial, stat_text({"cpu0": before}), stat_text({"cpu0": after}), {"cpu0": 50.0}, ("went-backwards", why))


def _survives(trial: Trial, before: str, after: str, misconception: str, why: str) -> None:
    """Name the cause when an answer raises here, instead of the exception's name alone."""
    done = trial.attempt(before, after)
    said = f"cpu_busy raised {done.error}: {done.detail}"
    trial.expect(done.outcome is not Outcome.RAISED, misconception, said, why)


@cpu_busy.step("two readings of the same moment are 0 % busy")
def _no_time(trial: Trial) -> None:
    before, _ = _ticks()
    text = stat_text({"cpu0": before})
    why = "No tick has passed between the two readings. What do you divide by?"
    _survives(trial, text, text, "no-time", why)
    judge_busy(trial, text, text, {"cpu0": 0.0}, ("no-time", why))


@cpu_busy.step("a CPU that came or went is left out")
def _came_and_went(trial: Trial) -> None:
    before, after = _ticks(user=25, idle=75)
    first = stat_text({"cpu0": before, "cpu1": before})
    second = stat_text({"cpu0": after, "cpu2": after})
    why = "CPUs can be plugged and unplugged while a machine runs. Only what is in both texts can be compared."
    _survives(trial, first, second, "new-cpu", why)
    judge_busy(trial, first, second, {"cpu0": 25.0}, ("new-cpu", why))


@cpu_busy.step("older kernels with fewer columns are read as well")
def _columns(trial: Trial) -> None:
    for columns in (4, 7, 8):
        before, after = _ticks(user=30, idle=70)
        first, second = (stat_text({"cpu0": ticks}, columns) for ticks in (before, after))
        why = f"This kernel writes {columns} columns. A column that is not there is zero."
        _survives(trial, first, second, "columns", why)
        judge_busy(trial, first, second, {"cpu0": 30.0}, ("columns", why))


@cpu_busy.step("random readings of many CPUs come out right")
def _random(trial: Trial) -> None:
    for _ in range(20):
        numbers = trial.rng.sample(range(200), trial.rng.randrange(1, 9))
        pairs = {f"cpu{number}": _random_pair(trial.rng) for number in sorted(numbers)}
        first, second = (stat_text({cpu: pair[i] for cpu, pair in pairs.items()}) for i in (0, 1))
        expected = {cpu: _percent(*pair) for cpu, pair in pairs.items()}
        judge_busy(trial, first, second, expected, ("random", "Which field of this reading do you treat differently?"))


def _random_pair(rng: random.Random) -> tuple[dict[str, int], dict[str, int]]:
    spent = {field: rng.randrange(300) for field in visible.FIELDS}
    spent["guest"], spent["guest_nice"] = rng.randrange(spent["user"] + 1), rng.randrange(spent["nice"] + 1)
    before = {field: rng.randrange(10**9) for field in visible.FIELDS}
    return before, {field: before[field] + ticks for field, ticks in spent.items()}


def _percent(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    spent = {field: after[field] - before[field] for field in visible.FIELDS if not field.startswith("guest")}
    return 100 * (1 - (spent["idle"] + spent["iowait"]) / sum(spent.values()))


# ── footprint, overcommit ────────────────────────────────────────────────────────────────────────────────────────────

footprint = Exercise("footprint", hidden=True)
overcommit = Exercise("overcommit", hidden=True, varies=True)


@footprint.step("pages that processes share are divided among them")
def _shared(trial: Trial) -> None:
    with sharers(trial.rng.randrange(2, 5), 24) as pids:
        judge_footprint(trial, trial.rng.choice(pids))


@footprint.step("other VMs are weighed as well")
def _others(trial: Trial) -> None:
    sizes = trial.rng.sample(range(40, 4000, 8), 2)
    with paused_vms(*sizes) as vms:
        for vm in reversed(vms):
            judge_footprint(trial, vm["pid"], vm["ram_mib"])


@overcommit.step("a small process that was promised much does not outweigh a large one")
def _weights(trial: Trial) -> None:
    with burners("sleep") as (small,), sharers(1, 60) as (large,):
        much, little = trial.rng.randrange(1000, 4000), trial.rng.randrange(40, 100)
        judge_overcommit(trial, [{"pid": small, "ram_mib": much}, {"pid": large, "ram_mib": little}])


@overcommit.step("other VMs, and only those that are named")
def _named(trial: Trial) -> None:
    with paused_vms(*trial.rng.sample(range(128, 3000, 8), 3)) as vms:
        judge_overcommit(trial, trial.rng.sample(vms, 2))
        judge_overcommit(trial, vms[:1])


# ── fatal_losses, pack ───────────────────────────────────────────────────────────────────────────────────────────────

fatal_losses = Exercise("fatal_losses", hidden=True, varies=True)
pack = Exercise("pack", hidden=True, deadline_s=20.0)


def _rooms(franklin: int, trevor: int, michael: int) -> dict[str, dict[str, int]]:
    gib = {"franklin": franklin, "trevor": trevor, "michael": michael}
    return {name: {"cores": 8, "ram_mib": 1024 * size} for name, size in gib.items()}


@fatal_losses.step("what still runs is not moved")
def _not_moved(trial: Trial) -> None:
    # 8+4+4 GiB and 6+6 GiB would fill the survivors exactly, if their VMs changed places.
    vms = vms_of((1, 8), (1, 6), (1, 6), (1, 4), (1, 4))
    placement = {"web": "franklin", "db": "trevor", "mail": "michael", "files": "trevor", "build": "michael"}
    why = "You would have to move VMs that run on the surviving nodes. They stay where they are."
    judge_losses(trial, vms, _rooms(16, 16, 12), placement, ("moves-others", why))


@fatal_losses.step("every way to restart the lost VMs is tried")
def _every_way(trial: Trial) -> None:
    why = "Your first try did not fit. That one order of placing them fails does not mean that every order does."
    at = dict.fromkeys(("web", "db", "mail", "files"), "franklin")
    others = {"build": "trevor", "wiki": "michael"}
    cases = [
        # In the order given; largest first on the first or the emptiest node; largest first on the fullest node.
        (vms_of((1, 2), (1, 1), (1, 4), (1, 1), (1, 11), (1, 13)), _rooms(16, 16, 16)),
        (vms_of((1, 4), (1, 3), (1, 5), (1, 1), (1, 9), (1, 10)), _rooms(16, 16, 16)),
        (vms_of((1, 7), (1, 5), (1, 3), (1, 3), (1, 6), (1, 8)), _rooms(24, 16, 16)),
    ]
    for vms, nodes in cases:
        judge_losses(trial, vms, nodes, {**at, **others}, ("first-fit", why))


@fatal_losses.step("random clusters come out right")
def _random_losses(trial: Trial) -> None:
    for _ in range(60):
        vms, nodes = random_instance(trial.rng)
        placement = {vm: trial.rng.choice(list(nodes)) for vm in vms}
        if any(room[r] < 0 for room in free(vms, nodes, placement).values() for r in RESOURCES):
            continue
        judge_losses(trial, vms, nodes, placement, ("random", "Draw this cluster on paper."))


def random_instance(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two to five VMs and two to four nodes, about half of them with a good placement."""
    names = rng.sample(["franklin", "trevor", "michael", "lamar", "lester"], rng.choice([2, 3, 3, 4]))
    nodes = {name: {"cores": rng.choice([4, 8]), "ram_mib": 1024 * rng.choice([8, 16, 16, 24])} for name in names}
    count, share = rng.randrange(2, 6), rng.uniform(0.4, 1.1) * (1 - 1 / len(nodes))
    mean = share * sum(node["ram_mib"] for node in nodes.values()) / count / 1024
    gib = [max(1, round(rng.uniform(0.5, 1.5) * mean)) for _ in range(count)]
    return vms_of(*((rng.randrange(1, 4), size) for size in gib)), nodes


def exact(vms: Sizes, nodes: Sizes) -> dict[str, str] | None:
    """Search all placements: the oracle. Largest VM first; a branch ends where a node would be overloaded."""
    order = sorted(vms, key=lambda vm: -vms[vm]["ram_mib"])

    def extend(placement: dict[str, str]) -> dict[str, str] | None:
        if len(placement) == len(order):
            return None if unsurvived(vms, nodes, placement) else placement
        vm = order[len(placement)]
        left = free(vms, nodes, placement)
        for node in nodes:
            if all(left[node][r] >= vms[vm][r] for r in RESOURCES) and (found := extend({**placement, vm: node})):
                return found
        return None

    return extend({})


def _answers(trial: Trial, cases: Sequence[tuple[Sizes, Sizes]]) -> Iterator[Any]:
    """The answer's values for all cases, from one child; one child each when that does not work."""
    done = call_each(trial.answer, copy.deepcopy(cases))
    if done.end is Outcome.RETURNED and all(one.outcome is Outcome.RETURNED for one in done.calls):
        yield from (one.value for one in done.calls)
    else:
        yield from (trial.call(*case, none_is_an_answer=True) for case in cases)


@pack.step("names and sizes of nodes are those that are given")
def _other_nodes(trial: Trial) -> None:
    for names, ram in ((["lamar", "lester"], [16, 16]), (["a", "b", "c", "d"], [8, 24, 8, 16])):
        nodes = {name: {"cores": 8, "ram_mib": gib * 1024} for name, gib in zip(names, ram, strict=True)}
        vms = vms_of((1, 4), (2, 6))
        judge_pack(trial, vms, nodes, trial.call(vms, nodes, none_is_an_answer=True), feasible=True)


@pack.step("room in total is not enough: each lost VM needs one node with room")
def _fragments(trial: Trial) -> None:
    vms = vms_of((1, 10), (1, 10), (1, 10))
    judge_pack(trial, vms, NODES, trial.call(vms, NODES, none_is_an_answer=True), feasible=False)


@pack.step("a tight but possible cluster is not given up")
def _tight(trial: Trial) -> None:
    vms, nodes = vms_of((2, 5), (2, 10), (2, 9), (2, 3)), _rooms(16, 16, 12)
    judge_pack(trial, vms, nodes, trial.call(vms, nodes, none_is_an_answer=True), feasible=True)


@pack.step("two hundred random clusters are placed, or found impossible, rightly")
def _random_packs(trial: Trial) -> None:
    cases = [random_instance(trial.rng) for _ in range(200)]
    for case, got in zip(cases, _answers(trial, cases), strict=True):
        judge_pack(trial, *case, got, feasible=exact(*case) is not None)


# ── the bug hunt ─────────────────────────────────────────────────────────────────────────────────────────────────────

counterexample = Exercise("counterexample", hidden=True)


@counterexample.step("your instance breaks the packer, run by the grader")
def _broken(trial: Trial) -> None:
    got = trial.call()
    right = isinstance(got, dict) and {"vms", "nodes"} == set(got)
    trial.expect(right, "not-an-instance", f"You returned {got!r}.")
    placement = visible.greedy_pack(**copy.deepcopy(got))
    trial.expect(placement is not None, "refused", "The packer returns None on your instance.")
    broken = any(refuge(got["vms"], got["nodes"], placement or {}, lost) is None for lost in got["nodes"])
    trial.expect(broken, "survived", f"The packer chose {placement}, and every single loss is survived.")


# ── tco ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

tco = Exercise("tco", hidden=True, varies=True)


def _random_params(rng: random.Random) -> dict[str, float]:
    return {
        "services": rng.randrange(2, 200),
        "services_per_host": rng.randrange(2, 30),
        "spare_hosts": rng.randrange(3),
        "years": rng.randrange(1, 8),
        "price_eur": rng.randrange(500, 9000),
        "idle_watts": rng.randrange(20, 150),
        "peak_watts": rng.randrange(160, 600),
        "busy": round(rng.uniform(0.01, 0.6), 3),
        "eur_per_kwh": round(rng.uniform(0.05, 0.6), 3),
        "licence_eur_per_host_year": rng.randrange(0, 2000),
    }


@tco.step("twice the price of a kWh doubles the energy and nothing else")
def _price(trial: Trial) -> None:
    params = _random_params(trial.rng)
    once = judge_cost(trial, params)
    twice = judge_cost(trial, {**params, "eur_per_kwh": 2 * params["eur_per_kwh"]})
    held = math.isclose(twice["energy_eur"], 2 * once["energy_eur"], rel_tol=1e-6)
    trial.expect(held and twice["hardware_eur"] == once["hardware_eur"], "price", f"Before {once}, after {twice}.")


@tco.step("hosts that draw no power cost no energy")
def _no_power(trial: Trial) -> None:
    judge_cost(trial, {**_random_params(trial.rng), "idle_watts": 0, "peak_watts": 0})


@tco.step("random companies come out right")
def _companies(trial: Trial) -> None:
    for _ in range(20):
        judge_cost(trial, _random_params(trial.rng))


@tco.step("virtualization begins to pay at the right number of services")
def _break_even(trial: Trial) -> None:
    params = _random_params(trial.rng) | {"services_per_host": trial.rng.randrange(3, 9), "spare_hosts": 1}
    ours = theirs = 0
    for services in range(1, 12):
        virtual, physical = (
            {**params, "services": services, **way} for way in ({}, {"services_per_host": 1, "spare_hosts": 0})
        )
        ours = ours or services * (expected_cost(virtual)["total_eur"] < expected_cost(physical)["total_eur"])
        costs = [judge_cost(trial, way)["total_eur"] for way in (virtual, physical)]
        theirs = theirs or services * (costs[0] < costs[1])
    trial.expect(ours == theirs, "break-even", f"With your numbers it pays from {theirs} services on; expected {ours}.")


# ── share ────────────────────────────────────────────────────────────────────────────────────────────────────────────

share = Exercise("share", hidden=True, deadline_s=20.0)


@share.step("what happened before your seconds does not count")
def _history(trial: Trial) -> None:
    with burners("user") as (old,):
        visible.wait_until(lambda: cpu_seconds(old) > 0.5)
        with burners("user") as (new,):
            judge_share(trial, [new, old], max(os.sched_getaffinity(0)), 0.3)


@share.step("a process may have any name")
def _names(trial: Trial) -> None:
    why = 'One process is named "a) R 1 (b". In /proc/PID/stat the name ends at the last parenthesis, not at a space.'
    with burners("user", "sleep", names=["a) R 1 (b", "web server"]) as pids:
        judge_share(trial, pids, max(os.sched_getaffinity(0)), 0.3, ("name-with-spaces", why))


@share.step("time in the kernel is CPU time too")
def _kernel(trial: Trial) -> None:
    with burners("system", "user") as pids:
        judge_share(trial, pids, min(os.sched_getaffinity(0)), 0.3)


@share.step("three neighbours, one of them asleep")
def _asleep(trial: Trial) -> None:
    with burners("user", "sleep", "user") as pids:
        judge_share(trial, trial.rng.sample(pids, 3), max(os.sched_getaffinity(0)), 0.3)
