"""Visible checks of lesson 4, *Containers*; the judgements are in `container_boxes` and `container_data`."""

from __future__ import annotations

from ..container import Laboratory, Starts, boxes
from .container_boxes import judge_contain, judge_limit, judge_steal
from .container_data import (
    Stack,
    invented,
    judge_groups,
    judge_measure,
    judge_merge,
    judge_shares,
    merged_by_kernel,
    recorded,
)
from .exercise import Exercise, Trial

# ── shares_kernel ────────────────────────────────────────────────────────────────────────────────────────────────────

shares_kernel = Exercise("shares_kernel", deadline_s=4.0)

_HOST = {
    "boot_id": "5a1f0e0a-6f0e-4a53-9a63-0e5f4d1c7b11\n",
    "release": "6.1.0-31-amd64\n",
    "version": "Linux version 6.1.0-31-amd64 (gcc 12.2.0) #1 SMP Debian\n",
    "uptime": "86400.20 99999.10\n",
    "hostname": "franklin\n",
    "os_release": "ID=debian\n",
}


@shares_kernel.step("a container with another name or another distribution runs on its host's kernel")
def _shares_container(trial: Trial) -> None:
    named = {**_HOST, "hostname": "web\n"}
    judge_shares(trial, _HOST, named, same=True, why="b is a container on a, with a name of its own.")
    alpine = {**_HOST, "os_release": "ID=alpine\n"}
    judge_shares(trial, _HOST, alpine, same=True, why="b is a container on a, made from an image of Alpine Linux.")


@shares_kernel.step("a machine that has booted by itself has a kernel of its own")
def _shares_machine(trial: Trial) -> None:
    machine = {**_HOST, "boot_id": "0b8bd7a0-18ce-4a4a-8d4a-3b2f7c4f2e90\n", "hostname": "vm\n", "uptime": "3.12 1.9\n"}
    machine |= {"release": "6.8.0-40-generic\n", "version": "Linux version 6.8.0-40-generic #40 Ubuntu\n"}
    judge_shares(trial, _HOST, machine, same=False, why="b is a virtual machine on a.")


@shares_kernel.step("two machines with the same release and the same name are two kernels, as in the worked example")
def _shares_copy(trial: Trial) -> None:
    copy = {**_HOST, "boot_id": "0b8bd7a0-18ce-4a4a-8d4a-3b2f7c4f2e90\n", "uptime": "3.12 1.90\n"}
    judge_shares(trial, _HOST, copy, same=False, why="b is a machine made as a copy of a.")


@shares_kernel.step("a newline at the end of a text makes no difference")
def _shares_newline(trial: Trial) -> None:
    bare = {**_HOST, "boot_id": _HOST["boot_id"].strip()}
    judge_shares(trial, _HOST, bare, same=True, why="b is a container on a; its boot_id was read without the newline.")


# ── contain ──────────────────────────────────────────────────────────────────────────────────────────────────────────

contain = Exercise("contain")


@contain.step("the program has a PID 1, a name, a network, mounts and a root user of its own; the host has not changed")
def _contained(trial: Trial) -> None:
    with Laboratory() as lab:
        judge_contain(trial, lab, f"box{trial.rng.randrange(1000)}")


# ── same_container ───────────────────────────────────────────────────────────────────────────────────────────────────

same_container = Exercise("same_container", deadline_s=4.0)


@same_container.step("two containers and their host are told apart")
def _two_containers(trial: Trial) -> None:
    plan = [
        {"in": name, "cgroup": f"/{name}", "comm": f"program{number}"}
        for number, name in enumerate(("host", "web", "db", "web", "host", "db", "db"))
    ]
    judge_groups(trial, invented(trial.rng, plan), "Seven processes: two in web, three in db, two of the host.")


@same_container.step("so are those of a real guest")
def _real_containers(trial: Trial) -> None:
    judge_groups(trial, recorded(), "A real guest: two containers called box, and a third in the network of the first.")


# ── steal ────────────────────────────────────────────────────────────────────────────────────────────────────────────

steal = Exercise("steal", deadline_s=4.0)


@steal.step("each missing namespace gives away what it guards")
def _stolen(trial: Trial) -> None:
    secrets = {kind: f"{trial.rng.getrandbits(64):016x}" for kind in boxes.GUARDED}
    with Laboratory() as lab:
        boxes.hide(lab, secrets)
        for missing in boxes.GUARDED:
            judge_steal(trial, lab, missing, secrets)


# ── merge ────────────────────────────────────────────────────────────────────────────────────────────────────────────

merge = Exercise("merge", deadline_s=4.0)

_TREES: dict[str, tuple[str, str, Stack]] = {
    "what two layers have is there, and the upper one wins": (
        "order",
        "Which of two files with the same path do you see: that of the lower or that of the upper layer?",
        [{"a": b"lower", "b": b"only lower"}, {"a": b"upper", "c": b"only upper"}],
    ),
    "folders of the same path are merged": (
        "folders-replaced",
        "Two folders do not replace each other, their contents are put together.",
        [{"etc": None, "etc/hosts": b"1"}, {"etc": None, "etc/motd": b"2", "var": None}],
    ),
    "a whiteout removes a file of the layers below": (
        "whiteout-ignored",
        "`.wh.name` says: name is gone.",
        [{"a": b"1", "b": b"2"}, {".wh.a": b""}],
    ),
    "a whiteout removes a whole folder": (
        "whiteout-leaves-content",
        "What is in a folder that is no longer there?",
        [{"d": None, "d/x": b"1", "d/e": None, "d/e/y": b"2"}, {".wh.d": b""}],
    ),
    "an opaque folder hides what the layers below have in it": (
        "opaque-ignored",
        "`.wh..wh..opq` says: nothing below this folder comes from lower layers.",
        [{"d": None, "d/x": b"1", "d/e": None, "d/e/y": b"2"}, {"d": None, "d/.wh..wh..opq": b"", "d/new": b"3"}],
    ),
}


def _add_merge_step(sentence: str, misconception: str, hint: str, stack: Stack) -> None:
    @merge.step(sentence)
    def _merge_step(trial: Trial) -> None:
        stacks = [stack for _, _, stack in _TREES.values()]
        expected = dict(zip(_TREES, merged_by_kernel(stacks), strict=True))
        judge_merge(trial, stack, expected[sentence], misconception, hint)


for _sentence, (_misconception, _hint, _stack) in _TREES.items():
    _add_merge_step(_sentence, _misconception, _hint, _stack)

# ── limit ────────────────────────────────────────────────────────────────────────────────────────────────────────────

limit = Exercise("limit")


@limit.step("the program runs under the three limits, and nothing is left of the group")
def _limited(trial: Trial) -> None:
    with Laboratory() as lab:
        judge_limit(trial, lab, trial.rng.randrange(10, 60), trial.rng.randrange(10, 90), trial.rng.randrange(8, 40))


# ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────────

measure = Exercise("measure", deadline_s=60.0)


@measure.step("every sample is the time until READY, with the words of its own start")
def _measured(trial: Trial) -> None:
    with Starts.simulated(seed=trial.seed) as lab:
        judge_measure(trial, lab, 5)
