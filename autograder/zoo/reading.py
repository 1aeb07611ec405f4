"""Submissions that look for what is not theirs: solutions, hidden tests, other students' work, secrets."""

from __future__ import annotations

import os
from pathlib import Path

from .specimen import Cage, Handed, Kind, Lesson, everywhere

ZOO = Cage(Kind.READING)

_SHOW = "def show(what):\n    print(str(what)[:20_000])\n"
_EXEC = (
    "import json\ndef adopt(path):\n    names = ('double', 'total', 'first_line', 'shout', 'primes', 'estimate')\n"
    "    for cell in json.load(open(path))['cells']:\n"
    "        if cell['metadata'].get('nbgrader', {}).get('grade_id') in names:\n"
    "            exec(''.join(cell['source']), globals())\n"
)


def _adopting(code: str) -> dict[str, str]:
    """Answers that are looked for when they are called."""
    body = f"{_EXEC}{code}"
    return everywhere(
        "def NAME(*arguments):\n    space = {}\n    exec(" + repr(body) + ", space)\n"
        "    return space['NAME'](*arguments)"
    )


ZOO.answers(
    "source-solutions",
    "Runs the instructor's own answers, from source/.",
    _adopting("adopt('@root/source/01-zoo/01-zoo.ipynb')"),
    box=True,
)
ZOO.answers(
    "other-submission",
    "Runs another student's answers.",
    _adopting("adopt('@root/autograder/work/submitted/ada/01-zoo/01-zoo.ipynb')"),
    box=True,
)
ZOO.answers(
    "relative-source",
    "Looks for source/ above its own folder.",
    _adopting(
        "import glob\nfor up in range(1, 8):\n"
        "    for path in glob.glob('../' * up + 'source/*/*.ipynb'):\n        adopt(path)"
    ),
    box=True,
)
ZOO.answers(
    "own-graded-notebook",
    "Reads the notebook beside it, into which nbgrader has just put the hidden tests.",
    {
        "double": "import pathlib, re\ntexts = [p.read_text() for p in pathlib.Path().rglob('*.ipynb')]\n"
        "def double(number):\n    for text in texts:\n"
        "        if found := re.search(rf'double\\({number}\\) == (-?\\d+)', text):\n"
        "            return int(found[1])\n    return 0"
    },
)
ZOO.answers(
    "autograded-notebook",
    "Searches the course's folder of graded notebooks for hidden tests.",
    {
        "double": "import pathlib, re\nfolder = pathlib.Path('@root/autograder/work')\n"
        "texts = [p.read_text() for p in folder.rglob('*.ipynb')]\ndef double(number):\n    for text in texts:\n"
        "        if found := re.search(rf'double\\({number}\\) == (-?\\d+)', text):\n"
        "            return int(found[1])\n    return 0"
    },
    box=True,
)
ZOO.cell(
    "hidden-tests-in-the-gradebook",
    "Reads hidden tests and marks out of the gradebook and shows them.",
    _SHOW + "import sqlite3\nbase = sqlite3.connect('@root/autograder/gradebook.db')\n"
    "for line in base.iterdump():\n    show(line)",
    box=True,
)
ZOO.cell(
    "autograder-import",
    "Imports the grader and its hidden checks, from wherever they can be found.",
    _SHOW
    + "import sys, glob\nsys.path += ['@root', *glob.glob('/work/*'), *glob.glob('/home/*'), *glob.glob('/srv/*')]\n"
    "import autograder.checks\nshow(autograder.checks.__path__)\n"
    "for path in glob.glob(list(autograder.checks.__path__)[0] + '/*.py')[:3]:\n    show(open(path).read())\n"
    "raise SystemError('the hidden checks were found')",
)
ZOO.cell(
    "environment-and-arguments",
    "Shows the environment and the command line of every process that it can see.",
    _SHOW + "import glob, os\nshow(dict(os.environ))\n"
    "for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n    try:\n"
    "        show(open(path, 'rb').read())\n    except OSError:\n        pass",
    box=True,
)
ZOO.cell(
    "secrets-at-home",
    "Shows keys, histories and tokens in the grader's home.",
    _SHOW + "import os, pathlib\nfor home in ('@home', '/root', os.path.expanduser('~')):\n"
    "    for path in pathlib.Path(home).rglob('*'):\n        try:\n            show(path.read_text()[:500])\n"
    "        except (OSError, ValueError):\n            pass",
    box=True,
)
ZOO.cell(
    "gc-of-the-kernel",
    "Searches the kernel's own memory for what its parent knew: strings, frames, modules.",
    _SHOW + "import gc, sys, types\nfor one in gc.get_objects():\n    try:\n"
    "        if isinstance(one, types.ModuleType) and 'autograder.checks' in one.__name__:\n"
    "            show(vars(one))\n"
    "        if isinstance(one, dict):\n            found = [v for v in one.values() if isinstance(v, str) and "
    "('HIDDEN TESTS' in v or 'hidden-' + 'seal' in v or 'ZOO_SECRET' in v)]\n"
    "            if found and one is not globals() and not any('gc.get_objects' in v for v in found):\n"
    "                show(found)\n    except Exception:\n        pass",
)
ZOO.answers(
    "linecache-and-history",
    "Looks for tests in linecache, inspect and the history of inputs when it is called.",
    {
        "double": "import inspect, linecache, re, sys\ndef double(number):\n"
        "    texts = [''.join(e[2]) for e in linecache.cache.values() if len(e) > 2]\n"
        "    texts += [str(f.frame.f_locals) for f in inspect.stack()] + list(get_ipython().user_ns.get('In', []))\n"
        "    for text in texts:\n        if found := re.search(r'double\\(' + str(number) + r'\\) == (-?\\d+)', text):"
        "\n            return int(found[1])\n    return 0"
    },
)
ZOO.cell(
    "other-kernels",
    "Connects to the kernels of others through their connection files, and runs code there.",
    "import glob, json, os\nfrom jupyter_client import BlockingKernelClient\n"
    "mine = set()\nfor path in glob.glob('/tmp/**/kernel*.json', recursive=True) + "
    "glob.glob('@home/**/kernel-*.json', recursive=True) + "
    "glob.glob(os.path.expanduser('~root/.local/share/jupyter/runtime/*.json')):\n"
    "    try:\n        info = json.load(open(path))\n"
    "        if info['key'] == get_ipython().kernel.session.key.decode():\n"
    "            continue\n        print('found', path)\n        client = BlockingKernelClient(connection_file=path)\n"
    "        client.load_connection_file()\n        client.start_channels()\n"
    "        client.execute('def double(n):\\n    return 0')\n    except Exception as error:\n        print(error)",
    box=True,
)
ZOO.cell(
    "memory-of-others",
    "Reads /proc/PID/mem and environ of the grader and the judge for hidden tests.",
    "import glob, os, re\nseal = b'hidden-' + b'seal'\nfor path in glob.glob('/proc/[0-9]*/mem'):\n"
    "    pid = path.split('/')[2]\n    if int(pid) == os.getpid():\n        continue\n    try:\n"
    "        maps = open(f'/proc/{pid}/maps').read()\n        with open(path, 'rb', 0) as mem:\n"
    "            for lo, hi in re.findall(r'^(\\w+)-(\\w+) rw', maps, re.M)[:200]:\n"
    "                mem.seek(int(lo, 16))\n                data = mem.read(min(int(hi, 16) - int(lo, 16), 1 << 24))\n"
    "                if (at := data.find(seal)) >= 0:\n"
    "                    print('READ', pid, data[at - 500:at + 500])\n"
    "    except (OSError, ValueError, OverflowError):\n        pass",
    box=True,
)
ZOO.answers(
    "memory-of-the-judge-while-it-waits",
    "While it is called, an answer reads and traces every other process, the judge among them.",
    {
        "double": "import ctypes, glob, os, re\ndef double(number):\n    seal, found = b'hidden-' + b'seal', []\n"
        "    libc = ctypes.CDLL(None)\n    for path in glob.glob('/proc/[0-9]*'):\n        pid = int(path[6:])\n"
        "        if pid in (os.getpid(), os.getppid()):\n            continue\n"
        "        if libc.ptrace(16, pid, 0, 0) == 0:\n            found.append(pid)\n        try:\n"
        "            data = open(path + '/mem', 'rb', 0)\n"
        "            for lo, hi in re.findall(r'^(\\w+)-(\\w+) rw', open(path + '/maps').read(), re.M)[:200]:\n"
        "                data.seek(int(lo, 16))\n                text = data.read(1 << 22)\n"
        "                at = text.find(seal)\n                if at >= 0:\n"
        "                    return str(text[at:at + 100])\n        except (OSError, ValueError, OverflowError):\n"
        "            pass\n    return f'traced {found}'"
    },
    box=True,
)
ZOO.cell(
    "descriptors",
    "Reads every file descriptor that it has inherited.",
    "import os, stat\nfor fd in range(3, 200):\n    try:\n        what = os.readlink(f'/proc/self/fd/{fd}')\n"
    "        os.lseek(fd, 0, 0)\n        print(fd, what, os.read(fd, 500))\n    except OSError:\n        pass",
)


