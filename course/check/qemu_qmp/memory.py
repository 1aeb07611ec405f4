"""`grow(qmp_path, total_mib) -> int`: bring a machine to at least so much memory by hotplug, once and only once.

The witness is the check's own monitor: how much memory the machine really has, which DIMMs are plugged, and which
memory backends lie around unused.
"""

from __future__ import annotations

from typing import Any

from ...machine import Machine
from ...machine.transcript import QmpProxy
from ..answer import Call, Outcome
from ..exercise import Exercise, Trial
from .witness import Transcript, bare_metal

grow = Exercise("grow")

BASE_MIB = 64
SLOTS = 2
MIB = 1 << 20


def machine() -> Machine:
    """A machine of 64 MiB with two free slots for memory, up to 512 MiB."""
    return bare_metal(memory=f"{BASE_MIB},slots={SLOTS},maxmem=512M")


def total_mib(vm: Machine) -> float:
    """Ask the machine how much memory it has, in MiB."""
    size = vm.execute("query-memory-size-summary")
    return float((size["base-memory"] + size.get("plugged-memory", 0)) / MIB)


def dimms(vm: Machine) -> list[dict[str, Any]]:
    """List the plugged DIMMs: their ids, sizes and backends."""
    return [device["data"] for device in vm.execute("query-memory-devices") if device["type"] == "dimm"]


def backends(vm: Machine) -> list[str]:
    """List the memory backends that were made with object-add."""
    objects = vm.execute("qom-list", path="/objects")
    return [o["name"] for o in objects if o["type"].startswith("child<memory-backend") and o["name"] != "pc.ram"]


def orphans(vm: Machine) -> list[str]:
    """List the backends that no DIMM uses."""
    used = {dimm["memdev"].rpartition("/")[2] for dimm in dimms(vm)}
    return [name for name in backends(vm) if name not in used]


def plug(vm: Machine, ident: str, size_mib: int, backend: str = "") -> None:
    """Plug a DIMM, as somebody else might have done."""
    backend = backend or f"{ident}-backend"
    vm.execute("object-add", {"qom-type": "memory-backend-ram", "id": backend, "size": size_mib * MIB})
    vm.execute("device_add", driver="pc-dimm", id=ident, memdev=backend)


def ask(trial: Trial, vm: Machine, wanted_mib: int) -> tuple[Call, Transcript]:
    """Call the answer once through a relay."""
    with QmpProxy(vm.qmp_path) as proxy:
        done = trial.attempt(proxy.path, wanted_mib)
        return done, Transcript.of(proxy)


def judge(trial: Trial, vm: Machine, wanted_mib: int, *, same_id: str = "fixed-id") -> None:
    """Ask for so much memory, and look at what the machine has afterwards.

    Args:
        trial: the running trial.
        vm: a machine made by `machine`.
        wanted_mib: the amount to ask for, in MiB.
        same_id: the misconception of an answer that uses an id which is taken.
    """
    before, plugged = total_mib(vm), len(dimms(vm))
    done, seen = ask(trial, vm, wanted_mib)
    asked = f"grow(qmp_path, {wanted_mib}) on a machine of {before:g} MiB"
    if done.outcome is not Outcome.RETURNED:
        _explain_refusal(trial, done, seen, asked, same_id, enough=before >= wanted_mib)
    after, expected = total_mib(vm), max(before, wanted_mib)
    if after != expected:
        _explain_size(trial, asked, before=before, after=after, wanted_mib=wanted_mib, plugged=plugged)
    got = trial.value_of(done, asked)
    if left := orphans(vm):
        trial.wrong("orphan", f"{asked} left the backend {left[0]!r} unused.", "Nobody will find it later: object-del.")
    if got != expected:
        _explain_value(trial, asked, got, before=before, after=after, wanted_mib=wanted_mib)


