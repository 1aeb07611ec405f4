"""Answers to `measure`."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

from autograder.answers import alternative, mutant
from course import container

KINDS = ("process", "container", "vm")


def _ready(lab, number):
    while line := container.read_line(lab, number):
        if line.startswith("READY"):
            return line.split()[1]
    return ""


def _sample(lab, kind):
    begin = time.perf_counter()
    number = container.start(lab, kind)
    nonce = _ready(lab, number)
    ms = (time.perf_counter() - begin) * 1000
    boot_id = container.ask(lab, number, "boot_id")
    container.stop(lab, number)
    return {"ms": ms, "nonce": nonce, "boot_id": boot_id}


@alternative("measure")
def kind_after_kind(lab, runs):
    return {kind: [_sample(lab, kind) for _ in range(runs)] for kind in KINDS}


@alternative("measure")
def interleaved_with_more_facts(lab, runs):
    samples = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind in reversed(KINDS):
            samples[kind].append({**_sample(lab, kind), "kind": kind})
    return samples


@alternative("measure")
def clock_in_nanoseconds(lab, runs):
    def one(kind):
        begin = time.monotonic_ns()
        number = container.start(lab, kind)
        word = _ready(lab, number)
        end = time.monotonic_ns()
        try:
            return {"ms": (end - begin) / 1e6, "nonce": word, "boot_id": container.ask(lab, number, "boot_id") + "\n"}
        finally:
            container.stop(lab, number)

    return {kind: [one(kind) for _ in range(runs)] for kind in KINDS}


def _changed(lab, runs, change):
    return {kind: [change(kind, sample) for sample in samples] for kind, samples in kind_after_kind(lab, runs).items()}


@mutant("measure", "started-is-not-ready")
def as_soon_as_it_is_started(lab, runs):
    def one(kind):
        begin = time.perf_counter()
        number = container.start(lab, kind)
        ms = (time.perf_counter() - begin) * 1000
        nonce, boot_id = _ready(lab, number), container.ask(lab, number, "boot_id")
        container.stop(lab, number)
        return {"ms": ms, "nonce": nonce, "boot_id": boot_id}

    return {kind: [one(kind) for _ in range(runs)] for kind in KINDS}


@mutant("measure", "first-line-is-not-ready")
def at_its_first_line(lab, runs):
    def one(kind):
        begin = time.perf_counter()
        number = container.start(lab, kind)
        line = container.read_line(lab, number)
        ms = (time.perf_counter() - begin) * 1000
        nonce = line.split()[1] if line.startswith("READY") else _ready(lab, number)
        boot_id = container.ask(lab, number, "boot_id")
        container.stop(lab, number)
        return {"ms": ms, "nonce": nonce, "boot_id": boot_id}

    return {kind: [one(kind) for _ in range(runs)] for kind in KINDS}


@mutant("measure", "too-few-samples")
def once_is_enough(lab, runs):
    return kind_after_kind(lab, 1)


@mutant("measure", "not-raw")
def averages(lab, runs):
    return {k: [fmean(s["ms"] for s in samples)] for k, samples in kind_after_kind(lab, runs).items()}


@mutant("measure", "no-witness")
def one_sample_copied(lab, runs):
    return {kind: [_sample(lab, kind)] * runs for kind in KINDS}


@mutant("measure", "no-witness")
def made_up(lab, runs):
    typical = {"process": 3.0, "container": 15.0, "vm": 90.0}
    return {k: [{"ms": ms, "nonce": f"{i:08x}", "boot_id": "?"} for i in range(runs)] for k, ms in typical.items()}


@mutant("measure", "seconds")
def in_seconds(lab, runs):
    return _changed(lab, runs, lambda kind, sample: {**sample, "ms": sample["ms"] / 1000})


@mutant("measure", "cumulated")
def one_clock_for_all(lab, runs):
    samples = {}
    for kind in KINDS:
        begin, samples[kind] = time.perf_counter(), []
        for _ in range(runs):
            sample = _sample(lab, kind)
            samples[kind].append({**sample, "ms": (time.perf_counter() - begin) * 1000})
    return samples


@mutant("measure", "too-long")
def rests_within_the_measurement(lab, runs):
    def one(kind):
        begin = time.perf_counter()
        number = container.start(lab, kind)
        nonce = _ready(lab, number)
        time.sleep(0.12)
        ms = (time.perf_counter() - begin) * 1000
        boot_id = container.ask(lab, number, "boot_id")
        container.stop(lab, number)
        return {"ms": ms, "nonce": nonce, "boot_id": boot_id}

    return {kind: [one(kind) for _ in range(runs)] for kind in KINDS}


@mutant("measure", "boot-id-of-process")
def boot_id_of_this_machine(lab, runs):
    own = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _changed(lab, runs, lambda kind, sample: {**sample, "boot_id": own})


@mutant("measure", "boot-id-of-vm")
def boot_id_of_the_host_for_all(lab, runs):
    samples = kind_after_kind(lab, runs)
    host = samples["process"][0]["boot_id"]
    return {kind: [{**sample, "boot_id": host} for sample in group] for kind, group in samples.items()}


@mutant("measure", "left-running")
def stops_nothing(lab, runs):
    def one(kind):
        begin = time.perf_counter()
        number = container.start(lab, kind)
        nonce = _ready(lab, number)
        ms = (time.perf_counter() - begin) * 1000
        return {"ms": ms, "nonce": nonce, "boot_id": container.ask(lab, number, "boot_id")}

    return {kind: [one(kind) for _ in range(runs)] for kind in KINDS}


@mutant("measure", "raised")
def asks_before_it_is_ready(lab, runs):
    number = container.start(lab, "vm")
    return container.ask(lab, number, "boot_id")


@mutant("measure", "not-samples")
def forgets_the_container(lab, runs):
    samples = kind_after_kind(lab, runs)
    return {"process": samples["process"], "vm": samples["vm"]}


@mutant("measure", "unanswered")
def measure_untouched(lab, runs):
    raise NotImplementedError
