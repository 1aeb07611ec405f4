"""Answers to `footprint`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from .. import alternative, mutant


def _kib(pid, field):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1])


def _right(pid):
    return {"rss": _kib(pid, "Rss") / 1024, "pss": _kib(pid, "Pss") / 1024}


@mutant("footprint", "vmsize")
def virtual_size(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return {"rss": pages * os.sysconf("SC_PAGESIZE") / 2**20, "pss": _kib(pid, "Pss") / 1024}


@mutant("footprint", "vmsize")
def vms_of_psutil(pid):
    size = psutil.Process(pid).memory_info().vms / 2**20
    return {"rss": size, "pss": size}


@mutant("footprint", "promised")
def what_was_promised(pid):
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    promised = float(words[words.index(b"-m") + 1])
    return {"rss": promised, "pss": promised}


@mutant("footprint", "pss-is-rss")
def shared_pages_in_full(pid):
    rss = _kib(pid, "Rss") / 1024
    return {"rss": rss, "pss": rss}


@mutant("footprint", "kib-as-mib")
def kib(pid):
    return {"rss": _kib(pid, "Rss"), "pss": _kib(pid, "Pss")}


@mutant("footprint", "bytes-as-mib")
def in_bytes(pid):
    return {"rss": _kib(pid, "Rss") * 1024, "pss": _kib(pid, "Pss") * 1024}


@mutant("footprint", "mb-not-mib")
def thousand(pid):
    return {"rss": _kib(pid, "Rss") / 1000, "pss": _kib(pid, "Pss") / 1000}


@mutant("footprint", "pss-differs")
def last_line_that_begins_alike(pid):
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        for name in ("Rss", "Pss"):
            if line.startswith(name):
                found[name.lower()] = int(line.split()[1]) / 1024
    return found


@mutant("footprint", "rss-differs")
def myself(pid):
    return _right("self")


@mutant("footprint", "pss-differs")
def private_only(pid):
    private = _kib(pid, "Private_Clean") + _kib(pid, "Private_Dirty")
    return {"rss": _kib(pid, "Rss") / 1024, "pss": private / 1024}


@mutant("footprint", "not-a-dict")
def a_pair(pid):
    return tuple(_right(pid).values())


@mutant("footprint", "forgot-return")
def no_return(pid):
    _right(pid)


@alternative("footprint")
def with_psutil(pid):
    info = psutil.Process(pid).memory_full_info()
    return {"rss": info.rss / 2**20, "pss": info.pss / 2**20}


@alternative("footprint")
def sum_of_the_detailed_map(pid):
    text = Path(f"/proc/{pid}/smaps").read_text()
    return {name.lower(): sum(map(int, re.findall(rf"^{name}:\s+(\d+)", text, re.M))) / 1024 for name in ("Rss", "Pss")}


@alternative("footprint")
def line_by_line(pid):
    result = {}
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        for line in lines:
            key = line.partition(":")[0]
            if key in ("Rss", "Pss"):
                result[key.lower()] = int(line.split()[1]) / 1024
    return result