def _explain_refusal(trial: Trial, done: Call, seen: Transcript, asked: str, same_id: str, *, enough: bool) -> None:
    said = seen.errors()[-1] if seen.errors() else ""
    sizes = [a["size"] for a in seen.arguments("object-add") if isinstance(a.get("size"), int)]
    if sizes and sizes[-1] < MIB:
        trial.wrong(
            "unit-bytes", f"{asked} made a backend of {sizes[-1]} bytes. QEMU: {said}", "What does QAPI count in?"
        )
    if sizes and sizes[-1] % MIB and sizes[-1] % 1000 == 0:
        trial.wrong("unit-mb", f"{asked} made a backend of {sizes[-1]} bytes. QEMU: {said}", "MB is not MiB.")
    commands = seen.commands
    if "device_add" in commands and "object-add" not in commands[: commands.index("device_add")]:
        trial.wrong(
            "device-before-object",
            f"{asked} sent device_add {seen.arguments('device_add')[0]}. QEMU: {said}",
            "A DIMM is a device in front of some memory. Which of the two has to exist first?",
        )
    if "duplicate" in said.lower():
        used = [a.get("id") for a in (*seen.arguments("object-add"), *seen.arguments("device_add"))]
        trial.wrong(
            same_id,
            f"{asked} used the ids {', '.join(map(repr, used))}. QEMU: {said}",
            "How much is missing, before you add anything?"
            if enough
            else "Who else may have used these names? Ask the machine, or make names that nobody uses.",
        )
    trial.value_of(done, asked)


def _explain_size(trial: Trial, asked: str, *, before: float, after: float, wanted_mib: int, plugged: int) -> None:
    what = f"{asked}: it has {after:g} MiB now, expected {max(before, wanted_mib):g} MiB"
    if after == before:
        trial.wrong("nothing-plugged", f"{what}.", "Which of your commands should have changed that?")
    if wanted_mib <= before:
        trial.wrong(
            "not-idempotent",
            f"{what}: there was nothing left to do.",
            "How much is missing? Count all the memory that the machine has, plugged DIMMs too.",
        )
    if after - before == wanted_mib:
        trial.wrong("adds-total", f"{what}: you added the whole amount.", "How much is missing?")
    if plugged and after - before == wanted_mib - BASE_MIB:
        trial.wrong("not-idempotent", f"{what}: {plugged} DIMMs were there already.", "How much is missing?")
    trial.wrong("another-size", f"{what}.", "How much is missing, in bytes?")


def _explain_value(trial: Trial, asked: str, got: Any, *, before: float, after: float, wanted_mib: int) -> None:
    what = f"{asked} left it with {after:g} MiB, which is right, but returned {got!r}"
    if got == after * MIB:
        trial.nearly("unit-returned", f"{what}: those are bytes.", "Return MiB.")
    if got == wanted_mib:
        trial.wrong("returns-wish", f"{what}, what was wished for.", "Return what the machine says that it has.")
    if got in (after - BASE_MIB, after - before):
        trial.wrong("returns-plugged", f"{what}: only what was added.", "Base and plugged memory together.")
    trial.wrong("another-value", f"{what}.", "Return the total in MiB.")


def judge_refusal(trial: Trial, vm: Machine, wanted_mib: int) -> None:
    """Ask for more than the machine's slots allow: the answer has to raise, and to leave nothing behind."""
    before = total_mib(vm)
    done, seen = ask(trial, vm, wanted_mib)
    asked = f"grow(qmp_path, {wanted_mib}) on a machine of {before:g} MiB with no free slot"
    if done.outcome is not Outcome.RAISED:
        trial.expect(
            done.outcome is not Outcome.RETURNED,
            "error-swallowed",
            f"{asked} returned {done.value!r}. QEMU had said: {(seen.errors() or ['nothing'])[-1]}",
            "Whoever called you believes that it worked. Let them know.",
        )
        trial.value_of(done, asked)
    if left := orphans(vm):
        trial.wrong(
            "orphan",
            f"{asked} raised {done.error}, rightly, but left the backend {left[0]!r} behind.",
            "Undo the first step when the second one fails: try … except … raise.",
        )
    trial.expect(total_mib(vm) == before, "another-size", f"{asked} left it with {total_mib(vm):g} MiB.")


@grow.step("a machine of 64 MiB gets 128 MiB, and asking again changes nothing")
def _once(trial: Trial) -> None:
    with machine() as vm:
        judge(trial, vm, 128)
        judge(trial, vm, 128)


@grow.step("it can grow again, is content with more than enough, and says how much there is")
def _again(trial: Trial) -> None:
    with machine() as vm:
        for wanted_mib in (96, 160, 32):
            judge(trial, vm, wanted_mib)


@grow.step("with all slots full it raises, and leaves nothing behind")
def _full(trial: Trial) -> None:
    with machine() as vm:
        for number in range(SLOTS):
            plug(vm, f"taken{number}", 32)
        judge_refusal(trial, vm, 256)
