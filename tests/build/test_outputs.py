"""Sticky outputs: volatile text changes no byte, meaning does."""

import copy
import json

import pytest

from course.build import outputs

from .conftest import ROOT

RULES = outputs.patterns(ROOT / "tests" / "notebooks" / "sanitize.cfg")


def cell(*outs, source="x", tags=()):
    """A code cell with these outputs."""
    return {
        "cell_type": "code",
        "id": "a",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": list(outs),
    }


def stream(text):
    """What print leaves."""
    return {"output_type": "stream", "name": "stdout", "text": text}


def kept(new, old):
    """True when the old outputs stay."""
    new = copy.deepcopy(new)
    return bool(outputs.keep_old({"cells": [new]}, {"cells": [old]}, RULES))


VOLATILE = [
    ("pid 12", "pid 99999"),
    ("took 0.31 s", "took 12 s"),
    ("3 ms", "400 µs"),
    ("cold is 3.4× slower", "cold is 11× slower"),
    ("RSS 12.5 MiB", "RSS 999 MiB"),
    ("<object at 0x7f337e977b10>", "<object at 0x55aa01>"),
    ("Linux 6.1.0-32-amd64", "Linux 6.12.9-1-cloud"),
    ("QEMU 7.2.19", "QEMU 10.0.2"),
    ("/tmp/tmpabc123/qmp.sock", "/tmp/x_9/qmp.sock"),
    ("{'seconds': 1700000000, 'microseconds': 12}", "{'seconds': 1800000000, 'microseconds': 345678}"),
    ('"timestamp": {"seconds": 1, "microseconds": 2}', '"timestamp": {"seconds": 3, "microseconds": 4}'),
    ("42% busy", "7.5 % busy"),
    ("2026-11-23T13:01:06", "2027-01-01T00:00:00"),
    ("17 Mbit/s", "90.1 Mbit/s"),
]


@pytest.mark.parametrize(("before", "after"), VOLATILE)
def test_volatile_text_keeps_the_old_output(before, after):
    """Measurements that differ from run to run do not change a committed notebook."""
    assert kept(cell(stream(after)), cell(stream(before)))


@pytest.mark.parametrize(
    ("before", "after"),
    [("3 replies", "4 replies"), ("running", "paused"), ("0x3f8", "0x2f8"), ("status 0", "status 1"), ("6", "7")],
)
def test_meaning_replaces_the_old_output(before, after):
    """What a lesson says is never kept from an older run."""
    assert not kept(cell(stream(after)), cell(stream(before)))


def test_changed_source_replaces_the_output():
    """An output belongs to the code that made it."""
    assert not kept(cell(stream("a 1 s"), source="y"), cell(stream("a 2 s")))


def test_ignored_outputs_are_kept_while_their_kinds_are_the_same():
    """An author's nbval-ignore-output means: any text here is as good as another."""
    old = cell(stream("one"), tags=["nbval-ignore-output"])
    assert kept(cell(stream("two"), tags=["nbval-ignore-output"]), old)
    assert not kept(cell(tags=["nbval-ignore-output"]), old)


def test_every_sanitize_rule_is_read_as_nbval_reads_it():
    """The file's rules are the same for nbval's own parser, so that none is lost to a comment or a blank."""
    from nbval.plugin import get_sanitize_patterns

    text = (ROOT / "tests" / "notebooks" / "sanitize.cfg").read_text()
    assert [(rule.pattern, replacement) for rule, replacement in RULES] == get_sanitize_patterns(text)
    assert len(RULES) == sum(line.startswith("[") for line in text.splitlines())


def test_what_is_written_is_what_nbformat_writes(tmp_path):
    """Reading and writing a notebook of nbformat's changes no byte."""
    import nbformat

    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("a\n\nb", id="a")])
    node.cells.append(nbformat.v4.new_code_cell("1\n2", id="b"))
    node.cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg>\n</svg>", "text/plain": "é"})
    ]
    path = tmp_path / "a.ipynb"
    nbformat.write(node, path)
    assert outputs.dumps(outputs.read(path)) == path.read_text()
    assert json.loads(path.read_text())
