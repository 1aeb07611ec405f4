"""Submissions that use up time, memory, processes, disk or output; most of them by an honest mistake."""

from __future__ import annotations

from pathlib import Path

from .specimen import FULL, POINTS, Cage, Handed, Kind, Lesson

ZOO = Cage(Kind.EXHAUSTING)

_SERVICE = "import course.check.service as service\n"
ZOO.answers(
    "endless-answer",
    "An answer never returns.",
    {"total": "def total(last):\n    while True:\n        pass"},
    solved=True,
    slow=True,
)
ZOO.cell("endless-cell", "A cell never ends.", "while True:\n    pass", solved=True, slow=True)
ZOO.cell(
    "uninterruptible-cell",
    "A cell never ends and ignores interrupts.",
    "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass",
    solved=True,
    slow=True,
)
ZOO.answers(
    "waits-for-a-file",
    "An answer waits for what never comes.",
    {"shout": "import time\ndef shout(path, word):\n    time.sleep(10_000)"},
    solved=True,
    slow=True,
    marks=FULL - POINTS["shout"],
)
ZOO.cell(
    "service-never-replies",
    "Calls of answers are never answered.",
    _SERVICE + "import time\nservice._told = lambda asked, names: time.sleep(10_000)",
    slow=True,
)
ZOO.cell(
    "service-drips",
    "Calls of answers are answered by a byte a second.",
    _SERVICE
    + "import time\ndef drip(end, value):\n    end.sendall(service._LENGTH.pack(1000))\n    for _ in range(1000):\n"
    "        end.sendall(b'x')\n        time.sleep(1)\nservice.send_frame = drip",
    slow=True,
)
ZOO.cell(
    "colliding-hashes",
    "A reply holds a set whose members all have one hash, so that reading it takes the square of its size.",
    _SERVICE + "m = (1 << 61) - 1\ndef number(n):\n    size = n.bit_length() // 8 + 1\n"
    "    return b'\\x8a' + bytes([size]) + n.to_bytes(size, 'little')\n"
    "bomb = b'\\x80\\x04\\x8f(' + b''.join(number(n * m) for n in range(1, 300_000)) + b'\\x90.'\n"
    "service._told = lambda asked, names: ('ended', bomb, 0)",
    slow=True,
)
ZOO.answers(
    "exits-the-kernel",
    "An answer's cell ends the process.",
    {"total": "import os\nos._exit(0)"},
    solved=True,
)
ZOO.answers(
    "exits-when-called",
    "An answer ends the process that calls it.",
    {"total": "import os\ndef total(last):\n    os._exit(0)"},
    solved=True,
)
ZOO.cell("system-exit", "A cell calls sys.exit.", "import sys\nsys.exit()", solved=True)
ZOO.answers(
    "stack-overflow",
    "A stack of C functions overflows.",
    {"total": "import ctypes\nctypes.string_at(0)"},
    solved=True,
)
ZOO.answers(
    "endless-recursion",
    "An answer calls itself for ever.",
    {"total": "def total(last):\n    return total(last + 1)"},
    solved=True,
)
ZOO.answers(
    "deep-recursion-in-c",
    "An answer raises the limit of recursion and overflows the stack.",
    {"total": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef total(last):\n    return repr(total(last))"},
    solved=True,
)
ZOO.answers(
    "memory-of-an-answer",
    "An answer touches memory until there is none.",
    {"total": "def total(last):\n    kept = []\n    while True:\n        kept.append(bytearray(64 << 20))"},
    solved=True,
    box=True,
    plain=False,
)
ZOO.cell(
    "memory-of-a-cell",
    "A cell touches memory until there is none.",
    "kept = []\nwhile True:\n    kept.append(bytearray(64 << 20))",
    solved=True,
    box=True,
    plain=False,
)
ZOO.cell(
    "fork-bomb",
    "Processes start processes, as many as can be.",
    "import os, sys, time\nfor _ in range(3000):\n    try:\n        if os.fork() == 0:\n"
    "            time.sleep(600)\n            os._exit(0)\n    except OSError:\n        break",
    box=True,
    plain=False,
    solved=True,
    marks=None,
)
ZOO.cell(
    "thread-bomb",
    "Threads are started, as many as can be.",
    "import threading, time\nfor _ in range(3000):\n    try:\n"
    "        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n    except RuntimeError:\n"
    "        break",
    box=True,
    plain=False,
    solved=True,
    marks=None,
)
ZOO.cell("lines-of-output", "Prints 30 MB in lines.", "for _ in range(300):\n    print('x\\n' * 50_000)", solved=True)
ZOO.cell("line-of-output", "Prints 30 MB in one line.", "print('x' * 30_000_000)", solved=True)
ZOO.cell(
    "displays-of-output",
    "Shows thirty displays of a megabyte.",
    "from IPython.display import HTML, display\nfor _ in range(30):\n    display(HTML('x' * 1_000_000))",
    solved=True,
)
ZOO.answers(
    "output-of-an-answer",
    "An answer prints 50 MB when it is called.",
    {"double": "def double(number):\n    for _ in range(50):\n        print('x' * 1_000_000)\n    return 2 * number"},
    solved=True,
    marks=FULL,
)
ZOO.answers(
    "value-of-100-mb",
    "An answer returns 100 MB.",
    {"double": "def double(number):\n    return b'x' * 100_000_000"},
    solved=True,
)
ZOO.answers(
    "number-of-a-million-digits",
    "An answer returns a number that takes for ever to be written out.",
    {"total": "def total(last):\n    return 10 ** 1_000_000"},
    solved=True,
)
ZOO.answers(
    "endless-generator",
    "An answer returns a generator without end.",
    {"total": "import itertools\ndef total(last):\n    return itertools.count()"},
    solved=True,
    slow=True,
    box=True,
)
ZOO.cell(
    "disk-full",
    "Writes until the disk is full.",
    "try:\n    for n in range(100):\n        with open(f'big-{n}', 'wb') as file:\n            for _ in range(32):\n"
    "                file.write(b'x' * (32 << 20))\nexcept OSError as error:\n    print(error)\n"
    "import glob, os\nfor path in glob.glob('big-*'):\n    os.unlink(path)",
    solved=True,
    box=True,
    plain=False,
)
ZOO.cell(
    "many-files",
    "Makes files until there can be no more.",
    "import os\nos.mkdir('many')\ntry:\n    for n in range(200_000):\n        open(f'many/{n}', 'w').close()\n"
    "except OSError as error:\n    print(error)",
    solved=True,
    box=True,
    plain=False,
)
ZOO.cell("waits-for-input", "Waits for a person to type.", "name = input('name? ')", solved=True)
ZOO.cell(
    "slow-in-the-replay",
    "Ends its kernel, and its cells take for ever when they are run again.",
    "import time\nif get_ipython().kernel.get_parent()['content'].get('silent'):\n    time.sleep(10_000)",
    last="import os\nos._exit(0)",
    solved=True,
    slow=True,
)


@ZOO("A timer ends the kernel after the cell that set it.", marks=FULL)
def trap_with_a_timer(lesson: Lesson, _: Path) -> Handed:
    """The cell that dies is not the one to blame."""
    return lesson.solved(first="import os, threading\nthreading.Timer(0.2, os._exit, (1,)).start()")


@ZOO("Three thousand cells of the student's own.", marks=FULL)
def thousands_of_cells(lesson: Lesson, _: Path) -> Handed:
    """Only some of them are run; the answers count."""
    from .specimen import code_cell  # noqa: PLC0415

    made = lesson.solved()
    made["cells"] += [code_cell(f"x = {n}", f"own-{n}") for n in range(3000)]
    return made


@ZOO("An answer of ten megabytes of text.", marks=FULL - POINTS["double"])
def answer_of_ten_megabytes(lesson: Lesson, _: Path) -> Handed:
    """Longer than any answer."""
    return lesson.solved({"double": "def double(number):\n    return 2 * number\n" + "# x\n" * 2_500_000})


@ZOO("Nested a hundred thousand brackets deep.", marks=FULL - POINTS["double"])
def brackets(lesson: Lesson, _: Path) -> Handed:
    """Python's own parser gives up."""
    return lesson.solved({"double": "double = " + "(" * 100_000 + ")" * 100_000})
