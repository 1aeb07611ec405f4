"""Answers to `backup`."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

from course.machine import disk

from .. import alternative, mutant
from .session import Raw, session


async def _image(qmp):
    inserted = [entry["inserted"] for entry in await qmp.execute("query-block") if "inserted" in entry]
    return inserted[0]


async def _size_mib(qmp):
    return (await _image(qmp))["image"]["virtual-size"] >> 20


async def _add(qmp, path, driver="qcow2"):
    file = {"driver": "file", "filename": path}
    await qmp.execute("blockdev-add", {"driver": driver, "node-name": "target", "file": file})


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


async def _copy(qmp, node, *, sync="full", **more):
    with qmp.listener("JOB_STATUS_CHANGE") as events:
        arguments = {"job-id": "copy", "device": node, "target": "target", "sync": sync, "auto-dismiss": False}
        await qmp.execute("blockdev-backup", {**arguments, **more})
        await _concluded(events, "copy")
    await _finish(qmp, "copy")


@mutant("backup", "torn")
async def cp_of_the_live_file(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        shutil.copyfile((await _image(qmp))["image"]["filename"], target_file)


@mutant("backup", "torn")
async def convert_by_force(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        source = (await _image(qmp))["image"]["filename"]
        subprocess.run(["qemu-img", "convert", "-U", "-O", "qcow2", source, target_file], check=True)


@mutant("backup", "disk-in-use")
async def convert_without_force(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.convert((await _image(qmp))["image"]["filename"], target_file)


@mutant("backup", "empty")
async def only_an_empty_file(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))


@mutant("backup", "no-file")
async def nothing(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        await qmp.execute("query-block")


@mutant("backup", "not-live")
async def stop_and_cp(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        await qmp.execute("stop")
        shutil.copyfile((await _image(qmp))["image"]["filename"], target_file)
        await qmp.execute("cont")


@mutant("backup", "chain-grew")
async def a_snapshot_and_cp(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        image = await _image(qmp)
        base = image["image"]["filename"]
        overlay = str(Path(base).with_name("overlay.qcow2"))
        arguments = {"node-name": image["node-name"], "snapshot-file": overlay, "snapshot-node-name": "overlay"}
        await qmp.execute("blockdev-snapshot-sync", arguments)
        shutil.copyfile(base, target_file)


@mutant("backup", "pivoted")
async def a_mirror_that_takes_over(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        image = await _image(qmp)
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        with qmp.listener(("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED")) as events:
            arguments = {"job-id": "copy", "device": image["node-name"], "target": "target", "sync": "full"}
            await qmp.execute("blockdev-mirror", arguments)
            await events.get()
            await qmp.execute("job-complete", {"id": "copy"})
            await events.get()


@mutant("backup", "did-not-wait")
async def believes_the_reply(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        node = (await _image(qmp))["node-name"]
        arguments = {"job-id": "copy", "device": node, "target": "target", "sync": "full"}
        await qmp.execute("blockdev-backup", arguments)


@mutant("backup", "did-not-wait")
async def only_what_is_overwritten(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        node = (await _image(qmp))["node-name"]
        arguments = {"job-id": "copy", "device": node, "target": "target", "sync": "none"}
        await qmp.execute("blockdev-backup", arguments)
        while (await qmp.execute("query-jobs"))[0]["status"] != "running":
            await asyncio.sleep(0.02)


@mutant("backup", "job-not-dismissed")
async def leaves_the_job(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        node = (await _image(qmp))["node-name"]
        with qmp.listener("JOB_STATUS_CHANGE") as events:
            arguments = {"job-id": "copy", "device": node, "target": "target", "sync": "full", "auto-dismiss": False}
            await qmp.execute("blockdev-backup", arguments)
            await _concluded(events, "copy")
        await qmp.execute("blockdev-del", {"node-name": "target"})


@mutant("backup", "target-left-open")
async def leaves_the_node(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        await _copy(qmp, (await _image(qmp))["node-name"])


@mutant("backup", "wrong-size")
async def a_larger_disk_cut_from_the_snapshot(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, 2 * await _size_mib(qmp))


@mutant("backup", "only-top")
async def only_the_top_of_the_chain(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        await _copy(qmp, (await _image(qmp))["node-name"], sync="top")
        await qmp.execute("blockdev-del", {"node-name": "target"})


@mutant("backup", "only-top")
async def a_copy_that_leans_on_the_base(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        image = await _image(qmp)
        backing = image["image"].get("full-backing-filename")
        disk.create(target_file, await _size_mib(qmp), backing=backing)
        await _add(qmp, target_file)
        await _copy(qmp, image["node-name"], sync="top")
        await qmp.execute("blockdev-del", {"node-name": "target"})


@mutant("backup", "node-name")
async def the_node_of_the_lesson(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, 16)
        await _add(qmp, target_file)
        await _copy(qmp, "disk0")
        await qmp.execute("blockdev-del", {"node-name": "target"})


@mutant("backup", "error-swallowed")
async def prints_errors(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        try:
            disk.create(target_file, await _size_mib(qmp))
            await _add(qmp, target_file)
            await _copy(qmp, (await _image(qmp))["node-name"])
            await qmp.execute("blockdev-del", {"node-name": "target"})
        except Exception as error:
            print("backup failed:", error)


@alternative("backup")
async def blockdev_backup_by_events(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        try:
            await _copy(qmp, (await _image(qmp))["node-name"])
        finally:
            await qmp.execute("blockdev-del", {"node-name": "target"})


@alternative("backup")
async def blockdev_backup_by_asking_into_a_raw_file(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        with Path(target_file).open("wb") as file:
            file.truncate(await _size_mib(qmp) << 20)
        await _add(qmp, target_file, driver="raw")
        node = (await _image(qmp))["node-name"]
        await qmp.execute("blockdev-backup", {"device": node, "job-id": "copy", "target": "target", "sync": "full"})
        while await qmp.execute("query-block-jobs"):
            await asyncio.sleep(0.02)
        await qmp.execute("blockdev-del", {"node-name": "target"})


@alternative("backup")
async def a_mirror_that_is_cut_off(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        disk.create(target_file, await _size_mib(qmp))
        await _add(qmp, target_file)
        node = (await _image(qmp))["node-name"]
        with qmp.listener(("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")) as events:
            arguments = {"job-id": "copy", "device": node, "target": "target", "sync": "full"}
            await qmp.execute("blockdev-mirror", {**arguments, "copy-mode": "write-blocking"})
            await events.get()
            await qmp.execute("block-job-cancel", {"device": "copy"})
            await events.get()
        await qmp.execute("blockdev-del", {"node-name": "target"})


@alternative("backup")
async def a_snapshot_that_is_merged_back(qmp_path, target_file):
    async with session(qmp_path) as qmp:
        image = await _image(qmp)
        base = image["image"]["filename"]
        overlay = str(Path(base).with_name("overlay.qcow2"))
        arguments = {"node-name": image["node-name"], "snapshot-file": overlay, "snapshot-node-name": "overlay"}
        await qmp.execute("blockdev-snapshot-sync", arguments)
        copied = subprocess.run(["qemu-img", "convert", "-U", "-O", "qcow2", base, target_file])
        with qmp.listener(("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED")) as events:
            arguments = {"job-id": "merge", "device": "overlay", "base-node": image["node-name"]}
            await qmp.execute("block-commit", arguments)
            await events.get()
            await qmp.execute("job-complete", {"id": "merge"})
            await events.get()
        copied.check_returncode()


@alternative("backup")
def by_hand_with_drive_backup(qmp_path, target_file):
    qmp = Raw(qmp_path)
    [node] = [e["inserted"]["node-name"] for e in qmp("query-block") if "inserted" in e]
    qmp("drive-backup", device=node, job_id="copy", target=target_file, sync="full", format="qcow2")
    qmp.wait("BLOCK_JOB_COMPLETED")
    qmp.close()
