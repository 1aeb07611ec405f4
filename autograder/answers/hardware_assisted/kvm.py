"""Answers to `run_guest`: one VMM with switches for its mistakes, and other right ones."""

from __future__ import annotations

from collections import Counter

from autograder.answers import alternative, mutant
from course.vcpu import rawkvm


def _machine(kvm, code, *, base=0x1000, cs=True):
    vm = kvm.ioctl(kvm.fd, rawkvm.KVM_CREATE_VM, 0)
    memory = kvm.memory(0x1000)
    memory[: len(code)] = code
    region = rawkvm.MemoryRegion(0, 0, base, len(memory), kvm.address(memory))
    kvm.ioctl(vm, rawkvm.KVM_SET_USER_MEMORY_REGION, region)
    vcpu = kvm.ioctl(vm, rawkvm.KVM_CREATE_VCPU, 0)
    page = kvm.mmap(vcpu, kvm.ioctl(kvm.fd, rawkvm.KVM_GET_VCPU_MMAP_SIZE, 0))
    sregs = rawkvm.Sregs()
    kvm.ioctl(vcpu, rawkvm.KVM_GET_SREGS, sregs)
    if cs:
        sregs.cs.base = sregs.cs.selector = 0
    kvm.ioctl(vcpu, rawkvm.KVM_SET_SREGS, sregs)
    kvm.ioctl(vcpu, rawkvm.KVM_SET_REGS, rawkvm.Regs(rip=0x1000, rflags=2))
    return vcpu, page


def _io(run, page, inputs, *, offset=None, direction=True, sizes=True, ports=None):
    at = run.io.data_offset if offset is None else offset
    end = at + (run.io.size * run.io.count if sizes else 1)
    if run.io.direction == rawkvm.KVM_EXIT_IO_IN and direction:
        page[at:end] = bytes(inputs.pop(0) if inputs else 0xFF for _ in range(end - at))
        return b""
    return page[at:end] if ports is None or run.io.port in ports else b""


def _mmio(run, inputs):
    if run.mmio.is_write:
        return bytes(run.mmio.data[: run.mmio.len])
    for n in range(run.mmio.len):
        run.mmio.data[n] = inputs.pop(0) if inputs else 0xFF
    return b""


def _run(device, code, inputs, *, mmio=True, ends=None, lost=False, once=False, machine=None, **io):
    output, exits, left = b"", Counter(), list(inputs)
    with rawkvm.open(device, runs=200) as kvm:
        vcpu, page = _machine(kvm, code, **(machine or {}))
        run = rawkvm.Run.from_buffer(page)
        while True:
            kvm.ioctl(vcpu, rawkvm.KVM_RUN, 0)
            reason = rawkvm.EXITS[run.exit_reason]
            answered = reason == "IO" or (reason == "MMIO" and mmio)
            if lost and not answered:
                break
            exits[reason] += 1
            if reason == "IO":
                output += _io(run, page, left, **io)
            elif reason == "MMIO" and mmio:
                output += _mmio(run, left)
            if once or (not answered if ends is None else reason in ends):
                break
    return {"output": output, "exits": dict(exits)}


@alternative("run_guest")
def one_loop(device, code, inputs=b""):
    return _run(device, code, inputs)


@alternative("run_guest")
def with_match(device, code, inputs=b""):
    output, names, feed = bytearray(), [], iter(inputs)
    with rawkvm.open(device) as kvm:
        vcpu, page = _machine(kvm, code)
        run = rawkvm.Run.from_buffer(page)
        while not names or names[-1] in ("IO", "MMIO"):
            kvm.ioctl(vcpu, rawkvm.KVM_RUN)
            names.append(rawkvm.EXITS.get(run.exit_reason, "unknown"))
            match run.exit_reason:
                case rawkvm.KVM_EXIT_IO:
                    where = slice(run.io.data_offset, run.io.data_offset + run.io.size * run.io.count)
                    if run.io.direction == rawkvm.KVM_EXIT_IO_OUT:
                        output += page[where]
                    else:
                        page[where] = bytes(next(feed, 0xFF) for _ in page[where])
                case rawkvm.KVM_EXIT_MMIO if run.mmio.is_write:
                    output += bytes(run.mmio.data)[: run.mmio.len]
                case rawkvm.KVM_EXIT_MMIO:
                    run.mmio.data[0] = next(feed, 0xFF)
    return {"output": bytes(output), "exits": {name: names.count(name) for name in set(names)}}