@ZOO("A link in the submission's folder leads to the instructor's source and secrets.", box=True)
def links_in_the_folder(lesson: Lesson, folder: Path) -> Handed:
    """Links to files and folders, read by a cell."""
    for name, target in (("s", "source"), ("db", "autograder/gradebook.db"), ("h", "autograder/secret.txt")):
        (folder / name).symlink_to(os.path.join(lesson.lure.root, target))  # noqa: PTH118 - need not exist
    (folder / "home").symlink_to(lesson.lure.home)
    return lesson.answered(
        first="import pathlib\nfor p in pathlib.Path().rglob('*'):\n    print(p)\n    try:\n"
        "        print(p.read_bytes()[:5000])\n    except OSError:\n        pass\nfor n in ('s', 'h', 'home'):\n"
        "    for p in pathlib.Path(n).rglob('*'):\n        print(p.read_bytes()[:5000] if p.is_file() else p)"
    )


@ZOO("The notebook that is handed in is a link to the instructor's.")
def notebook_is_a_link(lesson: Lesson, folder: Path) -> Handed:
    """A link in the place of the notebook."""
    (folder / "01-zoo.ipynb").symlink_to(f"{lesson.lure.root}/source/01-zoo/01-zoo.ipynb")
    return None


@ZOO("The notebook that is handed in is a link to a secret.")
def notebook_links_to_a_secret(lesson: Lesson, folder: Path) -> Handed:
    """What cannot be parsed must not be quoted either."""
    (folder / "01-zoo.ipynb").symlink_to(f"{lesson.lure.root}/autograder/secret.txt")
    return None
