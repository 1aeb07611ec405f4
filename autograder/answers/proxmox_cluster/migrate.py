"""Answers to `migrate`."""

from __future__ import annotations

import re
import time

from .. import alternative, mutant
from .connection import connect, guest, linger, place, wait

_LINE = re.compile(r"average migration speed: ([\d.]+) ([KMG])iB/s - downtime (\d+) ms")


def _report(api, upid):
    lines = [line["t"] for line in api.nodes(upid.split(":")[1]).tasks(upid).log.get(limit=500)]
    speed, unit, downtime = next(filter(None, map(_LINE.search, lines))).groups()
    scale = {"K": 1 / 1024, "M": 1, "G": 1024}[unit]
    return {"upid": upid, "downtime_ms": int(downtime), "speed_mib_s": float(speed) * scale}


@mutant("migrate", "restarted")
def stops_moves_and_starts(access, vmid, target):
    api = connect(access)
    wait(api, guest(api, vmid).status.stop.post())
    upid = wait(api, guest(api, vmid).migrate.post(target=target))
    wait(api, api.nodes(target).qemu(vmid).status.start.post())
    return {"upid": upid, "downtime_ms": 0, "speed_mib_s": 0.0}


@mutant("migrate", "left-stopped")
def moves_it_asleep(access, vmid, target):
    api = connect(access)
    wait(api, guest(api, vmid).status.stop.post())
    upid = wait(api, guest(api, vmid).migrate.post(target=target))
    return {"upid": upid, "downtime_ms": 0, "speed_mib_s": 0.0}


@mutant("migrate", "accepted-is-done")
def returns_the_promise(access, vmid, target):
    api = connect(access)
    upid = guest(api, vmid).migrate.post(target=target, online=1)
    return {"upid": upid, "downtime_ms": 1, "speed_mib_s": 1.0}


@mutant("migrate", "not-moved")
def asks_whether_it_could(access, vmid, target):
    api = connect(access)
    here = guest(api, vmid).migrate.get(target=target)
    return {"upid": "", "downtime_ms": 0, "speed_mib_s": 0.0, "allowed": bool(here)}


@mutant("migrate", "other-task")
def the_oldest_log_there_is(access, vmid, target):
    api = connect(access)
    wait(api, guest(api, vmid).migrate.post(target=target, online=1))
    starts = [task["upid"] for task in api.cluster.tasks.get() if task["type"] == "qmstart"]
    return {"upid": starts[-1], "downtime_ms": 1, "speed_mib_s": 1.0}


@mutant("migrate", "other-numbers")
def numbers_of_its_own(access, vmid, target):
    api = connect(access)
    start = time.monotonic()
    upid = wait(api, guest(api, vmid).migrate.post(target=target, online=1))
    seconds = time.monotonic() - start
    return {"upid": upid, "downtime_ms": 1000 * (1 + seconds), "speed_mib_s": 64 / seconds}


@mutant("migrate", "other-report")
def a_sentence(access, vmid, target):
    api = connect(access)
    upid = wait(api, guest(api, vmid).migrate.post(target=target, online=1))
    return "downtime {downtime_ms} ms, speed {speed_mib_s} MiB/s".format(**_report(api, upid))


@mutant("migrate", "failure-hidden")
def nothing_to_report(access, vmid, target):
    api = connect(access)
    upid = guest(api, vmid).migrate.post(target=target, online=1)
    linger(api, upid)
    try:
        return _report(api, upid)
    except TypeError:
        return {"upid": upid, "downtime_ms": 0, "speed_mib_s": 0.0}
    except StopIteration:
        return {"upid": upid, "downtime_ms": 0, "speed_mib_s": 0.0}


@alternative("migrate")
def word_by_word(access, vmid, target):
    api = connect(access)
    source = place(api, vmid)
    upid = api.nodes(source).qemu(vmid).migrate.post(target=target, online=1)
    wait(api, upid)
    for line in api.nodes(source).tasks(upid).log.get(limit=500):
        words = line["t"].split()
        if "average" in words:
            speed, unit = float(words[words.index("speed:") + 1]), words[words.index("speed:") + 2]
            downtime = int(words[words.index("downtime") + 1])
            scale = {"KiB/s": 1 / 1024, "MiB/s": 1, "GiB/s": 1024}[unit]
            return {"upid": upid, "downtime_ms": downtime, "speed_mib_s": speed * scale, "source": source}
    raise RuntimeError("no word about downtime")


@alternative("migrate")
def from_the_text_of_the_whole_log(access, vmid, target):
    api = connect(access)
    upid = wait(api, guest(api, vmid).migrate.post(target=target, online=1))
    return _report(api, upid)
