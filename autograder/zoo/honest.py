"""Honest submissions of an odd form: right is right, and a part of it is worth its part."""

from __future__ import annotations

import copy
import random
from pathlib import Path

from .specimen import FULL, POINTS, Cage, Handed, Kind, Lesson, Notebook, Specimen, code_cell, markdown_cell

ZOO = Cage(Kind.HONEST)

ZOO.answers("perfect", "The lesson's own answers.", {}, solved=True)
ZOO.answers("untouched", "The release as it is.", {})
ZOO.answers(
    "half",
    "Half of the answers.",
    {"double": "def double(number):\n    return number + number", "primes": "primes = [2, 3, 5, 7]"},
    marks=POINTS["double"] + POINTS["primes"],
)


def _odd(name: str, tries: str, answers: dict[str, str], first: str = "", last: str = "", **about: float) -> None:
    """Add the lesson's answers, but for some that are right in another way."""

    def make(lesson: Lesson, _: Path) -> Handed:
        return lesson.solved(answers, first=first, last=last)

    ZOO.specimens.append(Specimen(name, Kind.HONEST, tries, make, **({"marks": FULL} | about)))  # type: ignore[arg-type]


_odd(
    "warnings-and-stderr",
    "Answers warn and write to stderr.",
    {
        "double": "import sys, warnings\ndef double(number):\n    warnings.warn('old', DeprecationWarning)\n"
        "    print('noise', file=sys.stderr)\n    return number * 2"
    },
    first="import warnings, sys\nwarnings.warn('careful')\nprint('noise', file=sys.stderr)",
)
_odd(
    "late-threads",
    "Threads print while other cells run, and later.",
    {
        "double": "import sys, threading, time\ndef later():\n    time.sleep(0.3)\n    print('late', file=sys.stderr)\n"
        "def double(number):\n    threading.Thread(target=later).start()\n    return number * 2"
    },
    first="import threading, time\ndef talk():\n    for _ in range(30):\n        print('talk')\n"
    "        time.sleep(0.05)\n"
    "threading.Thread(target=talk, daemon=True).start()",
)
_odd(
    "prints",
    "Answers print what they do.",
    {"double": "def double(number):\n    print('doubling', number)\n    return number * 2"},
    last="print(double(4), total(10))\ndouble(8)",
)
_odd(
    "plots",
    "A cell draws a plot.",
    {},
    last="import matplotlib.pyplot as plt\nplt.plot([double(n) for n in range(9)])\nplt.show()",
)
_odd(
    "helpers-and-globals",
    "Answers use helpers and globals of own cells, which change between calls.",
    {
        "double": "calls = 0\ndef double(number):\n    global calls\n    calls += 1\n    return helper(number)",
        "total": "def total(last):\n    return sum(table[:last + 1])",
    },
    first="table = list(range(2000))\ndef helper(number):\n    return number + number",
)
_odd(
    "async-answer",
    "An answer is a coroutine.",
    {"total": "import asyncio\nasync def total(last):\n    await asyncio.sleep(0)\n    return last * (last + 1) // 2"},
)
_odd(
    "generator",
    "A value is an iterator.",
    {"total": "def total(last):\n    numbers = (n for n in range(last + 1))\n    return sum(numbers)"},
)
_odd(
    "changes-its-argument",
    "An answer sorts and empties the list that it is given.",
    {"estimate": "def estimate(values):\n    total = 0\n    count = len(values)\n    values.sort()\n"
     "    while values:\n        total += values.pop()\n    return total / count"},
)  # fmt: skip
_odd(
    "recursion",
    "An answer calls itself a few hundred times.",
    {
        "total": "import sys\nsys.setrecursionlimit(5000)\ndef total(last):\n"
        "    return 0 if last == 0 else last + total(last - 1)"
    },
)
_odd(
    "top-level-await",
    "A cell awaits.",
    {},
    first="import asyncio\nawait asyncio.sleep(0)\nasync with asyncio.Lock():\n    x = 1",
)
_odd(
    "magics",
    "Cells use magics and the shell.",
    {"double": "%config InteractiveShell.ast_node_interactivity = 'all'\ndef double(number):\n    return number * 2"},
    first="%matplotlib inline\n%time sum(range(10))\n!echo hello\nfiles = !ls\n%%time",
)
_odd(
    "cell-magic",
    "An answer's cell begins with a cell magic.",
    {"total": "%%time\ndef total(last):\n    return sum(range(last + 1))"},
)
_odd(
    "unicode",
    "Names, strings and comments of all scripts.",
    {"double": "# 虎 🐯 \u202eabc\ndef double(число):\n    größe = число\n    return größe * 2"},
)
_odd(
    "defined-twice",
    "An answer is defined twice; the last definition is right.",
    {"double": "def double(number):\n    return 7\n\ndef double(number):\n    return number * 2"},
)
_odd(
    "slow-but-allowed",
    "An answer takes its time.",
    {"total": "import time\ndef total(last):\n    time.sleep(0.3)\n    return sum(range(last + 1))"},
)
_odd(
    "callable-object",
    "Answers are a lambda, a partial function, a class and a bound method.",
    {
        "double": "double = lambda number: number * 2",
        "total": "import functools\ntotal = functools.partial(lambda start, last: sum(range(start, last + 1)), 1)",
        "estimate": "class Mean:\n    def of(self, values):\n        return sum(values) / len(values)\n"
        "estimate = Mean().of",
    },
)
_odd(
    "decorated",
    "Answers are cached and wrapped.",
    {"total": "import functools\n@functools.lru_cache\ndef total(last):\n    return sum(range(last + 1))"},
)
_odd(
    "numpy-like-numbers",
    "Answers return subclasses of plain data.",
    {
        "double": "class Number(int):\n    def __repr__(self):\n        return 'a number'\ndef double(number):\n"
        "    return Number(number * 2)",
        "primes": "import collections\nclass Listed(list):\n    pass\nprimes = Listed([2, 3, 5, 7])",
    },
)
_odd(
    "signals-and-handlers",
    "Cells set signal handlers, locales, recursion limits and the working directory.",
    {},
    first="import os, signal, sys, tempfile\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "sys.setrecursionlimit(2000)\n"
    "os.chdir(tempfile.mkdtemp())",
)
_odd(
    "overwrites-builtins",
    "A cell uses names of builtins for its own.",
    {},
    last="list = [1]\nstr = 'x'\nsum = max = 3",
)
_odd(
    "answer-in-another-cell",
    "An answer is given in the student's own cell above, and its cell only says so.",
    {"double": "# see above"},
    first="def double(number):\n    return number * 2",
)
_odd(
    "an-error-in-the-middle",
    "A cell of the student's own fails.",
    {},
    first="1 / 0",
)
_odd("partial-credit", "An estimate is close.", {"estimate": "def estimate(values):\n    return 2.7"}, marks=FULL - 0.2)
_odd(
    "wrong-by-one",
    "An answer is right for what is visible only.",
    {
        "double": "def double(number):\n    return abs(number) * 2",
        "total": "def total(last):\n    return 6 if last else 7",
    },
    marks=FULL - POINTS["double"] - POINTS["total"],
)
_odd(
    "leaves-things-open",
    "Answers leave files, sockets and children behind.",
    {
        "first_line": "import subprocess\nkept = []\ndef first_line(path):\n"
        "    kept.append(open(path, encoding='utf-8'))\n"
        "    return kept[-1].readline().rstrip('\\n')",
        "double": "import subprocess\ndef double(number):\n    return int(subprocess.run(['echo', str(number * 2)], "
        "capture_output=True, text=True).stdout)",
    },
)
_odd(
    "uses-pool",
    "An answer starts processes of its own.",
    {
        "total": "import multiprocessing\ndef total(last):\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        return sum(pool.map(int, range(last + 1)))"
    },
)


