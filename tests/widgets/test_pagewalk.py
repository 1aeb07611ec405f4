"""The page walk, without a front end: what it says about right and wrong reads, in one and two dimensions."""

from __future__ import annotations

import json

import pytest

from course.error import UsageError
from course.vcpu.paging import GIB_1, MIB_2, NX, Recorder, Tables, U, W, index
from course.widgets.pagewalk import PageWalk

VA = 0x00007F12_34567ABC
KERNEL = 0xFFFFFFFF_81234567


@pytest.fixture
def tables():
    """Tables in 64 KiB: a page of the user, a large page of the kernel's, a huge one."""
    made = Tables(bytearray(1 << 16), first=0x1000)
    made.map(VA, 0x8000, 1 | W | U)
    made.map(KERNEL, 0x1200000, 1 | NX, size=MIB_2)
    made.map(0x40000000, 0, 1 | W, size=GIB_1)
    return made


def reader(tables):
    """A lesson's reader: physical address and size to bytes."""
    return lambda address, size: bytes(tables.memory[address : address + size])


def reads_of(tables, va, levels=(4, 3, 2, 1)):
    """The right reads for an address, as a walker would record them."""
    places = [tables.entry(va, level) for level in levels]
    return [(place, tables.read(place)) for place in places]


def column(walk, head):
    """The texts of one column."""
    at = walk.run["heads"].index(head)
    return [row["cells"][at]["text"] for row in walk.run["rows"]]


def test_a_walk_of_four_levels_ends_at_a_page(tables):
    """Each entry is where the bits of the address say, and the offset is added at last."""
    walk = PageWalk(tables.root | 0x18, VA, reader(tables))
    assert column(walk, "level") == ["4 PML4", "3 PDPT", "2 PD", "1 PT"]
    assert column(walk, "index") == [str(index(VA, level)) for level in (4, 3, 2, 1)]
    assert column(walk, "entry at") == [f"{tables.entry(VA, level):#x}" for level in (4, 3, 2, 1)]
    assert "remark" not in walk.run["heads"]
    assert walk.run["sentences"][-1].startswith(
        "A page of 4 KiB at 0x8000; bits 11–0 of the address are the offset 0xabc"
    )
    assert "physical address 0x8abc. Allowed: read and write, execute, user and supervisor" in str(walk)


def test_large_pages_end_the_walk_early(tables):
    """PS in an entry of level 2 or 3: more bits are the offset; NX of any level counts."""
    large = PageWalk(tables.root, KERNEL, reader(tables)).run["sentences"]
    assert len(large) == 2 + 3
    assert "A page of 2 MiB at 0x1200000; bits 20–0 of the address are the offset 0x34567" in large[-1]
    assert "Allowed: read, supervisor only" in large[-1]
    huge = PageWalk(tables.root, 0x40000000 + 0x123456, reader(tables)).run["sentences"]
    assert len(huge) == 2 + 2
    assert "bits 29–0" in huge[-1]


def test_a_missing_entry_is_a_page_fault(tables):
    """The walk ends there, and the level is named."""
    walk = PageWalk(tables.root, VA + 0x1000, reader(tables))
    assert column(walk, "flags")[-1] == "not present (P = 0)"
    assert walk.run["sentences"][-1] == "Page fault: the entry of level 1 (PT) is not present."


def test_an_address_that_is_not_canonical_is_not_walked(tables):
    """The reader is not asked; with five levels the address may be one."""
    asked = []
    walk = PageWalk(tables.root, 1 << 47, lambda *where: asked.append(where))
    assert asked == []
    assert walk.run["sentences"][-1].startswith("General protection: the address is not canonical (bits 63–47")
    five = PageWalk(tables.root, 1 << 47, reader(tables), levels=5)
    assert column(five, "level")[0] == "5 PML5"


def test_negative_addresses_are_those_of_the_kernel(tables):
    """Python's -1 is the processor's highest address."""
    assert (
        PageWalk(tables.root, KERNEL - (1 << 64), reader(tables)).run
        == PageWalk(tables.root, KERNEL, reader(tables)).run
    )


def test_recorded_reads_say_the_same(tables):
    """A walker's own reads, with values as numbers or as bytes, and a recorder."""
    expected = PageWalk(tables.root, VA, reader(tables)).run
    reads = reads_of(tables, VA)
    assert PageWalk.of_reads(tables.root, VA, reads).run == expected
    assert (
        PageWalk.of_reads(tables.root, VA, [(at, value.to_bytes(8, "little")) for at, value in reads]).run == expected
    )
    recorder = Recorder(tables.memory)
    assert PageWalk(tables.root, VA, recorder).run == expected
    assert recorder.reads == [at for at, _ in reads]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda reads: [(reads[0][0] + 8, reads[0][1]), *reads[1:]],
            "entry 255 was read, and bits 47–39 of the address are 254",
        ),
        (lambda reads: [reads[0], (reads[1][0] + 4, 1)], "entries are 8 bytes long, and 0x"),
        (lambda reads: [reads[0], (reads[1][0] + 0x5000, 1)], "and the entry before leads to the one at 0x2000"),
        (lambda reads: [(reads[0][0] + 0x1000, 1)], "and cr3 leads to the one at 0x1000"),
        (lambda reads: [reads[0], (reads[1][0] | NX, 1)], "is no physical address: bits above 51, such as NX"),
        (lambda reads: [*reads, (0x8000, 0)], "read on, though the entry before led to a page"),
        (lambda reads: [(reads[0][0], 0), reads[1]], "read on, though the entry before was not present"),
    ],
)
def test_reads_that_do_not_fit_are_marked(tables, change, said):
    """The remark names what was read and what the address or the entry before say; no result is given."""
    walk = PageWalk.of_reads(tables.root, VA, change(reads_of(tables, VA)))
    assert [said in remark for remark in column(walk, "remark")].count(True) == 1
    assert walk.run["sentences"][-1] == "These reads are not the walk of this address (✗). "