@mutant("run_guest", "guest-not-where-cs-points")
def keeps_cs(device, code, inputs=b""):
    return _run(device, code, inputs, machine={"cs": False})


@mutant("run_guest", "refused-by-kvm")
def slot_at_an_odd_address(device, code, inputs=b""):
    return _run(device, code, inputs, machine={"base": 0x1001})


@mutant("run_guest", "loop-ignores-the-reason")
def never_looks_at_the_reason(device, code, inputs=b""):
    return _run(device, code, inputs, ends=())


@mutant("run_guest", "only-hlt-ends")
def waits_for_hlt(device, code, inputs=b""):
    return _run(device, code, inputs, ends=("HLT",))


@mutant("run_guest", "one-exit-only")
def enters_once(device, code, inputs=b""):
    return _run(device, code, inputs, once=True)


@mutant("run_guest", "data-offset-ignored")
def reads_behind_the_structure(device, code, inputs=b""):
    return _run(device, code, inputs, offset=0x300)


@mutant("run_guest", "in-taken-for-out")
def every_io_is_output(device, code, inputs=b""):
    return _run(device, code, inputs, direction=False)


@mutant("run_guest", "in-not-answered")
def answers_with_nothing(device, code, inputs=b""):
    return _run(device, code, b"")


@mutant("run_guest", "output-lost")
def only_port_e9(device, code, inputs=b""):
    return _run(device, code, inputs, ports=(0xE9, 0x80))


@mutant("run_guest", "size-ignored")
def one_byte_per_exit(device, code, inputs=b""):
    return _run(device, code, inputs, sizes=False)


@mutant("run_guest", "mmio-ends-the-guest")
def knows_no_mmio(device, code, inputs=b""):
    return _run(device, code, inputs, mmio=False)


@mutant("run_guest", "mmio-length-ignored")
def keeps_all_of_mmio_data(device, code, inputs=b""):
    done = _run(device, code, inputs)
    stored = done["exits"].get("MMIO", 0) > 0
    return done | {"output": done["output"][:1] + bytes(7) + done["output"][1:]} if stored else done


@mutant("run_guest", "guest-lost-its-way")
def steps_over_the_out_itself(device, code, inputs=b""):
    output, exits = b"", Counter()
    with rawkvm.open(device, runs=200) as kvm:
        vcpu, page = _machine(kvm, code)
        run = rawkvm.Run.from_buffer(page)
        while True:
            kvm.ioctl(vcpu, rawkvm.KVM_RUN, 0)
            reason = rawkvm.EXITS[run.exit_reason]
            exits[reason] += 1
            if reason != "IO":
                return {"output": output, "exits": dict(exits)}
            output += page[run.io.data_offset : run.io.data_offset + 1]
            regs = rawkvm.Regs()
            kvm.ioctl(vcpu, rawkvm.KVM_GET_REGS, regs)
            regs.rip += 1
            kvm.ioctl(vcpu, rawkvm.KVM_SET_REGS, regs)


@mutant("run_guest", "unknown-reason")
def names_of_its_own(device, code, inputs=b""):
    done = _run(device, code, inputs)
    return done | {"exits": {f"KVM_EXIT_{name}": times for name, times in done["exits"].items()}}


@mutant("run_guest", "last-exit-lost")
def hlt_is_not_counted(device, code, inputs=b""):
    return _run(device, code, inputs, lost=True)


@mutant("run_guest", "wrong-shape")
def only_the_output(device, code, inputs=b""):
    return _run(device, code, inputs)["output"]


@mutant("run_guest", "unanswered")
def run_guest_untouched(device, code, inputs=b""):
    raise NotImplementedError
