"""Judgements of lesson 4 on evidence, namespaces, layers and measurements; for visible and hidden checks."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ..container import Laboratory, namespaces, overlay, starts
from .compare import shorten
from .exercise import Trial

# ── shares_kernel ────────────────────────────────────────────────────────────────────────────────────────────────────


def judge_shares(trial: Trial, a: dict[str, str], b: dict[str, str], *, same: bool, why: str) -> None:
    """Ask whether two systems share a kernel, in both orders."""
    for first, second in ((a, b), (b, a)):
        got = trial.call(first, second)
        trial.expect(isinstance(got, bool), "not-a-bool", f"You returned {shorten(got)}; expected True or False.")
        if got is same:
            continue
        hints = [
            (("release", "version"), "by-release", "Thousands of machines run the same release. What is drawn anew?"),
            (("hostname",), "by-hostname", "A name is given by whoever likes to. What does the kernel itself draw?"),
            (
                ("os_release",),
                "by-distribution",
                "/etc/os-release is a file of the root file system, not of the kernel.",
            ),
            (
                ("uptime",),
                "by-uptime",
                "Two readings are never made at the same moment, and a time namespace shifts it.",
            ),
        ]
        for keys, misconception, hint in hints:
            if all((first[key] == second[key]) is got for key in keys):
                said = " and ".join(f"{key} {'equal' if got else 'different'}" for key in keys)
                trial.wrong(misconception, f"{why} You answered {got}; with {said} the answer is still {same}.", hint)
        trial.wrong(
            "wrong-answer",
            f"{why} Expected {same}, obtained {got}.",
            "Look at both boot_ids with repr(): is there a blank or a newline in only one of them?",
        )


# ── same_container ───────────────────────────────────────────────────────────────────────────────────────────────────

Process = dict[str, Any]
Groups = list[list[int]]

IDENTITY = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def grouped(processes: Iterable[Process], key: Callable[[Process], Any]) -> Groups:
    """Partition the processes' pids by a key; sorted."""
    groups: dict[str, list[int]] = {}
    for process in processes:
        groups.setdefault(repr(key(process)), []).append(process["pid"])
    return sorted(sorted(group) for group in groups.values())


def _kinds(*names: str) -> Callable[[Process], Any]:
    return lambda process: [process["namespaces"][name] for name in names]


_SLIPS: tuple[tuple[str, Callable[[Process], Any], str], ...] = (
    ("children-links", lambda p: sorted(p["namespaces"].items()), "Where children will be is not where it is."),
    ("without-uts", _kinds(*(k for k in IDENTITY if k != "uts")), "Have you compared all kinds of namespaces?"),
    ("by-hostname", lambda p: p["hostname"], "Nothing forbids two containers to have the same name."),
    ("by-cgroup", lambda p: p["cgroup"], "A cgroup limits and counts; what a process sees is decided elsewhere."),
    ("by-pid-namespace", _kinds("pid"), "Containers can share one kind of namespace and differ in another."),
    ("by-mount-namespace", _kinds("mnt"), "Containers can share one kind of namespace and differ in another."),
    ("by-net-namespace", _kinds("net"), "The containers of a pod share their network, and little else."),
    ("by-program", lambda p: p["comm"], "A program's name says nothing about where it runs."),
)


def judge_groups(trial: Trial, processes: Sequence[Process], what: str) -> None:
    """Let the answer group processes, and recognise by what a wrong one has grouped them."""
    got = trial.call([dict(process) for process in processes])
    well = isinstance(got, list | tuple) and all(isinstance(g, list | tuple | set) for g in got)
    trial.expect(well, "not-groups", f"You returned {shorten(got)}.", "Return a list of lists of pids.")
    trial.expect(
        all(type(pid) is int for group in got for pid in group),
        "not-pids",
        f"You returned {shorten(got)}.",
        "A group is a list of pids, which are whole numbers.",
    )
    groups = sorted(sorted(group) for group in got if group)
    expected = grouped(processes, _kinds(*IDENTITY))
    if groups == expected:
        return
    listed = sorted(pid for group in groups for pid in group)
    pids = sorted(process["pid"] for process in processes)
    if listed != pids:
        missing, extra = sorted(set(pids) - set(listed)), sorted(set(listed) - set(pids))
        said = f"{what} {len(pids)} pids went in, {len(listed)} came out; missing: {missing}, too many: {extra}."
        trial.wrong("not-a-partition", said, "Each process belongs to exactly one group.")
    said = f"{what} Expected {shorten(expected)}, obtained {shorten(groups)}."
    for misconception, key, hint in _SLIPS:
        if groups == grouped(processes, key):
            trial.wrong(misconception, said, hint)
    trial.wrong("other-groups", said, "Take two pids that you put together, and compare their namespaces one by one.")


