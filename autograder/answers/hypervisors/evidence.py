"""Answers to `place` and `identify`."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from pathlib import Path

from autograder.answers import alternative, mutant

# ── place ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _facts(stack):
    seen = dict(map(tuple, stack["record"]))
    return {"exits": seen["vmexit"], "scheduler": seen["vcpu switched"], "drivers": seen["device programmed"]}


def _parts(stack):
    return {part["name"]: part for part in stack["parts"]}


def _answer(facts, host):
    return {**facts, "host": host, "type": 1 if host is None else 2}


def _bottom(parts, name):
    while parts[name]["loaded_by"] != "firmware":
        name = parts[name]["loaded_by"]
    return name


@alternative("place")
def follow_the_loaders(stack):
    facts = _facts(stack)
    first = _bottom(_parts(stack), facts["exits"])
    return _answer(facts, None if first == facts["exits"] else first)


@alternative("place")
def a_module_is_the_kernel(stack):
    facts, parts = _facts(stack), _parts(stack)
    first = _bottom(parts, facts["exits"])
    return _answer(facts, None if parts[facts["exits"]]["address_space"] == first else first)


@alternative("place")
def first_in_root_mode(stack):
    facts = _facts(stack)
    [first] = [p["name"] for p in stack["parts"] if p["loaded_by"] == "firmware"]
    return _answer(facts, first if first != facts["exits"] else None)


@mutant("place", "ring-0-is-not-first")
def ring_0_is_type_1(stack):
    return _answer(_facts(stack), None)


@mutant("place", "a-guest-is-no-host")
def drivers_make_the_host(stack):
    facts = _facts(stack)
    return _answer(facts, facts["drivers"] if facts["drivers"] != facts["exits"] else None)


@mutant("place", "another-host")
def whoever_loaded_it(stack):
    facts, parts = _facts(stack), _parts(stack)
    loader = parts[facts["exits"]]["loaded_by"]
    return _answer(facts, None if loader == "firmware" else loader)


@mutant("place", "wrong-drivers")
def interrupts_are_the_drivers(stack):
    seen = dict(map(tuple, stack["record"]))
    return {**follow_the_loaders(stack), "drivers": seen["interrupt arrived"]}


@mutant("place", "wrong-exits")
def system_calls_are_exits(stack):
    seen = dict(map(tuple, stack["record"]))
    return {**follow_the_loaders(stack), "exits": seen["system call"]}


@mutant("place", "wrong-scheduler")
def exits_are_the_scheduler(stack):
    facts = _facts(stack)
    return {**follow_the_loaders(stack), "scheduler": facts["exits"]}


@mutant("place", "argument-does-not-fit")
def always_type_2(stack):
    return {**follow_the_loaders(stack), "type": 2}


@mutant("place", "incomplete")
def the_type_only(stack):
    return {"type": follow_the_loaders(stack)["type"]}


# ── identify ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _links(folder):
    return {entry.name: os.readlink(entry) for entry in Path(folder).iterdir()}


def _contains(pid, *words):
    with open(f"/proc/{pid}/exe", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [content.find(word) >= 0 for word in words]


def _isolated(pid):
    mine = _links("/proc/self/ns")
    return any(mine[name] != link for name, link in _links(f"/proc/{pid}/ns").items())


@alternative("identify")
def descriptors_then_contents(pid):
    if any(link.startswith("anon_inode:kvm-vm") for link in _links(f"/proc/{pid}/fd").values()):
        return "kvm"
    system, user = _contains(pid, b"QEMU emulator version", b"QEMU_LD_PREFIX")
    return "tcg" if system else "qemu-user" if user else "container" if _isolated(pid) else "process"


@alternative("identify")
def ask_the_program_itself(pid):
    links = _links(f"/proc/{pid}/fd").values()
    if {"anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"} & set(links):
        return "kvm"
    said = subprocess.run([f"/proc/{pid}/exe", "--version"], capture_output=True, text=True, timeout=20).stdout
    if said.startswith("QEMU emulator"):
        return "tcg"
    if re.match(r"qemu-\w+ version", said):
        return "qemu-user"
    return "container" if _isolated(pid) else "process"


@mutant("identify", "by-name")
def by_comm(pid):
    name = Path(f"/proc/{pid}/comm").read_text()
    if name.startswith("qemu-system"):
        return "kvm" if "anon_inode:kvm-vm" in _links(f"/proc/{pid}/fd").values() else "tcg"
    return "qemu-user" if name.startswith("qemu-") else "container" if _isolated(pid) else "process"


@mutant("identify", "by-name-renamed")
def by_the_name_of_exe(pid):
    name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    if name.startswith("qemu-system"):
        return "kvm" if "anon_inode:kvm-vm" in _links(f"/proc/{pid}/fd").values() else "tcg"
    return "qemu-user" if name.startswith("qemu-") else "container" if _isolated(pid) else "process"


@mutant("identify", "by-wish")
def by_accel_text(pid):
    found = descriptors_then_contents(pid)
    if found in ("tcg", "kvm"):
        return "kvm" if b"kvm" in Path(f"/proc/{pid}/cmdline").read_bytes() else "tcg"
    return found


@mutant("identify", "emulator-overlooked")
def everything_of_qemu_translates(pid):
    found = descriptors_then_contents(pid)
    return "qemu-user" if found == "tcg" else found


@mutant("identify", "translator-overlooked")
def only_whole_machines(pid):
    found = descriptors_then_contents(pid)
    return "process" if found == "qemu-user" else found


@mutant("identify", "by-a-files-name")
def kvm_somewhere_in_a_link(pid):
    if any("kvm-vm" in link for link in _links(f"/proc/{pid}/fd").values()):
        return "kvm"
    return descriptors_then_contents(pid)


@mutant("identify", "no-label")
def the_name_itself(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()
