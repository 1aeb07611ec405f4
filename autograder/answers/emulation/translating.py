"""Answers to `translate` and `run`."""

from __future__ import annotations

from autograder.answers import alternative, mutant
from autograder.answers.emulation.stepping import execute, good_immediate
from course.isa import blocks


def text_of(memory, pc, flaw="", masks="& 0xFFFFFFFF"):
    """The text of a block, right but for one flaw."""
    lines, start = ["def block(x, memory, cache):"], pc
    while True:
        word = int.from_bytes(memory[pc : pc + 4], "little")
        opcode, rd, funct3, rs1, rs2 = word & 0x7F, word >> 7 & 31, word >> 12 & 7, word >> 15 & 31, word >> 20 & 31
        a, b, number = f"x[{rs1}]", f"x[{rs2}]", good_immediate(word)
        address, result, end = f"({a} + {number} & 0xFFFFFFFF)", None, None
        kind = (opcode, funct3)
        if kind == (0x33, 0) and word >> 25 in (0, 32):
            result = f"{a} {'-' if word >> 30 else '+'} {b}"
        elif kind == (0x13, 0):
            result = f"{a} + {number}"
        elif kind == (0x13, 7):
            result = f"{a} & {number}"
        elif opcode == 0x37:
            result = f"{number}"
        elif kind == (0x03, 2):
            result = f'int.from_bytes(memory[{address} : {address} + 4], "little")'
            if flaw == "bakes":
                result = str(int.from_bytes(memory[0x1000:0x1004], "little"))
        elif kind == (0x03, 4):
            result = f"memory[{address}]"
        elif kind == (0x23, 2):
            lines.append(f'memory[{address} : {address} + 4] = {b}.to_bytes(4, "little")')
        elif opcode == 0x63 and funct3 in (0, 1, 4):
            less = f"{a} < {b}" if flaw == "unsigned" else f"signed({a}) < signed({b})"
            condition = {0: f"{a} == {b}", 1: f"{a} != {b}", 4: less}[funct3]
            end = f"{pc + number} if {condition} else {pc + 4}"
            if flaw == "relative":
                end = f"{number} if {condition} else 4"
            if flaw == "falls":
                lines.append(f"if {condition}: return {pc + number}")
                return "\n    ".join(lines)
        elif opcode == 0x6F:
            result, end = f"{pc + 4}", f"{pc + number}"
        elif kind == (0x67, 0):
            if flaw == "link first":
                lines += [f"x[{rd}] = {pc + 4}"] if rd else []
                return "\n    ".join([*lines, f"return {address} & ~1"])
            lines.append(f"target = {address}{'' if flaw == 'odd' else ' & ~1'}")
            result, end = f"{pc + 4}", "target"
        elif kind == (0x0F, 1):
            lines += [] if flaw == "no fence" else ["cache.clear()"]
            end = None if flaw == "goes on" else f"{pc + 4}"
        elif word == 0x00100073:
            end = f"{pc + 4}" if flaw == "no end" else "None"
        elif flaw == "passes over" and pc < start + 64:
            lines.append("pass")
        elif flaw == "passes over":
            end = "None"
        else:
            raise ValueError(f"{word:#010x} at {pc:#x}")
        if result and (rd or flaw == "x0"):
            lines.append(f"x[{rd}] = ({result}) {'' if flaw == 'no wrap' else masks}")
        if flaw == "clears" and opcode == 0x23:
            lines.append("cache.clear()")
        pc += 4
        if end or (pc % 4096 == 0 and flaw != "no page") or flaw == "one":
            return "\n    ".join([*lines, f"return {end or pc}"])


# ── translate ────────────────────────────────────────────────────────────────────────────────────────────────────────


@alternative("translate")
def line_by_line(memory, pc):
    return text_of(memory, pc)


@alternative("translate")
def with_modulo(memory, pc):
    return text_of(memory, pc, masks="% 2**32").replace("2**32", str(1 << 32))