@ZOO("Cells are in the reverse order.", marks=FULL)
def reversed_order(lesson: Lesson, _: Path) -> Handed:
    """Tests before answers."""
    made = lesson.solved()
    made["cells"].reverse()
    return made


@ZOO("An answer's cell was copied and the copy emptied.", marks=FULL)
def duplicated_and_emptied(lesson: Lesson, _: Path) -> Handed:
    """Ctrl-C, Ctrl-V, and the copy is blank."""
    return _with_copy(lesson, "")


@ZOO("An answer's cell was copied, and both are there.", marks=FULL)
def duplicated(lesson: Lesson, _: Path) -> Handed:
    """Two cells of one id."""
    return _with_copy(lesson, None)


def _with_copy(lesson: Lesson, source: str | None) -> Notebook:
    made = lesson.solved()
    at = next(n for n, cell in enumerate(made["cells"]) if cell["id"] == "double")
    double = copy.deepcopy(made["cells"][at])
    made["cells"].insert(at + 1, double if source is None else {**double, "source": source})
    return made


@ZOO("All metadata and ids were lost, as after a round trip through Colab.", marks=FULL)
def lost_metadata(lesson: Lesson, _: Path) -> Handed:
    """Only the sources are left; a value's cell has no name to be found by, but still runs where it stands."""
    made = lesson.solved()
    for number, cell in enumerate(made["cells"]):
        cell["metadata"], cell["id"] = {"colab": {"base_uri": "x"}, "id": "y"}, f"colab-{number}"
    return made


@ZOO("The notebook is of format 3.", marks=FULL)
def format_3(lesson: Lesson, _: Path) -> Handed:
    """As IPython wrote it before 2015."""
    made = lesson.solved()
    cells = [
        {"cell_type": "code", "metadata": c["metadata"], "input": c["source"], "outputs": [], "language": "python"}
        if c["cell_type"] == "code"
        else {"cell_type": c["cell_type"], "metadata": c["metadata"], "source": c["source"]}
        for c in made["cells"]
    ]
    sheet = {"metadata": {}, "cells": cells}
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [sheet]}


