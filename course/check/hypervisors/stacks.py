"""Judgements on `place`: where the pieces of a virtualization product run, derived from what was observed.

A stack is plain data: its parts, and a record of what happened while two virtual machines ran::

    {"parts":  [{"name", "loaded_by", "mode", "address_space", "runs_programs"}, …],
     "record": [("vmexit", "to"), ("vcpu switched", "by"), ("device programmed", "by"), …]}

Source: Goldberg, "Architectural Principles for Virtual Computer Systems", 1973, chapter 2 (types I and II); the
products' own architecture documents, named in the lesson.
"""

from __future__ import annotations

import random
from typing import Any

from ..exercise import Trial

FIRMWARE = "firmware"
KEYS = ("exits", "scheduler", "drivers", "host", "type")
Part = dict[str, Any]
Stack = dict[str, Any]


def part(name: str, loaded_by: str, mode: str, space: str = "", *, programs: bool = False) -> Part:
    """Describe one part.

    Args:
        name: of the part.
        loaded_by: who put it into memory; `FIRMWARE` for the first.
        mode: ``"root 0"``, ``"root 3"``, ``"guest 0"`` or ``"guest 3"``: the side of vmenter, and the ring.
        space: whose address space it is in; its own by default.
        programs: whether ordinary programs run on it.
    """
    return {
        "name": name,
        "loaded_by": loaded_by,
        "mode": mode,
        "address_space": space or name,
        "runs_programs": programs,
    }


def record(
    rng: random.Random, exits: str, scheduler: str, drivers: str, noise: list[tuple[str, str]]
) -> list[list[str]]:
    """Make a record of what happened, in a random order."""
    events = [["vmexit", exits]] * rng.randrange(5, 9) + [["vcpu switched", scheduler]] * rng.randrange(3, 6)
    events += [["device programmed", drivers]] * rng.randrange(3, 6) + [list(event) for event in noise]
    rng.shuffle(events)
    return events


_KINDS = ("monolith", "service guest", "other world", "module", "module")


def stacks(rng: random.Random) -> list[Stack]:
    """Make one stack of each kind, with names that say nothing."""
    made = []
    for kind in _KINDS:
        fresh = rng.sample([a + b for a in ("bo", "cu", "de", "fi", "gu") for b in ("lan", "rix", "mir", "tas")], 6)
        made.append(build(kind, fresh, rng))
    rng.shuffle(made)
    return made


def build(kind: str, names: list[str], rng: random.Random) -> Stack:
    """Make a stack.

    Args:
        kind: ``"monolith"`` (such as ESXi), ``"service guest"`` (Xen, Hyper-V), ``"module"`` (KVM, VirtualBox),
            ``"other world"`` (VMware Workstation).
        names: of kernel, monitor, guest kernel, guest's program, process of the machine, driver.
        rng: shuffles.
    """
    kernel, monitor, guest, program, process, _ = names
    inside = [part(guest, process, "guest 0"), part(program, guest, "guest 3")]
    first = monitor if kind == "service guest" else kernel
    noise = [("interrupt arrived", first), ("virtual device programmed", guest), ("page fault", guest)]
    noise += [("device emulated", process), ("system call", kernel)]
    if kind == "monolith":
        parts = [part(kernel, FIRMWARE, "root 0"), part(process, kernel, "root 3"), *inside]
        events = record(rng, kernel, kernel, kernel, noise)
    elif kind == "service guest":
        parts = [part(monitor, FIRMWARE, "root 0"), part(kernel, monitor, "guest 0", programs=True)]
        parts += [part(process, kernel, "guest 3"), *inside]
        events = record(rng, monitor, monitor, kernel, noise)
    elif kind == "module":
        parts = [part(kernel, FIRMWARE, "root 0", programs=True), part(monitor, kernel, "root 0", kernel)]
        parts += [part(process, kernel, "root 3"), *inside]
        events = record(rng, monitor, kernel, kernel, noise)
    else:
        parts = [part(kernel, FIRMWARE, "root 0", programs=True), part(process, kernel, "root 3")]
        parts += [part(monitor, process, "root 0"), *inside]
        events = record(rng, monitor, kernel, kernel, noise)
    rng.shuffle(parts)
    return {"parts": parts, "record": events}