@functools.cache
def recorded() -> tuple[Process, ...]:
    """Processes of a real guest: two containers with the same name, a third in the first one's network, the host."""
    box = "unshare -m -u -i -n -p -f --mount-proc sh -c 'hostname box; sleep 600 & sleep 600' >/dev/null 2>&1 &"
    find = "until first=$(pidof sleep | tr ' ' '\\n' | sort -n | head -1); [ \"$first\" ]; do usleep 20000; done"
    with Laboratory() as lab:
        lab.run(f"{box}\n{box}\nusleep 300000")
        third = box.replace(" -n ", " ")
        lab.run(f"{find}\nnsenter -t $first -n {third}\nusleep 400000")
        return tuple(namespaces.listing(lab))


def invented(rng: random.Random, plan: Sequence[Mapping[str, Any]]) -> list[Process]:
    """Make up processes.

    Args:
        rng: draws pids and numbers.
        plan: one entry per process: ``{"in": container, "hostname": …, "shares": {kind: container}, "forks": bool}``.
    """
    numbers: dict[tuple[str, str], int] = {}
    pids = rng.sample(range(2, 30_000), len(plan))
    processes = []
    for pid, wanted in zip(pids, plan, strict=True):
        links = {}
        for kind in rng.sample(IDENTITY, len(IDENTITY)):
            owner = wanted.get("shares", {}).get(kind, "host" if kind in ("time", "cgroup") else wanted["in"])
            links[kind] = f"{kind}:[{numbers.setdefault((kind, owner), 4026531835 + len(numbers))}]"
        links["time_for_children"] = links["time"]
        links["pid_for_children"] = "pid:[4026539999]" if wanted.get("forks") else links["pid"]
        processes.append(
            {
                "pid": pid,
                "comm": wanted.get("comm", "sh"),
                "cgroup": wanted.get("cgroup", "/"),
                "hostname": wanted.get("hostname", wanted["in"]),
                "namespaces": links,
            }
        )
    rng.shuffle(processes)
    return processes


# ── merge ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Stack = list[dict[str, bytes | None]]


@functools.cache
def _merged(frozen: tuple[Any, ...]) -> list[overlay.Tree]:
    stacks = [[dict(layer) for layer in stack] for stack in frozen]
    with Laboratory() as lab:
        return overlay.merge_in_kernel(lab, stacks)


def merged_by_kernel(stacks: Sequence[Stack]) -> list[overlay.Tree]:
    """Return what the guest's overlayfs makes of the stacks; the same stacks are merged only once per process."""
    return _merged(tuple(tuple(tuple(layer.items()) for layer in stack) for stack in stacks))


def judge_merge(trial: Trial, stack: Stack, expected: overlay.Tree, misconception: str, hint: str) -> None:
    """Compare the answer's tree with the kernel's."""
    got = trial.call([dict(layer) for layer in stack])
    trial.expect(isinstance(got, dict), "not-a-dict", f"You returned {shorten(got)}.", "Return a dict: path → content.")
    if got == expected:
        return
    shown = "\n".join(f"layer {number}: {shorten(layer)}" for number, layer in enumerate(stack))
    marks = sorted(path for path in got if ".wh." in str(path))
    if marks:
        trial.wrong(
            "whiteout-visible",
            f"{shown}\nYour tree has {', '.join(map(repr, marks))}; in the kernel's there is no such file.",
            "A whiteout is an instruction, not a file.",
        )
    said = f"{shown}\noverlayfs: {shorten(expected)}\nyours: {shorten(got)}\n{_tree_difference(expected, got)}"
    trial.wrong(misconception, said, hint)


def _tree_difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    for path in sorted({*expected, *got}, key=repr):
        if path not in got:
            return f"{path!r} is missing"
        if path not in expected:
            return f"{path!r} should not be there"
        if expected[path] != got[path]:
            return f"{path!r} is {shorten(got[path])}; expected {shorten(expected[path])}"
    return ""


def random_stack(rng: random.Random) -> Stack:
    """Make up two to five layers with files, folders, whiteouts and opaque folders over few names."""
    layers: Stack = []
    for level in range(rng.randrange(2, 6)):
        layer: dict[str, bytes | None] = {}
        for _ in range(rng.randrange(2, 8)):
            parts = [rng.choice(("a", "ab", "b", "c.d")) for _ in range(rng.randrange(1, 4))]
            folders = ["/".join(parts[:n]) for n in range(1, len(parts))]
            if any(layer.get(folder) is not None for folder in folders):
                continue  # a file is there already
            path = "/".join(parts)
            for folder in folders:
                layer.setdefault(folder, None)
            kind = rng.random()
            if kind < 0.25:
                layer["/".join([*parts[:-1], ".wh." + parts[-1]])] = b""
            elif kind < 0.4 and layer.get(path) is None:
                layer[path] = None
                layer[path + "/.wh..wh..opq"] = b""
            elif path not in layer:
                layer[path] = None if kind < 0.5 else b"%d:%s" % (level, path.encode())
        layers.append(layer)
    return layers


# ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Samples = dict[str, list[dict[str, Any]]]


def judge_measure(trial: Trial, lab: starts.Starts, runs: int, *, ordered: bool = True) -> Samples:
    """Let the answer measure, and lay its samples beside the laboratory's log."""
    got = trial.call(lab.address, runs)
    shape = isinstance(got, dict) and set(starts.KINDS) <= set(got) and all(isinstance(v, list) for v in got.values())
    trial.expect(
        shape, "not-samples", f"You returned {shorten(got)}.", f"Return a dict with a list for each of {starts.KINDS}."
    )
    entries = {
        kind: _judge_samples(trial, kind, got[kind], [entry for entry in lab.log if entry.kind == kind], runs)
        for kind in reversed(starts.KINDS)  # the slowest first: there a slip shows best
    }
    for kind in starts.KINDS:
        for sample, entry in zip(got[kind], entries[kind], strict=True):
            said = f"A {kind} has the boot id {entry.boot_id[:8]}…; the sample says {str(sample['boot_id'])[:8]}…"
            hint = "Ask the one that you have just started, not the machine that your function runs on."
            trial.expect(str(sample["boot_id"]).strip() == entry.boot_id, f"boot-id-of-{kind}", said, hint)
    running = [entry.kind for entry in lab.log if not entry.stopped]
    trial.expect(
        not running,
        "left-running",
        f"{len(running)} of {len(lab.log)} were never stopped: {', '.join(sorted(set(running)))}.",
        "Whatever a measurement starts, it also stops; the next one would compete with it.",
    )
    if ordered:
        typical = {kind: median(sample["ms"] for sample in got[kind]) for kind in starts.KINDS}
        rising = typical["process"] < typical["container"] < typical["vm"]
        trial.expect(rising, "order", f"Medians in ms: {typical}; expected process < container < vm.")
    return dict(got)


def _judge_samples(
    trial: Trial, kind: str, samples: list[Any], log: list[starts.Entry], runs: int
) -> list[starts.Entry]:
    """Judge the samples of one kind; returns the log's entries that they belong to."""
    keys = {"ms", "nonce", "boot_id"}
    for sample in samples:
        right = isinstance(sample, dict) and keys <= set(sample) and isinstance(sample["ms"], int | float)
        trial.expect(
            right,
            "not-raw",
            f"A sample of {kind} is {shorten(sample)}.",
            'One dict per start, with "ms", "nonce" and "boot_id": raw samples, no averages.',
        )
    trial.expect(
        len(samples) == runs,
        "too-few-samples",
        f"{len(samples)} sample(s) of {kind}; {runs} were asked for.",
        "One measurement says nothing about the next.",
    )
    by_nonce = {entry.nonce: entry for entry in log}
    known = [by_nonce.get(str(sample["nonce"])) for sample in samples]
    entries = [entry for entry in known if entry is not None]
    trial.expect(
        len({entry.nonce for entry in entries}) == runs,
        "no-witness",
        f"Of {runs} samples of {kind}, {len({e.nonce for e in entries})} carry a nonce of a start of their own; "
        f"the laboratory saw {len(log)} start(s).",
        "Each start says a word that nobody can guess. Where, and when, does it say it?",
    )
    _judge_times(trial, kind, [float(sample["ms"]) for sample in samples], [entry.ms or 0.0 for entry in entries])
    return entries


def _judge_times(trial: Trial, kind: str, claimed: list[float], true: list[float]) -> None:
    """The log's clock begins a little later and ends a little earlier than the answer's."""
    fitting = [0.85 * t - 1 <= c <= 1.5 * t + 30 for c, t in zip(claimed, true, strict=True)]
    if sum(fitting) >= len(fitting) - 1 or not all(math.isfinite(c) for c in claimed):
        trial.expect(all(math.isfinite(c) for c in claimed), "not-a-number", f"The times of {kind} are {claimed}.")
        return
    mine, seen = median(claimed), median(true)
    said = f"{kind}: your median is {mine:.3g} ms; the laboratory saw READY after {seen:.3g} ms."
    if math.isclose(mine * 1000, seen, rel_tol=0.5, abs_tol=5):
        trial.wrong("seconds", said, "In which unit does the clock count, and in which the sample?")
    if claimed == sorted(claimed) and claimed[-1] > 0.7 * sum(true):
        trial.wrong("cumulated", said, "When does the clock of each sample begin?")
    if mine < 0.85 * seen:
        early = "start() comes back at once, as Popen does." if mine < 0.2 * seen else "Its first line is not its last."
        trial.wrong("started-is-not-ready" if mine < 0.2 * seen else "first-line-is-not-ready", said, early)
    trial.wrong("too-long", said, "What else happens between your two looks at the clock?")
