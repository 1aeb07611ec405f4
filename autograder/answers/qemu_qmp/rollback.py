"""Answers to `rollback`."""

from __future__ import annotations

import asyncio
import uuid

from .. import alternative, mutant
from .checkpoint import _concluded, _finish, _node
from .session import Raw, session


async def _start(qmp, tag, job, node=None):
    node = node or await _node(qmp)
    await qmp.execute("snapshot-load", {"job-id": job, "tag": tag, "vmstate": node, "devices": [node]})


async def _was_running(qmp):
    return (await qmp.execute("query-status"))["status"] == "running"


@mutant("rollback", "restarted")
async def a_restart(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("system_reset")
        await qmp.execute("cont")
        await asyncio.sleep(0.3)


@mutant("rollback", "nothing-restored")
async def keeps_instead_of_loading(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            node = await _node(qmp)
            arguments = {"job-id": "back", "tag": f"{tag}-2", "vmstate": node, "devices": [node]}
            await qmp.execute("snapshot-save", arguments)
            await _concluded(events, "back")
        await _finish(qmp, "back")


@mutant("rollback", "nothing-restored")
async def only_pauses(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        await qmp.execute("stop")
        if running:
            await qmp.execute("cont")


@mutant("rollback", "did-not-wait")
async def believes_the_reply(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await _start(qmp, tag, f"job-{uuid.uuid4().hex}")


@mutant("rollback", "job-not-dismissed")
async def leaves_the_job(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running, job = await _was_running(qmp), f"job-{uuid.uuid4().hex}"
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, job)
            await _concluded(events, job)
        if running:
            await qmp.execute("cont")


@mutant("rollback", "job-error-ignored")
async def concluded_is_success(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back")
            await _concluded(events, "back")
        await qmp.execute("query-jobs")
        await qmp.execute("job-dismiss", {"id": "back"})
        if running:
            await qmp.execute("cont")


@mutant("rollback", "job-error-ignored")
async def loadvm_has_no_errors(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        await qmp.execute("human-monitor-command", {"command-line": f"loadvm {tag}"})
        if running:
            await qmp.execute("cont")


@mutant("rollback", "left-paused")
async def pauses_and_forgets(qmp_path, tag):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back")
            await _concluded(events, "back")
        await _finish(qmp, "back")


@mutant("rollback", "left-paused")
async def stays_stopped_after_a_failure(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back")
            await _concluded(events, "back")
        await _finish(qmp, "back")


@mutant("rollback", "left-running")
async def always_continues(qmp_path, tag):
    async with session(qmp_path) as qmp:
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back")
            await _concluded(events, "back")
        await qmp.execute("cont")
        await _finish(qmp, "back")


@mutant("rollback", "node-name")
async def the_node_of_the_lesson(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back", node="disk0")
            await _concluded(events, "back")
        if running:
            await qmp.execute("cont")
        await _finish(qmp, "back")


@alternative("rollback")
async def by_events(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            await _start(qmp, tag, "back")
            await _concluded(events, "back")
        if running:
            await qmp.execute("cont")
        await _finish(qmp, "back")


@alternative("rollback")
async def by_asking_while_paused(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        await qmp.execute("stop")
        try:
            await _start(qmp, tag, "back")
            while (await qmp.execute("query-jobs"))[0]["status"] != "concluded":
                await asyncio.sleep(0.02)
            await _finish(qmp, "back")
        finally:
            if running:
                await qmp.execute("cont")


@alternative("rollback")
async def through_the_human_monitor(qmp_path, tag):
    async with session(qmp_path) as qmp:
        running = await _was_running(qmp)
        said = await qmp.execute("human-monitor-command", {"command-line": f"loadvm {tag}"})
        if running:
            await qmp.execute("cont")
        if said.strip():
            raise RuntimeError(said)


@alternative("rollback")
def by_hand(qmp_path, tag):
    qmp = Raw(qmp_path)
    running = qmp("query-status")["running"]
    [node] = [n["node-name"] for n in qmp("query-named-block-nodes") if n["drv"] == "qcow2"]
    qmp("snapshot-load", job_id="back", tag=tag, vmstate=node, devices=[node])
    while qmp.wait("JOB_STATUS_CHANGE")["data"]["status"] != "concluded":
        pass
    [job] = qmp("query-jobs")
    qmp("job-dismiss", id="back")
    if running:
        qmp("cont")
    qmp.close()
    assert "error" not in job, job["error"]
