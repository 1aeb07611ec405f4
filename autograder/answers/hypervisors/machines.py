"""Answers to `vmm` and `schedule`: one hypervisor, with or without each of the mistakes."""

from __future__ import annotations

import contextlib
from collections import Counter

from autograder.answers import alternative, mutant
from course.vcpu import Budget, BudgetSpent, Hlt, Io, Preempted, Privileged, Vcpu

LOW = 0xFFFFFFFF


class Pc:
    """Another way to write the machine: a class with a method per mnemonic."""

    def __init__(self, keys=b"", **mistakes):
        self.keys, self.console, self.flag = list(keys), b"", 0
        self.control = dict.fromkeys(("cr0", "cr2", "cr3", "cr4"), 0)
        self.msrs, self.mistakes = {}, mistakes

    def wrong(self, name):
        return self.mistakes.get(name, False)

    def serve(self, cpu, found):
        if isinstance(found, Hlt):
            return self._halted(cpu, found)
        if isinstance(found, Io):
            self._port(cpu, found)
        elif isinstance(found, Privileged):
            act = getattr(self, f"_{found.mnemonic}", None)
            if act is None or act(cpu, found) == "unknown":
                if self.wrong("passes_over") != "privileged":
                    return "fault"
        elif self.wrong("passes_over") != "faults" or not found.code:
            return "fault"
        if not self.wrong("stands_still"):
            cpu.regs.rip = found.rip + (1 if self.wrong("by_one") else len(found.code))
        return ""

    def _halted(self, cpu, found):
        if not self.wrong("sleeps_through") or cpu.memory.read(found.next, 1) == b"\0":
            return "hlt"
        cpu.regs.rip = found.next
        return ""

    def _port(self, cpu, found):
        if found.direction == "out":
            if found.port == 0xE9 or self.wrong("all_ports") or (self.wrong("port_low") and found.port & 0xFF == 0xE9):
                self.console += found.data[:1] if self.wrong("bytes_only") else found.data
            return
        if found.port == 0x60:
            last = -1 if self.wrong("last_key") else 0
            value = self.keys.pop(last) if self.keys else self.mistakes.get("no_key", 0)
        else:
            value = 0 if self.wrong("zeros") else self.mistakes.get("ones", (1 << 8 * found.size) - 1)
        name = {1: "al", 2: "ax", 4: "eax"}[found.size]
        if self.wrong("whole_rax") and found.size in self.wrong("whole_rax"):
            name = "rax"
        if self.wrong("keeps_upper") and found.size == 4:
            cpu.regs.rax = cpu.regs.rax & ~LOW | value
            return
        cpu.regs[name] = value

    def _cli(self, cpu, found):
        self.flag = 0

    def _sti(self, cpu, found):
        self.flag = 0 if self.wrong("no_sti") else 1

    def _mov(self, cpu, found):
        target, source = found.operands.split(", ")
        if self.wrong("one_bank"):
            target, source = ("cr3" if x.startswith("cr") else x for x in (target, source))
        if self.wrong("only_rax"):
            target, source = (x if x.startswith("cr") else "rax" for x in (target, source))
        if target in self.control:
            self.control[target] = 0 if self.wrong("forgets_cr") else cpu.regs[source]
        elif source in self.control:
            cpu.regs[target] = self.control[source]
        elif not self.wrong("debug"):
            return "unknown"
        return ""

    def _wrmsr(self, cpu, found):
        key = 0 if self.wrong("one_msr") else cpu.regs.ecx
        self.msrs[key] = cpu.regs.edx << 32 | cpu.regs.eax

    def _rdmsr(self, cpu, found):
        value = self.msrs.get(0 if self.wrong("one_msr") else cpu.regs.ecx, self.mistakes.get("new_msr", 0))
        if self.wrong("rax_only"):
            cpu.regs.rax = value
        else:
            cpu.regs.update(eax=value & LOW, edx=value >> 32)

    def result(self, cpu, end, exits):
        registers = dict(cpu.regs) | self.control
        if not self.wrong("host_flags"):
            registers["rflags"] = cpu.regs.rflags & ~0x200 | self.flag << 9
        return {"end": end, "console": self.console, "exits": dict(exits), "registers": registers}


def _run(engine, code, keys, fuel, **mistakes):
    pc, exits, end = Pc(keys, **mistakes), Counter(), ""
    with Vcpu.open(engine, code, budget=Budget(exits=fuel, seconds=20)) as cpu:
        while not end and not (found := cpu.run()).final:
            exits[found.reason] += 1
            end = pc.serve(cpu, found)
        if mistakes.get("without_hlt"):
            exits.pop("Hlt", None)
        return pc.result(cpu, end or "budget", exits)


@alternative("vmm")
def a_class(engine, code, keys=b"", fuel=2000):
    return _run(engine, code, keys, fuel)