@alternative("translate")
def with_local_registers(memory, pc):
    """Registers in local names; written back at the end."""
    text = text_of(memory, pc)
    head, *lines = text.splitlines()
    used = sorted({int(part.split("]")[0]) for part in text.split("x[")[1:]})
    for number in used:
        lines = [line.replace(f"x[{number}]", f"r{number}") for line in lines]
    load = [f"    r{n} = x[{n}]" for n in used]
    save = [f"    x[{n}] = r{n}" for n in used if n]
    return "\n".join(
        [head, *load, *lines[:-1], f"    following = {lines[-1].split('return ')[1]}", *save, "    return following"]
    )


@mutant("translate", "x0-writable")
def writes_zero(memory, pc):
    return text_of(memory, pc, "x0")


@mutant("translate", "no-wrap")
def never_wraps(memory, pc):
    return text_of(memory, pc, "no wrap")


@mutant("translate", "one-instruction-only")
def one_at_a_time(memory, pc):
    return text_of(memory, pc, "one")


@mutant("translate", "crosses-page")
def over_the_page(memory, pc):
    return text_of(memory, pc, "no page")


@mutant("translate", "goes-on-behind-its-end")
def fence_ends_nothing(memory, pc):
    return text_of(memory, pc, "goes on")


@mutant("translate", "fence-ignored")
def fence_is_a_nop(memory, pc):
    return text_of(memory, pc, "no fence")


@mutant("translate", "clears-without-need")
def clears_at_every_store(memory, pc):
    return text_of(memory, pc, "clears")


@mutant("translate", "no-end")
def goes_on_after_ebreak(memory, pc):
    return text_of(memory, pc, "no end")


@mutant("translate", "wrong-branch")
def branches_unsigned(memory, pc):
    return text_of(memory, pc, "unsigned")


@mutant("translate", "wrong-branch")
def relative_targets(memory, pc):
    return text_of(memory, pc, "relative")


@mutant("translate", "falls-off")
def one_way_only(memory, pc):
    return text_of(memory, pc, "falls")


@mutant("translate", "link-before-target")
def links_before_it_reads(memory, pc):
    return text_of(memory, pc, "link first")


@mutant("translate", "odd-target")
def odd_targets(memory, pc):
    return text_of(memory, pc, "odd")


@mutant("translate", "wrong-value")
def loads_at_translation_time(memory, pc):
    return text_of(memory, pc, "bakes")


@mutant("translate", "unknown-passed-over")
def passes_over_the_unknown(memory, pc):
    return text_of(memory, pc, "passes over")


@mutant("translate", "not-a-block")
def imports_something(memory, pc):
    return "import os\n" + text_of(memory, pc)


@mutant("translate", "forgot-return")
def makes_and_forgets(memory, pc):
    text_of(memory, pc)


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def result(x, memory, halted, translated, executed):
    return {"regs": x, "memory": bytes(memory), "halted": halted, "translated": translated, "executed": executed}


