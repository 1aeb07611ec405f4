"""Answers to `grow`."""

from __future__ import annotations

import json
import uuid

from qemu.qmp import ExecuteError

from .. import alternative, mutant
from .session import Raw, session

MIB = 1 << 20


async def _total(qmp):
    size = await qmp.execute("query-memory-size-summary")
    return (size["base-memory"] + size["plugged-memory"]) // MIB


async def _plug(qmp, size, number, undo=True):
    await qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": f"mem{number}", "size": size})
    try:
        await qmp.execute("device_add", {"driver": "pc-dimm", "id": f"dimm{number}", "memdev": f"mem{number}"})
    except ExecuteError:
        if undo:
            await qmp.execute("object-del", {"id": f"mem{number}"})
        raise


async def _free_number(qmp):
    taken = {
        o["name"] for path in ("/objects", "/machine/peripheral") for o in await qmp.execute("qom-list", {"path": path})
    }
    number = 0
    while {f"mem{number}", f"dimm{number}"} & taken:
        number += 1
    return number


@mutant("grow", "device-before-object")
async def the_device_first(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await qmp.execute("device_add", {"driver": "pc-dimm", "id": "dimm0", "memdev": "mem0"})
            await qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": "mem0", "size": missing * MIB})
        return await _total(qmp)


@mutant("grow", "device-before-object")
async def only_the_device(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        if total_mib > await _total(qmp):
            await qmp.execute("device_add", {"driver": "pc-dimm", "id": "dimm0", "memdev": "mem0", "size": total_mib})
        return await _total(qmp)


@mutant("grow", "nothing-plugged")
async def only_the_backend(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            ident = str(uuid.uuid4())
            await qmp.execute(
                "object-add", {"qom-type": "memory-backend-ram", "id": f"m{ident}", "size": missing * MIB}
            )
        return total_mib


@mutant("grow", "unit-bytes")
async def mib_for_bytes(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing, await _free_number(qmp))
        return await _total(qmp)


@mutant("grow", "unit-mb")
async def megabytes(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * 1000 * 1000, await _free_number(qmp))
        return await _total(qmp)


@mutant("grow", "adds-total")
async def adds_what_was_asked_for(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        await _plug(qmp, total_mib * MIB, await _free_number(qmp))
        return await _total(qmp)


@mutant("grow", "not-idempotent")
async def forgets_what_is_plugged(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        base = (await qmp.execute("query-memory-size-summary"))["base-memory"] // MIB
        if total_mib > base:
            await _plug(qmp, (total_mib - base) * MIB, await _free_number(qmp))
        return await _total(qmp)


@mutant("grow", "fixed-id")
async def always_the_same_id(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, 1)
        return await _total(qmp)


@mutant("grow", "id-taken")
async def counts_the_dimms(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, len(await qmp.execute("query-memory-devices")))
        return await _total(qmp)


@mutant("grow", "orphan")
async def leaves_the_backend(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp), undo=False)
        return await _total(qmp)


@mutant("grow", "error-swallowed")
async def says_nothing(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        try:
            if missing > 0:
                await _plug(qmp, missing * MIB, await _free_number(qmp))
        except ExecuteError as error:
            print("could not grow:", error)
        return await _total(qmp)


@mutant("grow", "returns-wish")
async def returns_the_wish(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp))
        return total_mib


@mutant("grow", "returns-plugged")
async def returns_what_was_added(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp))
        return (await qmp.execute("query-memory-size-summary"))["plugged-memory"] // MIB


@mutant("grow", "unit-returned")
async def returns_bytes(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp))
        return await _total(qmp) * MIB


@mutant("grow", "forgot-return")
async def returns_nothing(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp))


@alternative("grow")
async def first_free_number(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, await _free_number(qmp))
        return await _total(qmp)


@alternative("grow")
async def random_ids(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            await _plug(qmp, missing * MIB, uuid.uuid4().hex)
        return await _total(qmp)


@alternative("grow")
async def looks_at_the_slots_first(qmp_path, total_mib):
    async with session(qmp_path) as qmp:
        missing = total_mib - await _total(qmp)
        if missing > 0:
            if len(await qmp.execute("query-memory-devices")) >= 2:
                raise RuntimeError("no free slot")
            await _plug(qmp, missing * MIB, uuid.uuid4().hex)
        return await _total(qmp)


@alternative("grow")
def by_hand_without_a_device_id(qmp_path, total_mib):
    qmp = Raw(qmp_path)

    def total():
        size = qmp("query-memory-size-summary")
        return (size["base-memory"] + size["plugged-memory"]) / MIB

    missing, ident = total_mib - total(), f"grow-{uuid.uuid4()}"
    if missing > 0:
        qmp("object-add", qom_type="memory-backend-ram", id=ident, size=int(missing * MIB))
        try:
            qmp("device_add", driver="pc-dimm", memdev=ident)
        except RuntimeError:
            qmp("object-del", id=ident)
            raise
    result = total()
    qmp.close()
    return result


@alternative("grow")
async def through_the_human_monitor(qmp_path, total_mib):
    async with session(qmp_path) as qmp:

        async def hmp(line):
            if said := (await qmp.execute("human-monitor-command", {"command-line": line})).strip():
                raise RuntimeError(said)

        missing = total_mib - await _total(qmp)
        if missing > 0:
            ident = f"h{uuid.uuid4().hex}"
            await hmp(f"object_add memory-backend-ram,id={ident},size={missing}M")
            try:
                await hmp(f"device_add pc-dimm,id=d{ident},memdev={ident}")
            except RuntimeError:
                await hmp(f"object_del {ident}")
                raise
        return await _total(qmp)