@ZOO("The notebook is of format 4.0, without ids of cells.", marks=FULL)
def format_4_0(lesson: Lesson, _: Path) -> Handed:
    """As many programs still write it; sources are lists of lines."""
    made = lesson.solved()
    for cell in made["cells"]:
        del cell["id"]
        source = cell["source"]
        cell["source"] = source.splitlines(keepends=True) if isinstance(source, str) else source
    return {**made, "nbformat": 4, "nbformat_minor": 0}


@ZOO("Data files lie beside the notebook.", marks=FULL)
def data_files(lesson: Lesson, folder: Path) -> Handed:
    """An answer reads one of them."""
    (folder / "data").mkdir()
    (folder / "data" / "factor.txt").write_text("2")
    return lesson.solved({"double": "def double(number):\n    return number * int(open('data/factor.txt').read())"})


# ── generated: for the comparison with plain nbgrader ────────────────────────────────────────────────────────────────

_VARIANTS: dict[str, list[tuple[str, float]]] = {
    "double": [
        ("def double(number):\n    return number * 2", 1),
        ("def double(number):\n    return number + number", 1),
        ("def double(number):\n    return number << 1", 1),
        ("def double(number):\n    return 6", 0),
        ("def double(number):\n    return number ** 2", 0),
        ("def double(number):\n    print(number * 2)", 0),
    ],
    "total": [
        ("def total(last):\n    return sum(range(1, last + 1))", 1),
        ("def total(last):\n    return last * (last + 1) // 2", 1),
        ("def total(last):\n    found = 0\n    for n in range(last + 1):\n        found += n\n    return found", 1),
        ("def total(last):\n    return sum(range(last))", 0),
        ("def total(last):\n    return 6", 0),
        ("def total(last):\n    return undefined_name", 0),
    ],
    "first_line": [
        ("def first_line(path):\n    return open(path, encoding='utf-8').read().split('\\n')[0]", 1),
        (
            "from pathlib import Path\ndef first_line(path):\n    return Path(path).read_text('utf-8').splitlines()[0]",
            1,
        ),
        ("def first_line(path):\n    return open(path, encoding='utf-8').readline()", 0),
        ("def first_line(path):\n    return path", 0),
    ],
    "shout": [
        (
            "import socket\ndef shout(path, word):\n    with socket.socket(socket.AF_UNIX) as end:\n"
            "        end.connect(path)\n        end.sendall(word.encode())\n        return end.recv(1000).decode()",
            1,
        ),
        ("def shout(path, word):\n    return word.upper()", 0),
        ("def shout(path, word):\n    raise ConnectionError(path)", 0),
    ],
    "primes": [
        ("primes = [2, 3, 5, 7]", 1),
        ("primes = [n for n in range(2, 10) if all(n % d for d in range(2, n))]", 1),
        ("primes = [1, 2, 3, 5, 7]", 0),
        ("primes = {2, 3, 5, 7}", 0),
    ],
    "estimate": [
        ("def estimate(values):\n    return sum(values) / len(values)", 1),
        ("import statistics\ndef estimate(values):\n    return statistics.mean(values)", 1),
        ("def estimate(values):\n    return values[0]", 2 / 3),
        ("def estimate(values):\n    return sum(values)", 0),
    ],
}
_CELLS = ("x = 1", "print('hello')", "double", "[n for n in range(3)]", "# nothing", "import math\nmath.pi", "%time 1")


def generated(lesson: Lesson, count: int) -> dict[str, tuple[Notebook, float]]:
    """Make honest submissions, the same in every run.

    Args:
        lesson: the zoo's.
        count: how many.

    Returns:
        Notebook and deserved marks by the student's id. Some answers are missing, some wrong; cells of the student's
        own stand between them. Nothing in them is odd: plain nbgrader grades them rightly, too.
    """
    made = {}
    for number in range(count):
        rng = random.Random(f"honest {number}")
        answers, marks = {}, 0.0
        for name, variants in _VARIANTS.items():
            if rng.random() < 0.15:
                continue
            answers[name], share = rng.choice(variants if rng.random() < 0.5 else [v for v in variants if v[1] == 1])
            marks += POINTS[name] * share
        notebook = lesson.answered(answers)
        for index in range(rng.randrange(3)):
            at = rng.randrange(1, len(notebook["cells"]))
            cell = code_cell(rng.choice(_CELLS), f"own-{index}")
            notebook["cells"].insert(at, cell if rng.random() < 0.7 else markdown_cell("A *note*.", f"own-{index}"))
        made[f"h{number:02}"] = (notebook, marks)
    return made
