"""Answers to `checkpoint`."""

from __future__ import annotations

import asyncio
import uuid

from .. import alternative, mutant
from .session import Raw, session


async def _node(qmp):
    for node in await qmp.execute("query-named-block-nodes"):
        if node["drv"] == "qcow2" and not node["ro"]:
            return node["node-name"]


async def _start(qmp, tag, job, node=None):
    node = node or await _node(qmp)
    arguments = {"job-id": job, "tag": tag, "vmstate": node, "devices": [node]}
    await qmp.execute("snapshot-save", arguments)


async def _concluded(events, job):
    while True:
        data = (await events.get())["data"]
        if (data["id"], data["status"]) == (job, "concluded"):
            return


async def _finish(qmp, job):
    [found] = [j for j in await qmp.execute("query-jobs") if j["id"] == job]
    await qmp.execute("job-dismiss", {"id": job})
    if "error" in found:
        raise RuntimeError(found["error"])


@mutant("checkpoint", "snapshot-disk-only")
async def only_the_disk(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("blockdev-snapshot-internal-sync", {"device": await _node(qmp), "name": tag})


@mutant("checkpoint", "nothing-kept")
async def an_external_snapshot(qmp_path, tag):
    async with session(qmp_path) as qmp:
        overlay = f"{qmp_path}.{uuid.uuid4().hex}.qcow2"
        arguments = {"node-name": await _node(qmp), "snapshot-file": overlay, "snapshot-node-name": "overlay"}
        await qmp.execute("blockdev-snapshot-sync", arguments)


@mutant("checkpoint", "nothing-kept")
async def only_paused(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        await qmp.execute("cont")


@mutant("checkpoint", "nothing-kept")
async def no_device_named(qmp_path, tag):
    async with session(qmp_path) as qmp:
        node = await _node(qmp)
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await qmp.execute("snapshot-save", {"job-id": "keep", "tag": tag, "vmstate": node, "devices": []})
            await _concluded(events, "keep")
        await qmp.execute("query-jobs")
        await qmp.execute("job-dismiss", {"id": "keep"})


@mutant("checkpoint", "did-not-wait")
async def believes_the_reply(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await _start(qmp, tag, f"job-{uuid.uuid4().hex}")


@mutant("checkpoint", "did-not-wait")
async def waits_for_the_first_news(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, f"job-{uuid.uuid4().hex}")
            await events.get()


@mutant("checkpoint", "job-not-dismissed")
async def leaves_the_job(qmp_path, tag):
    async with session(qmp_path) as qmp:
        job = f"job-{uuid.uuid4().hex}"
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, job)
            await _concluded(events, job)
        [found] = [j for j in await qmp.execute("query-jobs") if j["id"] == job]
        if "error" in found:
            raise RuntimeError(found["error"])


@mutant("checkpoint", "job-error-ignored")
async def concluded_is_success(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "keep")
            await _concluded(events, "keep")
        await qmp.execute("job-dismiss", {"id": "keep"})


@mutant("checkpoint", "job-error-ignored")
async def savevm_has_no_errors(qmp_path, tag):
    async with session(qmp_path) as qmp:
        known = await qmp.execute("human-monitor-command", {"command-line": "info snapshots"})
        if tag not in known:
            await qmp.execute("human-monitor-command", {"command-line": f"savevm {tag}"})


@mutant("checkpoint", "job-not-dismissed")
async def leaves_a_failed_job(qmp_path, tag):
    async with session(qmp_path) as qmp:
        job = f"job-{uuid.uuid4().hex}"
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, job)
            await _concluded(events, job)
        [found] = [j for j in await qmp.execute("query-jobs") if j["id"] == job]
        if "error" in found:
            raise RuntimeError(found["error"])
        await qmp.execute("job-dismiss", {"id": job})


@mutant("checkpoint", "left-paused")
async def pauses_and_forgets(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "keep")
            await _concluded(events, "keep")
        await _finish(qmp, "keep")


@mutant("checkpoint", "left-paused")
async def stays_paused_after_a_failure(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "keep")
            await _concluded(events, "keep")
        await _finish(qmp, "keep")
        await qmp.execute("cont")


@mutant("checkpoint", "node-name")
async def the_node_of_the_lesson(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "keep", node="disk0")
            await _concluded(events, "keep")
        await _finish(qmp, "keep")


@alternative("checkpoint")
async def by_events(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "keep")
            await _concluded(events, "keep")
        await _finish(qmp, "keep")


@alternative("checkpoint")
async def by_asking(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await _start(qmp, tag, "keep")
        while (await qmp.execute("query-jobs"))[0]["status"] != "concluded":
            await asyncio.sleep(0.02)
        await _finish(qmp, "keep")


@alternative("checkpoint")
async def while_paused(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        try:
            await _start(qmp, tag, "keep")
            while (await qmp.execute("query-jobs"))[0]["status"] != "concluded":
                await asyncio.sleep(0.02)
            await _finish(qmp, "keep")
        finally:
            await qmp.execute("cont")


@alternative("checkpoint")
async def through_the_human_monitor(qmp_path, tag):
    async with session(qmp_path) as qmp:
        said = await qmp.execute("human-monitor-command", {"command-line": f"savevm {tag}"})
        if said.strip():
            raise RuntimeError(said)


@alternative("checkpoint")
def by_hand(qmp_path, tag):
    qmp = Raw(qmp_path)
    [node] = [n["node-name"] for n in qmp("query-named-block-nodes") if n["drv"] == "qcow2"]
    qmp("snapshot-save", job_id="keep", tag=tag, vmstate=node, devices=[node])
    while qmp.wait("JOB_STATUS_CHANGE")["data"]["status"] != "concluded":
        pass
    [job] = qmp("query-jobs")
    qmp("job-dismiss", id="keep")
    qmp.close()
    assert "error" not in job, job["error"]
