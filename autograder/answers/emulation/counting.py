"""Answers to `tcg_counts`, `expansion` and `slowdown`."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from autograder.answers import alternative, mutant
from course.isa import tcg


def lines_of(path, items, single_step):
    options = [tcg.single_step_option()] if single_step else []
    return tcg.log(path, items, *options).splitlines()


def starting(lines, word):
    return sum(line.startswith(word) for line in lines)


# ── tcg_counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@alternative("tcg_counts")
def by_counter(path, single_step):
    lines = lines_of(path, "in_asm,exec,nochain", single_step)
    words = Counter(line.split()[0] for line in lines if line.strip())
    return {"translated": words["IN:"], "executed": words["Trace"]}


@alternative("tcg_counts")
def by_subprocess(path, single_step):
    shown = subprocess.run(["qemu-x86_64", "--help"], capture_output=True, text=True).stdout
    option = "-one-insn-per-tb" if "-one-insn-per-tb" in shown else "-singlestep"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "qemu.log")
        command = ["qemu-x86_64", *([option] if single_step else []), "-d", "in_asm,exec,nochain", "-D", log, path]
        subprocess.run(command, capture_output=True)
        text = log.read_text()
    return {"translated": len(re.findall(r"^IN:", text, re.M)), "executed": len(re.findall(r"^Trace ", text, re.M))}


@alternative("tcg_counts")
def in_two_runs(path, single_step):
    return {
        "translated": starting(lines_of(path, "in_asm", single_step), "IN:"),
        "executed": starting(lines_of(path, "exec,nochain", single_step), "Trace "),
    }


@mutant("tcg_counts", "chained-blocks-missing")
def without_nochain(path, single_step):
    lines = lines_of(path, "in_asm,exec", single_step)
    return {"translated": starting(lines, "IN:"), "executed": starting(lines, "Trace ")}


@mutant("tcg_counts", "in-is-not-executed")
def in_for_executions(path, single_step):
    lines = lines_of(path, "in_asm,exec,nochain", single_step)
    return {"translated": starting(lines, "IN:"), "executed": starting(lines, "IN:")}


@mutant("tcg_counts", "executed-is-not-translated")
def traces_for_translations(path, single_step):
    lines = lines_of(path, "in_asm,exec,nochain", single_step)
    return {"translated": starting(lines, "Trace "), "executed": starting(lines, "Trace ")}


@mutant("tcg_counts", "single-step-ignored")
def never_single_steps(path, single_step):
    return by_counter(path, False)


@mutant("tcg_counts", "always-single-step")
def always_single_steps(path, single_step):
    return by_counter(path, True)


@mutant("tcg_counts", "counts-instructions")
def counts_instructions(path, single_step):
    lines = lines_of(path, "in_asm,exec,nochain", single_step)
    return {"translated": starting(lines, "IN:"), "executed": starting(lines, "0x")}


@mutant("tcg_counts", "wrong-counts")
def a_formula(path, single_step):
    code = Path(path).read_bytes()[120:]
    rounds = int.from_bytes(code[1:5], "little")
    return {"translated": 8, "executed": 3 * rounds + 5} if single_step else {"translated": 3, "executed": rounds + 1}


# ── expansion ────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse(log, prologue=False, markers=False, data=False, twice=False, guest="IN:"):
    counts, section = {"guest": 0, "ops": 0, "host": 0}, ""
    for line in log.splitlines():
        if re.match(r"PROLOGUE|IN:|OP|OUT:", line):
            section = line.split(":")[0]
        elif not line.strip():
            continue
        elif section == "IN" and line.startswith("0x"):
            counts["guest"] += 1
        elif section == "OP" or (twice and section.startswith("OP")):
            counts["ops"] += line.startswith(" ") and (markers or not line.startswith(" ----"))
        elif (section == "OUT" or (prologue and section == "PROLOGUE")) and line.startswith("0x"):
            counts["host"] += data or ".quad" not in line
    return counts


@alternative("expansion")
def by_regular_expressions(log):
    return parse(log)


@alternative("expansion")
def by_paragraphs(log):
    guest = ops = host = 0
    for block in re.split(r"^-{16}$", log, flags=re.M)[1:]:
        into, _, rest = block.partition("OP:")
        middle, _, out = rest.partition("OUT:")
        middle = middle.split("OP after")[0]
        guest += len(re.findall(r"^0x", into, re.M))
        ops += len(re.findall(r"^ (?!-{4})\S", middle, re.M))
        host += sum(line.startswith("0x") and ".quad" not in line for line in out.splitlines())
    return {"guest": guest, "ops": ops, "host": host}


@mutant("expansion", "prologue-counted")
def counts_the_prologue(log):
    return parse(log, prologue=True)


@mutant("expansion", "markers-counted")
def counts_the_markers(log):
    return parse(log, markers=True)


@mutant("expansion", "data-counted")
def counts_the_constants(log):
    return parse(log, data=True)


@mutant("expansion", "heading-not-alone")
def compares_whole_headings(log):
    return {**parse(log), "host": parse(log.replace("OUT: [", "OTHER: ["))["host"]}


@mutant("expansion", "remarks-counted")
def every_line_under_out(log):
    more = sum(line.startswith("  ") for line in log.splitlines())
    return {**parse(log), "host": parse(log)["host"] + more}


@mutant("expansion", "counted-twice")
def counts_both_op_sections(log):
    return parse(log, twice=True)


@mutant("expansion", "counts-blocks")
def blocks_for_instructions(log):
    return {**parse(log), "guest": log.count("IN:")}


@mutant("expansion", "host-as-guest")
def every_line_of_code(log):
    everything = sum(line.startswith("0x") for line in log.splitlines())
    return {**parse(log), "guest": everything}


# ── slowdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def factors(samples, base, average, value=lambda run: run[1] / run[0]):
    each = {name: average([value(run) for run in runs]) for name, runs in samples.items()}
    return {name: number / each[base] for name, number in each.items()}


@alternative("slowdown")
def with_sorted(samples, base):
    return factors(samples, base, lambda values: sorted(values)[len(values) // 2])


@alternative("slowdown")
def by_speeds(samples, base):
    speed = {name: statistics.median(n / s for n, s in runs) for name, runs in samples.items()}
    return {name: speed[base] / value for name, value in speed.items()}


@mutant("slowdown", "mean-with-outliers")
def with_the_mean(samples, base):
    return factors(samples, base, statistics.fmean)


@mutant("slowdown", "fastest-run")
def with_the_minimum(samples, base):
    return factors(samples, base, min)


@mutant("slowdown", "first-is-base")
def divides_by_the_first(samples, base):
    return factors(samples, next(iter(samples)), statistics.median)


@mutant("slowdown", "not-divided")
def seconds_per_round(samples, base):
    return {name: statistics.median(s / n for n, s in runs) for name, runs in samples.items()}


@mutant("slowdown", "sum-by-sum")
def all_seconds_by_all_rounds(samples, base):
    each = {name: sum(s for _, s in runs) / sum(n for n, _ in runs) for name, runs in samples.items()}
    return {name: number / each[base] for name, number in each.items()}


@mutant("slowdown", "not-per-round")
def ignores_rounds(samples, base):
    return factors(samples, base, statistics.median, lambda run: run[1])


@mutant("slowdown", "upside-down")
def faster_instead_of_slower(samples, base):
    return {name: 1 / value for name, value in factors(samples, base, statistics.median).items()}


@mutant("slowdown", "first-run-only")
def takes_the_first_run(samples, base):
    return factors(samples, base, lambda values: values[0])
