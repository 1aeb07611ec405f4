"""Answers to `migrate`."""

from __future__ import annotations

import asyncio
import contextlib
import time

from qemu.qmp import ExecuteError

from .. import alternative, mutant
from .session import Raw, session

MIB = 1 << 20


@contextlib.asynccontextmanager
async def _both(source_path, destination_path):
    async with session(source_path, "source") as source, session(destination_path, "destination") as destination:
        yield source, destination


async def _listen(destination, uri):
    await destination.execute("migrate-incoming", {"uri": uri})


async def _end(source, react=None, after_s=0.5):
    begin = time.monotonic()
    while True:
        info = await source.execute("query-migrate")
        if info["status"] == "completed":
            return info
        if info["status"] in ("failed", "cancelled"):
            raise RuntimeError(info.get("error-desc", info["status"]))
        if react and time.monotonic() - begin > after_s:
            await react()
            react = None
        await asyncio.sleep(0.05)


async def _fast(source):
    await source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})


async def _slow(source):
    """So slow that nothing is over yet when the next command comes, however busy the machine is."""
    await source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 14})


@mutant("migrate", "never-converges")
async def only_waits(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source)


@mutant("migrate", "active-is-done")
async def believes_the_reply(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _slow(source)
        await _listen(destination, uri)
        return await source.execute("migrate", {"uri": uri})


@mutant("migrate", "active-is-done")
async def active_is_done(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _slow(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        while (info := await source.execute("query-migrate"))["status"] not in ("active", "completed"):
            pass
        return info


@mutant("migrate", "downtime-unlimited")
async def a_minute_of_downtime(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await source.execute("migrate-set-parameters", {"downtime-limit": 60_000})
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source)


@mutant("migrate", "downtime-unlimited")
async def five_seconds_when_it_does_not_end(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):

        async def react():
            await source.execute("migrate-set-parameters", {"downtime-limit": 5_000})

        await source.execute("migrate-set-parameters", {"downtime-limit": 5_000})
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source, react)


@mutant("migrate", "not-live")
async def stops_the_guest_first(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await source.execute("stop")
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        info = await _end(source)
        await destination.execute("cont")
        return info


@mutant("migrate", "not-live")
async def stops_the_guest_when_it_does_not_end(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):

        async def react():
            await source.execute("stop")

        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        info = await _end(source, react)
        await destination.execute("cont")
        return info


@mutant("migrate", "restarted")
async def resets_the_destination(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        info = await _end(source)
        await destination.execute("system_reset")
        return info


@mutant("migrate", "not-moved")
async def only_the_destination_is_told(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _listen(destination, uri)
        return await source.execute("query-migrate") or {"status": "completed"}


@mutant("migrate", "not-moved")
async def stops_one_and_starts_the_other(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await source.execute("stop")
        await destination.execute("cont")
        return {"status": "completed"}


@mutant("migrate", "nobody-listens")
async def forgets_the_destination(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await source.execute("migrate", {"uri": uri})
        return await _end(source)


@mutant("migrate", "split-brain")
async def resumes_the_source(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        info = await _end(source)
        await source.execute("cont")
        return info


@mutant("migrate", "failure-ignored")
async def waits_for_completed_only(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        while (info := await source.execute("query-migrate"))["status"] != "completed":
            await asyncio.sleep(0.05)
        return info


@mutant("migrate", "failure-ignored")
async def any_end_is_an_end(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        while (info := await source.execute("query-migrate"))["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.05)
        return info


@mutant("migrate", "guest-lost")
async def stops_the_source_after_a_failure(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        while (info := await source.execute("query-migrate"))["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.05)
        if info["status"] == "failed":
            await source.execute("stop")
            raise RuntimeError("failed")
        return info


@mutant("migrate", "other-info")
async def returns_the_status(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return (await _end(source))["status"]


@mutant("migrate", "other-info")
async def asks_the_destination(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        await _end(source)
        return {"status": "completed", **await destination.execute("query-status")}


@alternative("migrate")
async def a_faster_wire_from_the_start(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _fast(source)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source)


@alternative("migrate")
async def a_faster_wire_when_it_does_not_end(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source, lambda: _fast(source))


@alternative("migrate")
async def by_events_and_by_rounds(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        await source.execute("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]})
        await _listen(destination, uri)
        with source.listener(("MIGRATION", "MIGRATION_PASS")) as events:
            await source.execute("migrate", {"uri": uri})
            while True:
                event = await events.get()
                if event["event"] == "MIGRATION_PASS" and event["data"]["pass"] >= 2:
                    await _fast(source)
                if event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed"):
                    break
        info = await source.execute("query-migrate")
        if info["status"] == "failed":
            raise RuntimeError("the destination refused")
        return info


@alternative("migrate")
async def post_copy_where_it_can_be_had(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):

        async def react():
            try:
                await source.execute("migrate-start-postcopy")
            except ExecuteError:
                await _fast(source)

        with contextlib.suppress(ExecuteError):
            for machine in (destination, source):
                arguments = {"capabilities": [{"capability": "postcopy-ram", "state": True}]}
                await machine.execute("migrate-set-capabilities", arguments)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source, react, after_s=0.3)


@alternative("migrate")
async def a_slower_guest_and_a_faster_wire(source_path, destination_path, uri):
    async with _both(source_path, destination_path) as (source, destination):
        arguments = {"capabilities": [{"capability": "auto-converge", "state": True}]}
        await source.execute("migrate-set-capabilities", arguments)
        arguments = {"max-bandwidth": 256 * MIB, "downtime-limit": 800, "cpu-throttle-initial": 80}
        await source.execute("migrate-set-parameters", arguments)
        await _listen(destination, uri)
        await source.execute("migrate", {"uri": uri})
        return await _end(source)


@alternative("migrate")
def by_hand(source_path, destination_path, uri):
    source, destination = Raw(source_path), Raw(destination_path)
    destination("migrate-incoming", uri=uri)
    source("migrate-set-parameters", max_bandwidth=1 << 33)
    source("migrate", uri=uri)
    while (info := source("query-migrate"))["status"] != "completed":
        if info["status"] == "failed":
            raise RuntimeError("failed")
        time.sleep(0.05)
    while destination("query-status")["status"] == "inmigrate":
        time.sleep(0.02)
    return info