@alternative("run")
def empties_its_cache(state, budget):
    cache, translated, executed = {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget:
        if pc not in cache:
            cache[pc] = blocks.load(text_of(memory, pc))
            translated.append(pc)
        pc = cache[pc](x, memory, cache)
        executed += 1
    return result(x, memory, pc is None, translated, executed)


@alternative("run")
def keyed_by_text(state, budget):
    """Keeps every translation for ever, under the block's own text."""
    known, valid, translated, executed = {}, {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget:
        if pc not in valid:
            text = text_of(memory, pc)
            if (pc, text) not in known:
                known[pc, text] = blocks.load(text)
                translated.append(pc)
            valid[pc] = known[pc, text]
        pc = valid[pc](x, memory, valid)
        executed += 1
    return result(x, memory, pc is None, translated, executed)


@alternative("run")
def with_its_own_compiler(state, budget):
    cache, translated, executed = {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while executed < budget:
        block = cache.get(pc)
        if block is None:
            names = {"signed": blocks.signed}
            exec(compile(text_of(memory, pc), f"block at {pc:#x}", "exec"), names)
            block = cache[pc] = names["block"]
            translated += [pc]
        executed += 1
        pc = block(x, memory, cache)
        if pc is None:
            return result(x, memory, True, translated, executed)
    return result(x, memory, False, translated, executed)


def loop(state, budget, keep=True, forget=True, record="all", count="blocks", returns=True):
    """A dispatcher with a flaw."""
    cache, translated, executed = {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget:
        if pc not in cache:
            text = text_of(memory, pc)
            cache[pc] = blocks.load(text)
            if record == "all" or pc not in translated:
                translated.append(pc)
        before = dict(cache)
        pc = cache[pc](x, memory, cache)
        if not forget:
            cache = before
        if not keep:
            cache = {}
        executed += 1
    return result(x, memory, pc is None, translated, executed)


@mutant("run", "translates-every-time")
def without_a_cache(state, budget):
    return loop(state, budget, keep=False)


@mutant("run", "stale-block")
def never_forgets(state, budget):
    return loop(state, budget, forget=False)


@mutant("run", "record-is-not-true")
def translates_more_than_it_says(state, budget):
    return loop(state, budget, keep=False, record="unique")


@mutant("run", "translates-again")
def forgets_after_every_jump_back(state, budget):
    cache, translated, executed = {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget:
        if pc not in cache:
            cache[pc] = blocks.load(text_of(memory, pc))
            translated.append(pc)
        here, pc = pc, cache[pc](x, memory, cache)
        if pc is not None and pc < here:
            cache.clear()
        executed += 1
    return result(x, memory, pc is None, translated, executed)


@mutant("run", "counts-instructions")
def counts_instructions(state, budget):
    cache, lengths, translated, executed = {}, {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget * 10:
        if pc not in cache:
            end = pc
            while True:
                word = int.from_bytes(memory[end : end + 4], "little")
                end += 4
                if word == 0x00100073 or word & 0x7F in (0x63, 0x6F, 0x67, 0x0F) or end % 4096 == 0:
                    break
            lengths[pc] = (end - pc) // 4
            cache[pc] = blocks.load(text_of(memory, pc))
            translated.append(pc)
        executed += lengths[pc]
        pc = cache[pc](x, memory, cache)
    return result(x, memory, pc is None, translated, executed)


@mutant("run", "wrong-budget")
def one_block_too_many(state, budget):
    return loop(state, budget + 1)


@mutant("run", "not-recorded")
def interprets_instead(state, budget):
    now, count = dict(state), 0
    while not now["halted"] and count < budget:
        now = execute(now)
        count += 1
    return result(now["regs"], now["memory"], now["halted"], [], count)


@mutant("run", "interprets")
def interprets_and_makes_up_a_record(state, budget):
    now, entered, known, executed = dict(state), True, [], 0
    valid = set()
    while not now["halted"] and executed + entered <= budget:
        pc, word = now["pc"], int.from_bytes(now["memory"][now["pc"] : now["pc"] + 4], "little")
        executed += entered
        if entered and pc not in valid:
            valid.add(pc)
            known.append(pc)
        if word & 0x7F == 0x0F:
            valid.clear()
        entered = word & 0x7F in (0x63, 0x6F, 0x67, 0x0F) or (pc + 4) % 4096 == 0
        now = execute(now)
    return result(now["regs"], now["memory"], now["halted"], known, executed)


@mutant("run", "translates-old-memory")
def translates_the_memory_of_the_beginning(state, budget):
    cache, translated, executed = {}, [], 0
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    while pc is not None and executed < budget:
        if pc not in cache:
            cache[pc] = blocks.load(text_of(state["memory"], pc))
            translated.append(pc)
        pc = cache[pc](x, memory, cache)
        executed += 1
    return result(x, memory, pc is None, translated, executed)


@mutant("run", "halted-by-budget")
def halts_in_any_case(state, budget):
    return {**loop(state, budget), "halted": True}


@mutant("run", "not-addresses")
def records_in_hexadecimal(state, budget):
    done = loop(state, budget)
    return {**done, "translated": [hex(pc) for pc in done["translated"]]}


@mutant("run", "not-halted")
def stops_at_the_first_return(state, budget):
    return {**loop(state, budget), "halted": False}


@mutant("run", "misshapen")
def only_the_registers(state, budget):
    return loop(state, budget)["regs"]