@alternative("vmm")
def with_complete_and_own_decoder(engine, code, keys=b"", fuel=2000):
    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
    control, msrs, keys, console, flag, exits, end = [0] * 16, {}, bytearray(keys), bytearray(), 0, Counter(), "budget"
    with Vcpu.open(engine, code, budget=Budget(exits=fuel)) as cpu:
        for _ in range(fuel):
            found = cpu.run()
            if isinstance(found, BudgetSpent):
                break
            exits[found.reason] += 1
            byte = found.code.lstrip(b"\x66") if found.code else b""
            if isinstance(found, Io):
                if found.direction == "out":
                    console += found.data if found.port == 0xE9 else b""
                    cpu.complete(found)
                else:
                    listening = found.port == 0x60
                    cpu.complete(found, (keys.pop(0) if keys else 0) if listening else b"\xff" * found.size)
                continue
            prefix, rest = (byte[0], byte[1:]) if byte[:1] and 0x40 <= byte[0] < 0x50 else (0, byte)
            if rest in (b"\xfa", b"\xfb"):
                flag = rest[0] & 1
            elif rest[:2] in (b"\x0f\x20", b"\x0f\x22"):
                general, number = names[rest[2] & 7 | (prefix & 1) << 3], rest[2] >> 3 & 7 | (prefix & 4) << 1
                if rest[1] == 0x22:
                    control[number] = cpu.regs[general]
                else:
                    cpu.regs[general] = control[number]
            elif rest == b"\x0f\x30":
                msrs[cpu.regs.ecx] = (cpu.regs.eax, cpu.regs.edx)
            elif rest == b"\x0f\x32":
                cpu.regs.eax, cpu.regs.edx = msrs.get(cpu.regs.ecx, (0, 0))
            else:
                end = "hlt" if rest == b"\xf4" else "fault"
                break
            cpu.regs.rip += len(found.code)
        registers = dict(cpu.regs, **{f"cr{n}": control[n] for n in (0, 2, 3, 4)})
        registers["rflags"] = registers["rflags"] & ~(1 << 9) | flag << 9
    return {"end": end, "console": bytes(console), "exits": exits, "registers": registers}


def _mistaken(name, misconception, **mistakes):
    def answer(engine, code, keys=b"", fuel=2000):
        return _run(engine, code, keys, fuel, **mistakes)

    answer.__name__ = name
    return mutant("vmm", misconception)(answer)


_mistaken("never_advances", "rip-not-advanced", stands_still=True)
_mistaken("always_one_byte", "rip-by-one", by_one=True)
_mistaken("goes_on_after_hlt", "hlt-ignored", sleeps_through=True)
_mistaken("prints_every_port", "every-port-prints", all_ports=True)
_mistaken("looks_at_half_the_port", "every-port-prints", port_low=True)
_mistaken("sends_one_byte", "one-byte-only", bytes_only=True)
_mistaken("in_al_writes_rax", "in-al-clears-the-rest", whole_rax=(1, 2, 4))
_mistaken("in_ax_writes_rax", "in-ax-wrong", whole_rax=(2,))
_mistaken("in_eax_keeps_the_upper_half", "in-eax-keeps-the-rest", keeps_upper=True)
_mistaken("newest_key_first", "keys-mixed-up", last_key=True)
_mistaken("no_key_is_ones", "keys-mixed-up", no_key=0xFF)
_mistaken("nobody_says_zero", "nobody-is-not-zero", zeros=True)
_mistaken("nobody_says_255", "nobody-is-not-zero", ones=0xFF)
_mistaken("flags_as_they_are", "flags-of-the-host", host_flags=True)
_mistaken("sti_is_cli", "interrupt-flag-not-kept", no_sti=True)
_mistaken("forgets_what_is_written", "cr3-not-kept", forgets_cr=True)
_mistaken("one_register_for_all", "one-control-register", one_bank=True)
_mistaken("always_rax", "cr3-not-kept", only_rax=True)
_mistaken("one_msr_for_all", "msr-mixed-up", one_msr=True)
_mistaken("rdmsr_into_rax", "msr-mixed-up", rax_only=True)
_mistaken("new_msrs_are_ones", "msr-not-zero", new_msr=LOW)
_mistaken("does_nothing_about_lgdt", "unknown-passed-over", passes_over="privileged")
_mistaken("goes_on_after_faults", "fault-passed-over", passes_over="faults")
_mistaken("debug_registers_are_nothing", "debug-is-not-control", debug=True)
_mistaken("does_not_count_hlt", "exits-miscounted", without_hlt=True)


@mutant("vmm", "no-fuel")
def runs_on_when_the_fuel_is_gone(engine, code, keys=b"", fuel=2000):
    result = _run(engine, code, keys, fuel + 5)
    return {**result, "end": result["end"].replace("budget", "hlt")}


@mutant("vmm", "incomplete")
def console_only(engine, code, keys=b"", fuel=2000):
    return {"console": _run(engine, code, keys, fuel)["console"]}


