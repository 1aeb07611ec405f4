"""Answers to `ring`: one device with switches for its mistakes, and other right ones."""

from __future__ import annotations

import struct

from autograder.answers import alternative, mutant


class _BadGuestError(Exception):
    pass


def _chain(memory, queue, at, *, head=True, following=True, loop=True, address=True, length=True, edge=0, first=False):
    """Bytes of a chain; every False leaves one test out."""
    size, data = queue["size"], b""
    for seen in range(size if loop else 1 << 40):
        if at >= size and (head if seen == 0 else following):
            raise _BadGuestError
        where, count, flags, after = struct.unpack_from("<QIHH", memory, queue["desc"] + 16 * at)
        if address and where > len(memory) or (length and where <= len(memory) < where + count - edge):
            if not (first and seen):
                raise _BadGuestError
        data += memory[where : where + count]
        if not flags & 1:
            return data
        at = after
    raise _BadGuestError


def _serve(memory, queue, last, *, limit=0, idx_checked=True, reply=None, **tests):
    size, avail, used = queue["size"], queue["avail"], queue["used"]
    flags, idx = struct.unpack_from("<HH", memory, avail)
    waiting = (idx - last) & 0xFFFF
    if waiting > size + limit and idx_checked:
        return {"output": b"", "writes": [], "last": last, "interrupt": False, "broken": True}
    output, writes, broken = b"", [], False
    for _ in range(waiting):
        (head,) = struct.unpack_from("<H", memory, avail + 4 + 2 * (last % size))
        try:
            output += _chain(memory, queue, head, **tests)
        except _BadGuestError:
            broken = True
            break
        writes.append((used + 4 + 8 * (last % size), struct.pack("<II", head, 0)))
        last = (last + 1) & 0xFFFF
        writes.append((used + 2, struct.pack("<H", last)))
    interrupt = bool(writes) and not flags & 1
    done = {"output": output, "writes": writes, "last": last, "interrupt": interrupt, "broken": broken}
    return done | (reply(done, queue) if reply else {})


@alternative("ring")
def one_by_one(memory, queue, last):
    return _serve(memory, queue, last)


@alternative("ring")
def elements_then_one_idx(memory, queue, last):
    done = _serve(memory, queue, last)
    elements = [w for w in done["writes"] if len(w[1]) == 8]
    if elements:
        elements.append((queue["used"] + 2, done["last"].to_bytes(2, "little")))
    return done | {"writes": elements}


@alternative("ring")
def slow_and_careful(memory, queue, last):
    def number(at, count):
        return int.from_bytes(memory[at : at + count], "little")

    size = queue["size"]
    output, writes, broken = bytearray(), [], False
    while (left := (number(queue["avail"] + 2, 2) - last) % 65536) and not broken:
        broken = left > size
        head = at = number(queue["avail"] + 4 + 2 * (last % size), 2)
        parts, more = [], True
        while more and not broken:
            broken = at >= size or len(parts) >= size
            if not broken:
                row = queue["desc"] + 16 * at
                start, count = number(row, 8), number(row + 8, 4)
                broken = start + count > len(memory)
                parts.append(bytes(memory[start : start + count]))
                more, at = number(row + 12, 2) & 1, number(row + 14, 2)
        if not broken:
            output += b"".join(parts)
            writes.append((queue["used"] + 4 + 8 * (last % size), head.to_bytes(4, "little") + bytes(4)))
            last = (last + 1) % 65536
            writes.append((queue["used"] + 2, last.to_bytes(2, "little")))
    quiet = number(queue["avail"], 2) & 1
    interrupt = bool(writes) and not quiet
    return {"output": bytes(output), "writes": writes, "last": last, "interrupt": interrupt, "broken": broken}


@mutant("ring", "ring-does-not-wrap")
def head_from_last_without_modulo(memory, queue, last):
    size, avail = queue["size"], queue["avail"]
    _, idx = struct.unpack_from("<HH", memory, avail)
    output, writes = b"", []
    for n in range(last, idx):
        (head,) = struct.unpack_from("<H", memory, avail + 4 + 2 * n)
        output += _chain(memory, queue, head % size)
        writes.append((queue["used"] + 4 + 8 * (n % size), struct.pack("<II", head, 0)))
        writes.append((queue["used"] + 2, struct.pack("<H", n + 1)))
    return {"output": output, "writes": writes, "last": idx, "interrupt": True, "broken": False}


@mutant("ring", "writes-elsewhere")
def used_without_modulo(memory, queue, last):
    def reply(done, queue):
        size = queue["size"]
        moved = []
        for at, data in done["writes"]:
            slot = (at - queue["used"] - 4) // 8
            turns = last // size + (slot < last % size)
            moved.append((at + 8 * size * turns if len(data) == 8 else at, data))
        return {"writes": moved}

    return _serve(memory, queue, last, reply=reply)


@mutant("ring", "counter-does-not-wrap")
def counts_without_modulo(memory, queue, last):
    _, idx = struct.unpack_from("<HH", memory, queue["avail"])
    if idx < last:
        return {"output": b"", "writes": [], "last": last, "interrupt": False, "broken": False}
    return _serve(memory, queue, last)


@mutant("ring", "one-short")
def leaves_the_last_one(memory, queue, last):
    flags, idx = struct.unpack_from("<HH", memory, queue["avail"])
    shorter = bytearray(memory)
    if idx != last:
        struct.pack_into("<H", shorter, queue["avail"] + 2, (idx - 1) & 0xFFFF)
    return _serve(bytes(shorter), queue, last)


