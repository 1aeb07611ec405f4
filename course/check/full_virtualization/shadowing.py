"""Judgements on a VMM with shadow page tables: `shadow`."""

from __future__ import annotations

from typing import Any

from ...vcpu.paged import CODE, DATA, Paged, example
from ...vcpu.paging import PAGE
from ..compare import shorten
from ..exercise import Exercise, Trial

shadow = Exercise("shadow", deadline_s=30)

Faults = list[tuple[int, bool]]


def judge_shadow(
    trial: Trial, guest: Paged, about: str, stale: str = "stale-shadow", engine: str = "best", **names: str
) -> None:
    """Let the answer run a guest with page tables; judge which faults the guest got, and what it computed.

    Args:
        trial: the trial.
        guest: the guest, complete.
        about: what the guest does, in words.
        stale: the misconception when an old translation was used.
        engine: where it runs.
        **names: another id for a misconception: ``swallowed`` for a write that went through, ``hidden`` for a fault
            that was not the guest's.
    """
    got = trial.call(engine, guest.machine())
    keys = {"result", "output", "faults", "injected", "ended"}
    complete = isinstance(got, dict) and keys <= set(got)
    trial.expect(complete, "not-the-report", f"Expected what guest.report() returns, got {shorten(got)}.")
    _judge_injected(trial, guest, got, about, {"stale": stale, **names})
    _judge_end(trial, got, about)
    if got["output"] != guest.output:
        trial.wrong(
            stale,
            f"{about} It sent {shorten(_words(got['output']))}; on a real machine it sends"
            f" {shorten(_words(guest.output))}. No fault was wrong, so it read a page that it no longer meant.",
            _announced(guest),
        )


def _judge_end(trial: Trial, got: dict[str, Any], about: str) -> None:
    if got["ended"] == "hlt":
        return
    faults: Faults = [tuple(f) for f in got["faults"]]
    if len(faults) > 100 and len(set(faults[-50:])) == 1:
        address, write = faults[-1]
        trial.wrong(
            "never-satisfied",
            f"{about} It faults at {address:#x} ({'write' if write else 'read'}) again and again, {len(faults)} times:"
            " what you did did not allow the access.",
            "Print address, write, and what you map, for two rounds.",
        )
    trial.wrong(
        "did-not-end",
        f"{about} It ended with {got['ended'] or 'nothing: run() had more to say'!r} after {len(faults)} faults.",
        "Go on until run() returns None.",
    )


def _judge_injected(trial: Trial, guest: Paged, got: dict[str, Any], about: str, names: dict[str, str]) -> None:
    injected: Faults = [tuple(f) for f in got["injected"]]
    if injected == guest.injected:
        return
    at = next(
        (i for i, pair in enumerate(zip(injected, guest.injected, strict=False)) if pair[0] != pair[1]),
        min(len(injected), len(guest.injected)),
    )
    wanted = guest.injected[at] if at < len(guest.injected) else None
    given = injected[at] if at < len(injected) else None
    if given is not None and at > 0 and given == injected[at - 1]:
        trial.wrong(
            "upgrade-refused",
            f"{about} You gave it the page fault at {given[0]:#x} ({_kind(given)}) twice in a row. After the first one"
            " its handler had repaired the entry: its tables allow the access now.",
            "What you have mapped is what the tables said then. Who has changed since?",
        )
    due = {address for address, _ in guest.injected}
    if given is not None and (wanted is None or given[0] not in due):
        trial.wrong(
            names.get("hidden", "hidden-fault-injected"),
            f"{about} You gave it a page fault at {given[0]:#x} ({_kind(given)}), though its own tables allow that: it"
            " was your shadow that had nothing there. On a real machine the guest never sees such a fault.",
            "Whose fault is it? Ask the guest's tables first, all levels of them.",
        )
    assert wanted is not None
    changed = [how for page, how in guest.stale if page == wanted[0] & -PAGE]
    if changed and wanted not in injected:
        trial.wrong(
            names["stale"],
            f"{about} Then it changed the entry for {wanted[0]:#x} and said so with {_instruction(changed[-1])}. Its"
            f" next {_kind(wanted)} there should have been a page fault for it; yours went through, to the old page.",
            _announced(guest),
        )
    if wanted not in injected:
        trial.wrong(
            "fault-swallowed" if not wanted[1] else names.get("swallowed", "all-writable"),
            f"{about} Its {_kind(wanted)} at {wanted[0]:#x} is against its own tables: the guest has to get a page"
            f" fault. It got {shorten([hex(a) for a, _ in injected])}.",
            "A translation is more than an address. What else do the entries on the way say?",
        )
    trial.wrong(
        "wrong-order",
        f"{about} The guest should get the page faults {shorten([(hex(a), w) for a, w in guest.injected])}; you gave"
        f" {shorten([(hex(a), w) for a, w in injected])}.",
    )


def _kind(fault: tuple[int, bool]) -> str:
    return "write" if fault[1] else "read"


def _instruction(how: str) -> str:
    return "invlpg" if how == "invlpg" else "mov cr3"


def _announced(guest: Paged) -> str:
    if any(how == "cr3" for _, how in guest.stale):
        return "What does a real processor forget when cr3 is written?"
    return "Plain stores into page tables do not trap. Which instruction tells you that a page has changed?"


def _words(output: bytes) -> list[str]:
    return [hex(int.from_bytes(output[at : at + 4], "little")) for at in range(0, len(output), 4)]


def two_pages(rng: Any) -> Paged:
    """A guest that only reads and writes what its tables allow."""
    guest = Paged(rng)
    pages = [DATA + n * PAGE for n in rng.sample(range(40), 4)]
    for page in pages:
        guest.page(page, writable=True, value=rng.randrange(1 << 31))
    for page in pages[:3]:
        guest.store(page, rng.randrange(1 << 31))
    for page in pages:
        guest.load(page)
    return guest


@shadow.step("a guest that does only what its tables allow never sees a fault, and computes what it should")
def _shadow_hidden(trial: Trial) -> None:
    judge_shadow(trial, two_pages(trial.rng), "The guest stores into three pages and loads from four.")


@shadow.step("a write to a page for reading only, and a read of no page, are the guest's own faults")
def _shadow_true(trial: Trial) -> None:
    judge_shadow(trial, example(), "The guest stores into a page that its tables allow it only to read.")
    guest = Paged(trial.rng)
    guest.hole(DATA)
    guest.load(DATA)
    guest.store(DATA, 77)
    guest.load(DATA)
    judge_shadow(trial, guest, "The guest reads a page that it does not have; its handler then makes one.")


@shadow.step("a page that the guest takes away, and says so with invlpg, is gone")
def _shadow_invlpg(trial: Trial) -> None:
    guest = Paged(trial.rng)
    guest.page(DATA, writable=True)
    guest.store(DATA, 5)
    guest.load(DATA)
    guest.remove(DATA)
    guest.load(DATA)
    judge_shadow(trial, guest, "The guest stores 5 into a page, then clears its entry.", "never-flushed")


__all__ = ["CODE", "judge_shadow", "shadow", "two_pages"]