def test_any_number_of_wrong_reads_can_be_shown(tables):
    """A walker that never ends is no error of the view."""
    walk = PageWalk.of_reads(tables.root, VA, [(0x1000, 0x1001)] * 9)
    assert walk.length == 9
    assert column(walk, "level")[4:] == ["none"] * 5
    assert column(PageWalk.of_reads(tables.root, 1 << 47, [(0x1000, 1)]), "remark")[0].startswith(
        "✗ the address is not"
    )


def test_an_unfinished_walk_says_so(tables):
    """Fewer reads than levels lead to a table."""
    walk = PageWalk.of_reads(tables.root, VA, reads_of(tables, VA)[:2])
    assert walk.run["sentences"][-1].startswith(
        "The walk is not at its end: the entry of level 3 leads to a table at 0x3000"
    )
    assert PageWalk.of_reads(tables.root, VA, []).run["sentences"][-1] == "Nothing has been read."


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda address, size: b"", "the reader returned b''; expected 8 bytes"),
        (lambda address, size: {}[address], "the reader raised KeyError: "),
    ],
)
def test_a_reader_that_fails_is_told(tables, read, said):
    """The student's reader may be wrong, too."""
    walk = PageWalk(tables.root, VA, read)
    assert said in column(walk, "remark")[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PageWalk.of_reads(0, 0, [7]), "read 1 is 7; expected a pair"),
        (lambda: PageWalk.of_reads(0, 0, [(0, 1), (8, "1")]), "read 2 is .* expected two integers"),
        (lambda: PageWalk(0, 0, None, levels=3), "3 levels"),
        (lambda: PageWalk(0, 1 << 64, None), "va is 18446744073709551616"),
        (lambda: PageWalk.nested(0, [("ept", 1)]), "reference 1 is"),
        (lambda: PageWalk.nested(0, [1, "x"]), "reference 2 is 'x'"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, said):
    """The message names the value and what was expected."""
    with pytest.raises(UsageError, match=said):
        make()


def test_a_nested_walk_is_a_grid():
    """Four by four levels: five rows, the last one without a read of the guest's."""
    walk = PageWalk.nested(VA, [0x1000 * n for n in range(24)])
    rows = [[cell["text"] for cell in row["cells"]] for row in walk.run["rows"]]
    assert walk.run["heads"] == ["to find", "host 4", "host 3", "host 2", "host 1", "guest"]
    assert [row[0] for row in rows] == [*(f"the guest's level {n} entry" for n in (4, 3, 2, 1)), "the page itself"]
    assert rows[0][1:] == ["1: 0x0", "2: 0x1000", "3: 0x2000", "4: 0x3000", "5: 0x4000"]
    assert rows[4][-1] == ""
    assert walk.run["sentences"][-1] == "24 references in all: 20 to the host's tables, 4 to the guest's."


def test_irregular_nested_walks_tell_whose_read_it_was():
    """Large pages in the host's tables make rows shorter; values are told."""
    reads = [("host", 0x1000, 0x2007), ("host", 0x2000, 0x87), ("guest", 0x3000, 0), ("host", 0x4000)]
    walk = PageWalk.nested(VA, reads)
    assert [cell["step"] for cell in walk.run["rows"][0]["cells"]] == [0, 1, 2, 0, 0, 3]
    assert walk.run["rows"][1]["cells"][1]["step"] == 4
    assert "the guest's level 4 entry at last. It holds 0x0: not present" in walk.run["sentences"][3]


@pytest.mark.parametrize("make", [lambda t: PageWalk(t.root, VA, reader(t)), lambda t: PageWalk.nested(VA, [1, 2, 3])])
def test_every_walk_has_its_other_forms(tables, make):
    """JSON for the browser, aligned text, a table for committed notebooks; positions stay within it."""
    walk = make(tables)
    json.dumps(walk.run)
    bundle, _ = walk._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[0].endswith(f"{VA:#x}")
    assert bundle["text/html"].count("<tr>") == len(walk.run["rows"]) + 1
    walk.position = 99
    assert walk.position == walk.length + 1
    walk.position = -1
    assert walk.position == 0