# ── schedule ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _turns(
    engine, guests, quantum, fuel, pick, *, one_machine=False, limit=None, strict=False, sticky=False, several=False
):
    order = []
    with contextlib.ExitStack() as stack:
        cpus = [stack.enter_context(Vcpu.open(engine, code, budget=Budget(seconds=60))) for code in guests]
        machines = [Pc()] * len(guests) if one_machine else [Pc() for _ in guests]
        ends = [""] * len(guests)
        found = None
        while len(order) < fuel and not all(ends):
            number = order[-1] if sticky and isinstance(found, Preempted) else pick(order, ends)
            if number is None:
                break
            order.append(number)
            found = cpus[number].run(instructions=limit or quantum)
            if isinstance(found, Preempted):
                continue
            ends[number] = machines[number].serve(cpus[number], found)
            while (
                several
                and not ends[number]
                and not isinstance(found := cpus[number].run(instructions=quantum), Preempted)
            ):
                ends[number] = machines[number].serve(cpus[number], found)
            if strict and ends[number] == "fault":
                raise RuntimeError(f"guest {number}: {found.reason}")
        everyone = zip(machines, cpus, ends, strict=True)
        return {"order": order, "guests": [m.result(c, e or "budget", {}) for m, c, e in everyone]}


def _next(order, ends):
    first = order[-1] + 1 if order else 0
    return next(n % len(ends) for n in range(first, first + len(ends)) if not ends[n % len(ends)])


@alternative("schedule")
def next_that_lives(engine, guests, quantum=50, fuel=200):
    return _turns(engine, guests, quantum, fuel, _next)


@alternative("schedule")
def with_a_queue(engine, guests, quantum=50, fuel=200):
    queue = list(range(len(guests)))

    def pick(order, ends):
        if order and not ends[order[-1]]:
            queue.append(order[-1])
        return queue.pop(0)

    return _turns(engine, guests, quantum, fuel, pick)


@alternative("schedule")
def whoever_had_fewest(engine, guests, quantum=50, fuel=200):
    def pick(order, ends):
        return min((n for n in range(len(ends)) if not ends[n]), key=lambda n: (order.count(n), n))

    return _turns(engine, guests, quantum, fuel, pick)


def _badly(name, misconception, pick=_next, **how):
    def answer(engine, guests, quantum=50, fuel=200):
        return _turns(engine, guests, quantum, fuel, pick, **how)

    answer.__name__ = name
    return mutant("schedule", misconception)(answer)


_badly("one_dict_for_all", "shared-state", one_machine=True)
_badly("first_to_finish", "not-in-turn", lambda order, ends: ends.index(""))
_badly("waits_for_an_exit", "starved", sticky=True)
_badly("raises_at_a_crash", "one-guest-ends-all", strict=True)
_badly("twice_each", "not-in-turn", lambda order, ends: order[-1] if _odd(order, ends) else _next(order, ends))
_badly("own_quantum", "other-quantum", limit=50)
_badly("stops_at_the_first_end", "starved", lambda order, ends: None if any(ends) else _next(order, ends))


_badly("goes_on_after_an_exit", "turn-not-at-exit", several=True)


def _odd(order, ends):
    return bool(order) and not ends[order[-1]] and len(order) % 2 == 1


@mutant("schedule", "shared-registers")
def one_bank_of_control_registers(engine, guests, quantum=50, fuel=200):
    got = next_that_lives(engine, guests, quantum, fuel)
    newest = next((g["registers"]["cr3"] for g in got["guests"] if g["registers"]["cr3"]), 0)
    for guest in got["guests"]:
        guest["registers"]["cr3"] = newest
    return got


@mutant("schedule", "turn-not-at-exit")
def counts_the_last_turns_no_more(engine, guests, quantum=50, fuel=200):
    got = next_that_lives(engine, guests, quantum, fuel)
    alive = [n for n, guest in enumerate(got["guests"]) if guest["end"] == "budget"]
    return got if alive else {**got, "order": got["order"][: -len(guests)]}


@mutant("schedule", "fuel-overdrawn")
def fuel_for_each(engine, guests, quantum=50, fuel=200):
    return next_that_lives(engine, guests, quantum, fuel * len(guests))


@mutant("schedule", "guest-missing")
def forgets_who_crashed(engine, guests, quantum=50, fuel=200):
    got = next_that_lives(engine, guests, quantum, fuel)
    return {**got, "guests": [guest for guest in got["guests"] if guest["end"] != "fault"]}


@mutant("schedule", "wrong-end")
def everyone_halted(engine, guests, quantum=50, fuel=200):
    got = next_that_lives(engine, guests, quantum, fuel)
    return {**got, "guests": [{**guest, "end": "hlt"} for guest in got["guests"]]}


@mutant("schedule", "unfair")
def favours_the_first(engine, guests, quantum=50, fuel=200):
    got = next_that_lives(engine, guests, quantum, fuel)
    favoured = {**got["guests"][0]["registers"], "rbx": got["guests"][0]["registers"]["rbx"] * 3}
    return {**got, "guests": [{**got["guests"][0], "registers": favoured}, *got["guests"][1:]]}