def _facts(stack: Stack) -> dict[str, str]:
    found = dict(stack["record"])
    return {"exits": found["vmexit"], "scheduler": found["vcpu switched"], "drivers": found["device programmed"]}


def accepted(stack: Stack) -> list[tuple[str | None, int]]:
    """Pairs of host and type that the evidence supports: a module of the first kernel supports two."""
    parts = {part["name"]: part for part in stack["parts"]}
    taker = parts[_facts(stack)["exits"]]
    if taker["loaded_by"] == FIRMWARE:
        return [(None, 1)]
    below = taker
    while below["loaded_by"] != FIRMWARE:
        below = parts[below["loaded_by"]]
    labels: list[tuple[str | None, int]] = [(below["name"], 2)]
    if taker["address_space"] == below["name"]:
        labels.append((None, 1))
    return labels


def judge_place(trial: Trial, stack: Stack) -> None:
    """Let the answer read a stack's evidence."""
    got = trial.call(stack)
    trial.expect(isinstance(got, dict), "not-a-dict", f"place returned {type(got).__name__}, expected a dict.")
    missing = [key for key in KEYS if key not in got]
    trial.expect(not missing, "incomplete", f"The result says nothing about {', '.join(missing)}.")
    shown = _shown(stack)
    questions = {
        "exits": "Where does the processor go when a guest traps? The record says it at each vmexit.",
        "scheduler": "Who decided which virtual CPU runs next?",
        "drivers": "Who programmed the devices? It need not be the one that takes the exits.",
    }
    for key, expected in _facts(stack).items():
        trial.expect(
            got[key] == expected,
            f"wrong-{key}",
            f"{shown}\n{key}: {got[key]!r}, expected {expected!r}.",
            questions[key],
        )
    labels = accepted(stack)
    host, label = got["host"], got["type"]
    if (host, label) in labels:
        return
    told = f"{shown}\nhost {host!r} and type {label!r}"
    if label not in (1, 2) or (host is None) != (label == 1):
        trial.wrong(
            "argument-does-not-fit",
            f"{told} contradict each other: type 2 has a host below it, type 1 has none.",
            "Decide about the host first; the type follows.",
        )
    parts = {part["name"]: part for part in stack["parts"]}
    if host is not None and host not in parts:
        trial.wrong("no-such-part", f"{told}: no part has that name.", "A host is one of the parts.")
    if host is not None and parts[host]["mode"].startswith("guest"):
        hint = "Ordinary programs and drivers live there, but on which side of vmenter does it run?"
        trial.wrong("a-guest-is-no-host", f"{told}: but {host!r} itself runs in mode {parts[host]['mode']!r}.", hint)
    if label == 1:
        taker, below = got["exits"], labels[0][0]
        trial.wrong(
            "ring-0-is-not-first",
            f"{told}: {taker!r} does run in {parts[taker]['mode']!r}, but {below!r} was there before it, and it is"
            " no part of it (look at the address spaces).",
            "Being in ring 0 is not being first. Who put this part into memory?",
        )
    trial.wrong(
        "another-host",
        f"{told}: expected {' or '.join(f'host {h!r}, type {t}' for h, t in labels)}.",
        "Follow loaded_by downwards, beginning with the part that takes the exits.",
    )


def _shown(stack: Stack) -> str:
    rows = (f"{p['name']}: {p['mode']}, loaded by {p['loaded_by']}, in {p['address_space']}" for p in stack["parts"])
    return "\n  ".join(["In the stack", *sorted(rows)])
