"""Tests outside the student's process: nothing that a notebook does there gives marks, or takes them from an answer."""

from __future__ import annotations

import asyncio

import nbformat
import pytest

from autograder.judge import Court
from autograder.split import Plan

from .tiny import ANSWERS, FULL, SOURCE, STUBS, TESTS, cell, graded, marks, notebook, shown, submission

ZERO = dict.fromkeys(FULL, 0.0)
ALWAYS = "class Yes:\n    __eq__ = lambda self, other: True\n    __hash__ = object.__hash__\n"


@pytest.fixture(scope="module")
def court():
    """One usher for all submissions."""
    with Court() as court:
        yield court


def forged(code):
    """A blank release with a cell that changes the service of the student's own process."""
    return submission(first=f"import course.check.service as service\n{code}")


FORGERIES = {
    "objects that equal everything": submission(
        {name: f"{ALWAYS}def {name}(*a):\n    return Yes()" for name in ANSWERS}
    ),
    "numbers that equal everything": submission(
        {name: f"{ALWAYS.replace('Yes', 'Yes(int)')}def {name}(*a):\n    return Yes()" for name in ANSWERS}
    ),
    "asserts stripped": submission(
        first="import ast\nclass Strip(ast.NodeTransformer):\n"
        "    def visit_Assert(self, node):\n        return ast.Pass()\n"
        "get_ipython().ast_transformers.append(Strip())"
    ),
    "cells emptied": submission(first="get_ipython().input_transformers_post.append(lambda lines: ['pass'])"),
    "cells made a script that fails in silence": submission(
        first="get_ipython().input_transformers_cleanup.append("
        "lambda lines: ['%%script false --no-raise-error\\n', *lines])"
    ),
    "another run_cell": submission(
        first="shell = get_ipython()\nreal = shell.run_cell_async\n"
        "async def nothing(code, *a, **k):\n    return await real('pass', *a, **k)\nshell.run_cell_async = nothing"
    ),
    "silent tracebacks": submission(first="get_ipython().showtraceback = lambda *a, **k: None"),
    "replies that are always ok": submission(
        first="kernel = get_ipython().kernel\nreal = kernel.do_execute\n"
        "async def fine(*a, **k):\n    reply = await real(*a, **k)\n    return {**reply, 'status': 'ok'}\n"
        "kernel.do_execute = fine"
    ),
    "a result from nowhere": submission(
        first="k = get_ipython().kernel\nfor points in ('2.0', '-5', '1000'):\n"
        "    k.session.send(k.iopub_socket, 'execute_result', {'data': {'text/plain': points}, 'metadata': {}, "
        "'execution_count': 1}, parent=k.get_parent())",
        last="2.0",
    ),
    "answers that read the test": submission(
        {
            "double": "import re, sys\ndef double(number):\n    frame = sys._getframe()\n    while frame:\n"
            "        for text in map(str, [*frame.f_globals.get('In', []), *frame.f_locals.values()]):\n"
            "            if found := re.search(rf'double\\({number}\\) == (-?\\d+)', text):\n"
            "                return int(found[1])\n        frame = frame.f_back\n    return 0"
        }
    ),
    "a notebook that is read": submission(
        {
            "double": "import pathlib, re\ntexts = [p.read_text() for p in pathlib.Path().rglob('*.ipynb')]\n"
            "def double(number):\n    for text in texts:\n"
            "        if found := re.search(rf'double\\({number}\\) == (-?\\d+)', text):\n"
            "            return int(found[1])\n    return 0"
        }
    ),
    "names of the judge": submission(
        first="class check:\n    uptime_s = staticmethod(lambda answer: None)\n"
        "class math:\n    isclose = staticmethod(lambda *a: True)\nclass hidden:\n    pass\n"
        "import builtins, sys\nsys.modules['course.check'].Exercise.__call__ = lambda *a: None\n"
        "builtins.AssertionError = KeyboardInterrupt"
    ),
    "a service that says what it likes": forged(
        "from course.check.reply import encode\n"
        "service._told = lambda asked, names: ('ended', encode(([('RETURNED', 1, '', '')], '', {})), 0)"
    ),
    "a service with objects": forged(
        "import pickle\nclass Evil:\n    def __reduce__(self):\n        return (print, ('owned',))\n"
        "service._told = lambda asked, names: ('ended', pickle.dumps(([('RETURNED', Evil(), '', '')], '', {})), 0)"
    ),
    "a service of another shape": forged("service._told = lambda asked, names: {'ended': [1, [2, [3]]]}"),
    "a service that ends": forged("service._told = lambda asked, names: 1 / 0"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_from_a_blank_release_get_nothing(court, name):
    """What fools a test in the student's own process does not reach the judge."""
    assert marks(graded(FORGERIES[name], court, check_timeout=60)) == ZERO


def test_a_notebook_in_the_folder_is_not_the_student_s(court, tmp_path):
    """Where nbgrader writes the hidden tests, beside the student's files, no kernel works."""
    nbformat.write(SOURCE, tmp_path / "tiny.ipynb")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("1")
    (tmp_path / "data" / "link").symlink_to("/etc/hostname")
    look = "# look\nimport pathlib\nprint(sorted(str(p) for p in pathlib.Path().rglob('*') if p.is_file()))"
    done = graded(submission(first=look), court, str(tmp_path))
    assert "['data/table.csv']" in shown(done, "look")
    assert marks(graded(FORGERIES["a notebook that is read"], court, str(tmp_path))) == ZERO


def test_right_answers_get_full_marks_and_their_verdicts(court):
    """The instructor's own answers; what the checks said is shown and kept."""
    done = graded(submission(ANSWERS), court)
    assert marks(done) == FULL
    assert "✔ correct · uptime_s · visible checks 2 of 2" in shown(done, "correct_uptime_s")
    [verdict] = done.metadata["course"]["verdicts"]["correct_uptime_s"]["checks"]
    assert (verdict["state"], verdict["exercise"], verdict["credit"]) == ("correct", "uptime_s", 1.0)


def test_answers_may_be_odd(court):
    """Warnings, late output, prints, coroutines, generators, helpers of the student's own: right is right."""
    odd = {
        "double": "import sys, threading, time, warnings\n"
        "def later():\n    time.sleep(0.2)\n    print('late', file=sys.stderr)\n"
        "def double(number):\n    warnings.warn('old')\n    print('noise', file=sys.stderr)\n"
        "    threading.Thread(target=later).start()\n    return helper(number)",
        "total": "async def total(last):\n    return sum(number for number in range(last + 1))",
        "uptime_s": "%config InteractiveShell.ast_node_interactivity = 'all'\nclass uptime_s(float):\n"
        "    def __new__(cls, text):\n        return float.__new__(cls, text.split()[0])",
    }
    done = graded(submission(odd, first="def helper(number):\n    return number + number"), court)
    assert marks(done) == FULL


def test_wrong_answers_are_told_why(court):
    """A failed assertion shows the test's line; a hidden check shows its verdict; each costs its own test only."""
    wrong = {"double": "def double(number):\n    return 6", "total": "def total(last):\n    return 6 if last else 7"}
    done = graded(submission(wrong | {"uptime_s": ANSWERS["uptime_s"]}), court)
    assert marks(done) == ZERO | {"correct_uptime_s": 1.0}
    assert "of negative numbers too" in shown(done, "correct_double")
    assert "hidden checks 0 of 1" in shown(done, "correct_total")
    [verdict] = done.metadata["course"]["verdicts"]["correct_total"]["checks"]
    assert (verdict["misconception"], verdict["hidden"]) == ("starts-at-one", True)


def test_answers_that_misbehave_cost_their_own_test(court):
    """Raising, missing, ending the process that calls it, ending the kernel: the next test is judged."""
    bad = {
        "double": "import os, signal\ndef double(number):\n    os.kill(os.getppid(), signal.SIGKILL)",
        "total": "total = undefined",
        "uptime_s": ANSWERS["uptime_s"],
    }
    done = graded(submission(bad), court)
    assert marks(done) == ZERO | {"correct_uptime_s": 1.0}
    assert "ended its process" in shown(done, "correct_double")
    assert "'total' is not defined" in shown(done, "correct_total")


REACHES = '''"""The answer reaches what the judge has made, by pid and by path."""
import os
import socket
import subprocess
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder, subprocess.Popen(["sleep", "600"]) as sleeper:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        Path(folder, "file").write_text("content")
        said = double([sleeper.pid, folder])
        sleeper.kill()
assert said == ["sleep", "content", True, True], said
### BEGIN HIDDEN TESTS
assert os.environ["TMPDIR"].endswith("judge")
### END HIDDEN TESTS'''
REACHING = """import os, socket
def double(given):
    pid, folder = given
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/socket")
    with open(f"/proc/{pid}/comm") as comm, open(f"{folder}/file") as file:
        return [comm.read().strip(), file.read(), os.readlink(f"/proc/{pid}/exe").endswith("sleep"),
                len(os.listdir(f"/proc/{pid}/fd")) > 0]
"""


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_both_sides_mean_the_same_by_pids_and_paths(court, sandbox, monkeypatch):
    """Processes, sockets and files of a check can be used by an answer, in a box or not."""
    monkeypatch.setitem(TESTS, "double", REACHES)
    done = graded(submission(ANSWERS | {"double": REACHING}), court, sandbox=sandbox)
    assert marks(done) == FULL, shown(done, "correct_double")
    assert done.metadata["course"]["sandbox"]


def test_boxes_change_no_marks(court):
    """What is honest is right, what is forged is nothing, what ends its kernel is left out, also in a box."""
    ends = "# ends\nimport os, signal\nos.kill(0, signal.SIGKILL)"
    done = graded(submission(ANSWERS, first=ends), court, sandbox="auto")
    assert marks(done) == FULL
    assert "KernelEnded" in shown(done, "ends")
    for name in ("a service that says what it likes", "objects that equal everything"):
        assert marks(graded(FORGERIES[name], court, sandbox="auto")) == ZERO


def test_a_running_event_loop_changes_nothing(court):
    """The formgrader's button grades inside its server's loop."""

    async def button():
        return graded(submission(ANSWERS), court)

    assert marks(asyncio.run(button())) == FULL


def test_outputs_of_tests_are_the_judge_s_alone(court):
    """An update of a display, from a later cell, changes no test."""
    show = "from IPython.display import display, HTML\nhandle = display(HTML('mine'), display_id='x')"
    done = graded(submission(first=show, last="handle.update(HTML('<b>changed</b>'))"), court)
    assert marks(done) == ZERO
    assert all("changed" not in shown(done, name) for name in FULL)


def test_written_answers_wait_for_a_person(court):
    """A cell that a person grades is left as it is."""
    done = graded(submission(), court)
    manual = next(one for one in done.cells if one.id == "explain")
    assert manual.cell_type == "markdown"
    assert "explain" not in done.metadata["course"]["verdicts"]


# ── what tests need ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_test_gets_imports_of_the_instructor_and_names_of_answers():
    """Where names come from is read from the instructor's notebook."""
    needs = Plan(SOURCE).needs(submission(first="import os as math").cells)
    [double, total, uptime] = needs.values()
    assert (list(double.functions), list(double.preamble)) == (["double"], [])
    assert list(total.preamble) == [("math", "import math")]
    assert list(uptime.preamble) == [("check", "from course.check import passport as check")]


def test_a_test_with_a_foreign_name_is_refused(court):
    """A judge that a student could bring along is not asked: nobody gets marks until the test is mended."""
    made = notebook(ANSWERS)
    helper = cell("helper", "def near(a, b):\n    return a == b")
    made.cells.insert(2, helper)
    made.cells[4].source = "assert near(double(2), 4)"
    [double, *_] = Plan(made).needs(made.cells).values()
    assert "it names near" in double.refused
    assert Plan(SOURCE).needs([cell("t", "%time 1", grade=True, locked=True)])[0].refused.startswith("it is not plain")


def test_locked_cells_and_earlier_tests_lend_their_names():
    """What is locked runs on both sides; a test may name what an earlier one imported or defined."""
    cells = [
        cell("constants", "LIMIT = 7", locked=True),
        cell("one", "import json\n\ndef near(a, b):\n    return abs(a - b) < 1", grade=True, locked=True),
        cell("two", "assert near(double(LIMIT), json.loads('14'))", grade=True, locked=True),
    ]
    needs = Plan(SOURCE).needs(cells)[2]
    assert needs.refused == ""
    assert [name for name, _ in needs.preamble] == ["<locked cell 0>", "json", "near"]


def test_stubs_and_tests_are_those_of_the_course():
    """The tiny course's own tests name nothing foreign."""
    assert all(not needs.refused for needs in Plan(SOURCE).needs(notebook(STUBS).cells).values())
    assert set(TESTS) == set(ANSWERS)
