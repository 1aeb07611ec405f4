"""Hidden checks of lesson 4, *Containers*."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from course.check import Exercise, Trial
from course.check.container_boxes import judge_contain, judge_exit, judge_hog, judge_limit, judge_steal
from course.check.container_data import (
    Stack,
    invented,
    judge_groups,
    judge_measure,
    judge_merge,
    judge_shares,
    merged_by_kernel,
    random_stack,
)
from course.container import Laboratory, Starts, boxes

shares_kernel = Exercise("shares_kernel", hidden=True, deadline_s=4.0)
contain = Exercise("contain", hidden=True)
same_container = Exercise("same_container", hidden=True, deadline_s=4.0)
steal = Exercise("steal", hidden=True, deadline_s=4.0)
merge = Exercise("merge", hidden=True, deadline_s=4.0)
limit = Exercise("limit", hidden=True)
measure = Exercise("measure", hidden=True, deadline_s=60.0)


# ── shares_kernel ────────────────────────────────────────────────────────────────────────────────────────────────────


@shares_kernel.step("two machines made alike are two kernels; one kernel seen through a time namespace is one")
def _alike(trial: Trial) -> None:
    def drawn() -> str:
        return f"{uuid.UUID(int=trial.rng.getrandbits(128), version=4)}\n"

    release = f"6.{trial.rng.randrange(1, 12)}.0-{trial.rng.randrange(9, 60)}-cloud-amd64"
    node = {
        "boot_id": drawn(),
        "release": release + "\n",
        "version": f"Linux version {release} (gcc 12.2.0) #1 SMP\n",
        "uptime": f"{trial.rng.randrange(100, 9999)}.50 50.00\n",
        "hostname": "trevor\n",
        "os_release": "ID=debian\n",
    }
    twin = {**node, "boot_id": drawn()}
    judge_shares(trial, node, {**twin, "uptime": "12.00 3.00\n"}, same=False, why="Two machines cloned from one image.")
    judge_shares(trial, node, twin, same=False, why="Two machines made alike, asked at the same uptime.")
    shifted = {**node, "uptime": "99999.00 1.00\n"}
    judge_shares(trial, node, shifted, same=True, why="b is a container on a in a time namespace.")
    bare = {**node, "boot_id": node["boot_id"].strip()}
    judge_shares(trial, node, bare, same=True, why="b is a container on a; its boot_id came without the newline.")
    judge_shares(trial, node, {**node, "os_release": ""}, same=True, why="b is a container without /etc/os-release.")


# ── contain ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contain.step("another name; blanks, quotes and $ in argv; the exit code; nothing left behind")
def _contained(trial: Trial) -> None:
    with Laboratory() as lab:
        judge_contain(trial, lab, f"ct-{trial.rng.getrandbits(40):x}")
        code = trial.rng.randrange(2, 120)
        odd = ["two words", "it's", '"quoted"', "$HOME", "*", "a;b", "back\\slash"]
        trial.rng.shuffle(odd)
        program = f'sleep 45678 >/dev/null 2>&1 & for word; do echo "[$word]"; done; exit {code}'
        judge_exit(trial, lab, ["sh", "-c", program, "sh", *odd], code, [f"[{word}]" for word in odd])


# ── same_container ───────────────────────────────────────────────────────────────────────────────────────────────────


@same_container.step("one different namespace is enough, whatever else is shared")
def _mixed(trial: Trial) -> None:
    def check(plan: Sequence[Mapping[str, Any]], what: str) -> None:
        judge_groups(trial, invented(trial.rng, plan), what)

    pod = {"net": "pod", "ipc": "pod", "uts": "pod"}
    members: list[Mapping[str, Any]] = [
        {"in": name, "shares": pod, "hostname": "pod"} for name in ("web", "log", "web")
    ]
    check([*members, {"in": "host"}], "A pod: web and log share network, IPC and name.")
    beside: list[Mapping[str, Any]] = [
        {"in": "app"},
        {"in": "help", "shares": {"pid": "app", "net": "app"}, "hostname": "app"},
        {"in": "app"},
    ]
    check([*beside, {"in": "host"}], "A helper container that shares the PIDs and the network of another.")
    twins = [{"in": name, "hostname": "box", "cgroup": "/"} for name in ("a", "b", "a", "b", "host")]
    check(twins, "Two containers with the same name in the same cgroup.")
    plain_host = dict.fromkeys(("cgroup", "ipc", "mnt", "net", "pid", "time", "user"), "host")
    check(
        [{"in": "named", "shares": plain_host, "hostname": "named"}, {"in": "host"}, {"in": "host"}],
        "One process differs from its host in the UTS namespace alone.",
    )
    shared = dict.fromkeys(("ipc", "net", "pid", "time", "user", "uts"), "a")
    check(
        [{"in": "a"}, {"in": "b", "shares": shared, "hostname": "a"}, {"in": "a"}],
        "Two containers that differ in the mount namespace alone.",
    )


@same_container.step("where children will be does not count")
def _forks(trial: Trial) -> None:
    plan: list[Mapping[str, Any]] = [
        {"in": "host"},
        {"in": "host", "forks": True, "comm": "unshare"},
        {"in": "ct", "comm": "init"},
    ]
    judge_groups(trial, invented(trial.rng, plan), "unshare has made a PID namespace for its children, and waits.")
    plan = [{"in": trial.rng.choice(("host", "a", "b", "c")), "cgroup": f"/{i % 3}"} for i in range(60)]
    judge_groups(trial, invented(trial.rng, plan), "Sixty processes in up to four places.")


# ── steal ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@steal.step("other secrets are given away as well")
def _stolen(trial: Trial) -> None:
    secrets = {kind: f"{trial.rng.getrandbits(64):016x}" for kind in boxes.GUARDED}
    with Laboratory() as lab:
        boxes.hide(lab, secrets)
        for missing in trial.rng.sample(boxes.GUARDED, 2):
            judge_steal(trial, lab, missing, secrets)


# ── merge ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_HIDDEN: list[tuple[str, str, Stack]] = [
    (
        "file-over-folder",
        "An upper file takes the place of a whole folder.",
        [{"d": None, "d/x": b"1", "d/e": None}, {"d": b"now a file"}],
    ),
    ("folder-over-file", "An upper folder takes the place of a file.", [{"d": b"1"}, {"d": None, "d/x": b"2"}]),
    (
        "file-between",
        "A file in the middle ends the search: what lies below it is gone for good.",
        [{"d": None, "d/old": b"1"}, {"d": b"file"}, {"d": None, "d/new": b"2"}],
    ),
    (
        "whiteout-of-layers-above",
        "A whiteout says nothing about the layers above it.",
        [{"f": b"1"}, {".wh.f": b""}, {"f": b"2"}],
    ),
    (
        "gone-for-good",
        "Made anew after it was removed, a folder begins empty.",
        [{"d": None, "d/old": b"1"}, {".wh.d": b""}, {"d": None, "d/new": b"2"}],
    ),
    (
        "whiteout-of-own-layer",
        "A whiteout speaks of the layers below, not of its own layer.",
        [{"d": None, "d/old": b"1", "f": b"0"}, {"d": None, ".wh.d": b"", "d/new": b"2", "f": b"3", ".wh.f": b""}],
    ),
    (
        "opaque-of-own-layer",
        "Opaque speaks of the layers below, in whatever order the layer lists its entries.",
        [{"d": None, "d/old": b"1"}, {"d": None, "d/aa": b"2", "d/.wh..wh..opq": b"", "d/zz": b"3"}],
    ),
    (
        "prefix-is-not-a-folder",
        "'ab' begins with 'a', but does not lie in it.",
        [{"a": None, "a/x": b"1", "ab": None, "ab/x": b"2", "a.b": b"3"}, {".wh.a": b""}],
    ),
    ("single-layer", "One layer, or a whiteout of nothing.", [{"a": b"1", ".wh.nothing": b""}]),
    ("no-layers", "No layers make an empty tree.", []),
]


@merge.step("files and folders replace each other; instructions speak of the layers below only")
def _corners(trial: Trial) -> None:
    for (misconception, hint, stack), expected in zip(
        _HIDDEN, merged_by_kernel([s for _, _, s in _HIDDEN]), strict=True
    ):
        judge_merge(trial, [dict(layer) for layer in stack], expected, misconception, hint)


@merge.step("on random layers the result is that of the kernel's overlayfs")
def _random(trial: Trial) -> None:
    stacks = [random_stack(trial.rng) for _ in range(25)]
    for stack, expected in zip(stacks, merged_by_kernel(stacks), strict=True):
        judge_merge(trial, stack, expected, "differs-from-overlayfs", "Follow one path through the layers, top down.")


# ── limit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@limit.step("other limits hold as well; a hog dies, a well-behaved program does not")
def _limited(trial: Trial) -> None:
    memory = trial.rng.randrange(8, 14)
    with Laboratory() as lab:
        judge_limit(trial, lab, memory, trial.rng.randrange(5, 100), trial.rng.randrange(5, 30))
        judge_hog(trial, lab, memory)


# ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@measure.step("in another laboratory, with another number of runs")
def _measured(trial: Trial) -> None:
    with Starts.simulated(seed=trial.rng.getrandbits(20), scale=trial.rng.uniform(0.6, 1.5)) as lab:
        judge_measure(trial, lab, trial.rng.randrange(6, 9))


@measure.step("in a real guest, with real machines beside it")
def _real(trial: Trial) -> None:
    with Starts.real() as lab:
        judge_measure(trial, lab, 5, ordered=False)