@mutant("ring", "some-left")
def one_per_kick(memory, queue, last):
    _, idx = struct.unpack_from("<HH", memory, queue["avail"])
    shorter = bytearray(memory)
    if (idx - last) & 0xFFFF > 1:
        struct.pack_into("<H", shorter, queue["avail"] + 2, (last + 1) & 0xFFFF)
    return _serve(bytes(shorter), queue, last)


@mutant("ring", "one-too-many")
def serves_one_more(memory, queue, last):
    size = queue["size"]
    done = _serve(memory, queue, last)
    head = (struct.unpack_from("<H", memory, queue["avail"] + 4 + 2 * (done["last"] % size))[0]) % size
    return done | {"output": done["output"] + _chain(memory, queue, head) + b"\0"}


@mutant("ring", "chain-ignored")
def only_the_head(memory, queue, last):
    flat = bytearray(memory)
    for n in range(queue["size"]):
        struct.pack_into("<H", flat, queue["desc"] + 16 * n + 12, 0)
    return _serve(bytes(flat), queue, last)


@mutant("ring", "idx-before-element")
def idx_first(memory, queue, last):
    def reply(done, _):
        return {"writes": [w for n in range(0, len(done["writes"]), 2) for w in reversed(done["writes"][n : n + 2])]}

    return _serve(memory, queue, last, reply=reply)


@mutant("ring", "bytes-turned-round")
def big_endian(memory, queue, last):
    done = _serve(memory, queue, last)
    return done | {"writes": [(address, data[::-1]) for address, data in done["writes"]]}


@mutant("ring", "element-without-its-head")
def names_the_slot(memory, queue, last):
    done = _serve(memory, queue, last)
    slots = ((address - queue["used"] - 4) // 8 for address, _ in done["writes"])
    writes = [(a, struct.pack("<II", n, 0) if len(d) == 8 else d) for n, (a, d) in zip(slots, done["writes"])]
    return done | {"writes": writes}


@alternative("ring")
def one_write_for_everything(memory, queue, last):
    """The whole used ring at once: element and idx become visible together."""
    done, used, size = _serve(memory, queue, last), queue["used"], 4 + 8 * queue["size"]
    ring = bytearray(memory[used : used + size])
    for address, data in done["writes"]:
        ring[address - used : address - used + len(data)] = data
    return done | {"writes": [(used, bytes(ring))] if done["writes"] else []}


@mutant("ring", "not-given-back")
def prints_only(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda *_: {"writes": []})


@mutant("ring", "not-announced")
def elements_only(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda done, _: {"writes": [w for w in done["writes"] if len(w[1]) == 8]})


@mutant("ring", "counts-what-it-read")
def written_is_read(memory, queue, last):
    def reply(done, _):
        return {"writes": [(at, data[:4] + b"\5\0\0\0" if len(data) == 8 else data) for at, data in done["writes"]]}

    return _serve(memory, queue, last, reply=reply)


@mutant("ring", "last-is-wrong")
def last_is_a_slot(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda done, queue: {"last": done["last"] % queue["size"] + 100})


@mutant("ring", "interrupts-unasked")
def always_interrupts(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda done, _: {"interrupt": bool(done["writes"])})


@mutant("ring", "never-interrupts")
def never_interrupts(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda *_: {"interrupt": False})


@mutant("ring", "honest-called-broken")
def full_is_broken(memory, queue, last):
    return _serve(memory, queue, last, limit=-1)


@mutant("ring", "trusts-idx")
def any_idx(memory, queue, last):
    return _serve(memory, queue, last, idx_checked=False)


@mutant("ring", "trusts-idx-by-one")
def one_idx_too_far(memory, queue, last):
    return _serve(memory, queue, last, limit=1)


@mutant("ring", "trusts-head")
def any_head(memory, queue, last):
    return _serve(memory, queue, last, head=False)


@mutant("ring", "trusts-next")
def any_next(memory, queue, last):
    return _serve(memory, queue, last, following=False)


@mutant("ring", "guest-hangs-device")
def any_chain(memory, queue, last):
    return _serve(memory, queue, last, loop=False)


@mutant("ring", "trusts-address")
def any_address(memory, queue, last):
    return _serve(memory, queue, last, address=False)


@mutant("ring", "trusts-length")
def any_length(memory, queue, last):
    return _serve(memory, queue, last, length=False)


@mutant("ring", "trusts-last-byte")
def one_byte_too_far(memory, queue, last):
    return _serve(memory, queue, last, edge=1)


@mutant("ring", "trusts-second-part")
def only_the_first_part_is_looked_at(memory, queue, last):
    return _serve(memory, queue, last, first=True)


@mutant("ring", "guest-crashes-device")
def raises_for_a_bad_guest(memory, queue, last):
    done = _serve(memory, queue, last)
    if done["broken"]:
        raise ValueError("this guest is malicious")
    return done


@mutant("ring", "leaks-before-it-looks")
def prints_what_it_reads(memory, queue, last):
    done = _serve(memory, queue, last)
    return done | ({"output": done["output"] + memory[0x13000:0x1300A]} if done["broken"] else {})


@mutant("ring", "wrong-shape")
def only_the_bytes(memory, queue, last):
    return _serve(memory, queue, last)["output"]


@mutant("ring", "wrong-type")
def text_instead_of_bytes(memory, queue, last):
    return _serve(memory, queue, last, reply=lambda done, _: {"output": done["output"].decode("latin-1")})


@mutant("ring", "unanswered")
def ring_untouched(memory, queue, last):
    raise NotImplementedError
