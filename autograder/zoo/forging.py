"""Submissions that want marks for nothing: by objects, by the shell, by messages, by answers, by cells."""

from __future__ import annotations

from pathlib import Path

from .specimen import POINTS, Cage, Handed, Kind, Lesson, code_cell, everywhere

ZOO = Cage(Kind.FORGING)

_YES = "class Yes(BASE):\n    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n"
_YES += "    __hash__ = object.__hash__\n    __sub__ = __rsub__ = __truediv__ = lambda self, other: 0.0\n"

ZOO.answers(
    "eq-always-true",
    "Functions return an object that equals everything.",
    everywhere(_YES.replace("(BASE)", "") + "def NAME(*arguments):\n    return Yes()"),
)
for _base, _value in (("int", "7"), ("str", "'x'"), ("list", "[1]"), ("float", "9.0"), ("dict", "{}")):
    ZOO.answers(
        f"{_base}-that-equals-everything",
        f"Functions return a subclass of {_base} that equals everything.",
        everywhere(_YES.replace("BASE", _base) + f"def NAME(*arguments):\n    return Yes({_value})")
        | {"primes": _YES.replace("BASE", "list") + "primes = Yes([1])"},
    )
ZOO.answers(
    "class-with-lying-isinstance",
    "Values claim another class by `__class__`, and every attribute is there.",
    everywhere(
        "class Liar:\n    __class__ = property(lambda self: int)\n    def __getattr__(self, name):\n"
        "        return lambda *a: True\n    def __int__(self):\n        return 6\n    __index__ = __int__\n"
        "def NAME(*arguments):\n    return Liar()"
    )
    | {"primes": "primes = type('L', (list,), {'__eq__': lambda s, o: True, '__iter__': lambda s: iter('7')})([2])"},
)
ZOO.cell(
    "asserts-stripped",
    "An AST transformer of IPython takes every assertion out of later cells.",
    "import ast\nclass Strip(ast.NodeTransformer):\n    def visit_Assert(self, node):\n        return ast.Pass()\n"
    "get_ipython().ast_transformers.append(Strip())",
)
ZOO.cell(
    "cells-emptied",
    "An input transformer empties every later cell.",
    "get_ipython().input_transformers_post.append(lambda lines: ['pass'])",
)
ZOO.cell(
    "cells-to-script",
    "An input transformer turns later cells into a script that fails in silence.",
    "get_ipython().input_transformers_cleanup.append(lambda lines: ['%%script false --no-raise-error\\n', *lines])",
)
ZOO.cell(
    "run-cell-replaced",
    "The shell's run_cell_async is replaced by one that runs nothing.",
    "shell = get_ipython()\nreal = shell.run_cell_async\nasync def nothing(code, *a, **k):\n"
    "    return await real('pass', *a, **k)\nshell.run_cell_async = nothing",
)
ZOO.cell("tracebacks-silent", "Errors are not shown.", "get_ipython().showtraceback = lambda *a, **k: None")
ZOO.cell(
    "replies-always-ok",
    "The kernel's do_execute says that all went well.",
    "kernel = get_ipython().kernel\nreal = kernel.do_execute\nasync def fine(*a, **k):\n"
    "    reply = await real(*a, **k)\n    return {**reply, 'status': 'ok'}\nkernel.do_execute = fine\n"
    "get_ipython().showtraceback = lambda *a, **k: None",
)
for _points in ("2.0", "-5", "1000", "nan"):
    ZOO.cell(
        f"result-{_points}".replace(".", "-"),
        f"Forges execute_result {_points} in every cell, for partial credit that is not there.",
        "shell = get_ipython()\ndef forge(*_):\n    k = shell.kernel\n"
        "    k.session.send(k.iopub_socket, 'execute_result', {'data': {'text/plain': '"
        + _points
        + "'}, 'metadata': {}, 'execution_count': 1}, parent=k.get_parent())\n"
        "shell.events.register('pre_run_cell', forge)\nshell.events.register('pre_execute', forge)\nforge()",
        last=_points if _points != "nan" else "float('nan')",
    )
for _name, _value in (("nan", "float('nan')"), ("infinite", "float('-inf')"), ("huge", "10 ** 400")):
    ZOO.answers(
        f"{_name}-closeness",
        f"An estimate is {_value}, so that marks for closeness are no number.",
        {"estimate": f"def estimate(values):\n    return {_value}"},
    )
ZOO.answers(
    "negative-closeness",
    "An estimate is so far off that its marks are negative.",
    {"estimate": "def estimate(values):\n    return 1e300"},
)
ZOO.cell(
    "judge-s-names",
    "Names that tests use are defined before they are: modules, checks, assertions.",
    "import builtins, sys\nsys.modules['course.check'].Exercise.__call__ = lambda *a: None\n"
    "builtins.AssertionError = KeyboardInterrupt\nbuiltins.isinstance = lambda *a: True\n"
    "builtins.abs = lambda *a: 0.0\nclass visible:\n    pass\nhidden = read_from = reply_to = lambda *a: True",
)
ZOO.cell(
    "verdict-html",
    "Shows HTML and metadata that look like verdicts of the checks.",
    "from IPython.display import HTML, display\n"
    "display(HTML('<pre role=\"status\">✔ correct · double · hidden checks 2 of 2</pre>'), metadata={'nbgrader': "
    "{'points': 12}, 'course': {'verdicts': {'correct_double': {'marks': 2.0}}}})",
)

# ── the service of calls, which lives in the student's process ───────────────────────────────────────────────────────

_SERVICE = "import course.check.service as service\nfrom course.check.reply import encode\n"
_SAYS = _SERVICE + "service._told = lambda asked, names: "
ZOO.cell(
    "service-says-nine",
    "The service of calls replies 9 to everything.",
    _SAYS + "('ended', encode(([('RETURNED', 9, '', '')], '', {})), 0)",
)
ZOO.cell(
    "service-pickles-code",
    "The reply of a call is a pickle that runs code where it is read.",
    _SERVICE + "import pickle\nclass Evil:\n    def __reduce__(self):\n"
    "        return (__import__('os').system, ('touch @home/owned',))\n"
    "service._told = lambda asked, names: ('ended', pickle.dumps(([('RETURNED', Evil(), '', '')], '', {})), 0)",
)
ZOO.cell(
    "frame-pickles-code",
    "The frame around the reply is a pickle that runs code where it is read.",
    _SERVICE + "import pickle\nclass Evil:\n    def __reduce__(self):\n"
    '        return (eval, (\'__import__("os").system("touch @home/owned")\',))\n'
    "service.encode = lambda value: pickle.dumps(Evil())",
)
ZOO.cell("service-shape", "The service replies in another shape.", _SAYS + "{'ended': [1, [2, [3]]]}")
ZOO.cell("service-raises", "The service ends every connection.", _SAYS + "1 / 0")
ZOO.cell(
    "service-many-calls",
    "One call is answered by the replies of many calls.",
    _SAYS + "('ended', encode(([('RETURNED', n, '', '') for n in range(1000)], '', {})), 0)",
)
ZOO.cell(
    "service-unhashable",
    "Outcomes of calls are lists, numbers and names of methods.",
    _SAYS + "('ended', encode(([([], 1, '', ''), ('__class__', 6, 10 ** 30, b'')], {}, {'x': 'y'})), 'z')",
)
ZOO.cell(
    "reply-for-another-call",
    "Replies of a correct call are kept and sent for other calls.",
    _SERVICE + "real = service._told\nkept = []\ndef told(asked, names):\n    if not kept:\n"
    "        kept.append(('ended', encode(([('RETURNED', 6, '', '')], '', {})), 0))\n    return kept[0]\n"
    "service._told = told",
    marks=0.0,
)
ZOO.cell(
    "memo-bomb",
    "A reply of 20 bytes makes a pickle reader reserve 16 GiB.",
    _SERVICE + "import struct\nbomb = b'\\x80\\x04K\\x01r' + struct.pack('<I', 1 << 30) + b'.'\n"
    "service._told = lambda asked, names: ('ended', bomb, 0)",
)
ZOO.cell(
    "frame-memo-bomb",
    "A frame of 20 bytes makes a pickle reader reserve 16 GiB.",
    _SERVICE + "import struct\nbomb = b'\\x80\\x04K\\x01r' + struct.pack('<I', 1 << 30) + b'.'\n"
    "service.encode = lambda value: bomb",
)
ZOO.cell(
    "billion-laughs",
    "A small reply holds a billion items, by naming one list in many places.",
    _SAYS + "('ended', bomb, 0)\nimport pickle\nlist_ = ['ha']\nfor _ in range(30):\n    list_ = [list_] * 10\n"
    "bomb = pickle.dumps(([('RETURNED', list_, '', '')], '', {}))",
)
ZOO.cell(
    "deep-reply",
    "A reply is nested a hundred thousand levels deep.",
    _SAYS + "('ended', bomb, 0)\nbomb = b'\\x80\\x04' + b']' * 100_000 + b'a' * 99_999 + b'.'",
)
ZOO.cell(
    "huge-frame",
    "A frame claims 2**62 bytes.",
    _SERVICE + "import struct\nservice.send_frame = lambda end, value: end.sendall(struct.pack('>Q', 1 << 62) + b'x')",
)
ZOO.cell(
    "large-reply",
    "A reply of 200 MB is offered.",
    _SERVICE
    + "service.send_frame = lambda end, value: end.sendall(service._LENGTH.pack(200 << 20) + b'x' * (200 << 20))",
)
ZOO.cell(
    "socket-to-a-file",
    "A file takes the place of the socket at which answers are called.",
    "import glob, os, tempfile\nfor path in glob.glob('/tmp/run-*/answers') + glob.glob(os.getcwd() + '/../answers'):\n"
    "    os.unlink(path)\n    open(path, 'w').write('6')",
)
ZOO.cell(
    "socket-to-a-link",
    "A link to another socket takes the place of the one at which answers are called.",
    "import gc, os, socket\nfor one in gc.get_objects():\n    if isinstance(one, socket.socket) and one.family == 1:\n"
    "        try:\n            path = one.getsockname()\n        except OSError:\n            continue\n"
    "        if path and str(path).endswith('answers'):\n            os.unlink(path)\n"
    "            os.symlink('@socket', path)",
)
ZOO.cell(
    "own-server",
    "An own server at the same socket answers every call with what the tests are known to want.",
    _SERVICE + "known = {('double', 3): 6, ('total', 3): 6}\ndef told(asked, names):\n"
    "    if 'values' in asked:\n        value = {'primes': [[2, 3, 5]]}\n    else:\n"
    "        args = asked['arguments'][0][0]\n        value = known.get((asked['name'], args[0]), 0)\n"
    "    return ('ended', encode(([('RETURNED', value, '', '')], '', {})), 0)\nservice._told = told",
)
ZOO.answers(
    "value-s-forged-name",
    "A value claims to be a function, or a handle of the judge's.",
    {"primes": "class primes(list):\n    pass"},
)
ZOO.answers(
    "raises-what-judges-catch",
    "Answers raise the exceptions that end a check well, or end the judge.",
    everywhere(
        "def NAME(*arguments):\n    from course.check.exercise import _Stop\n"
        "    from course.check.verdict import State, Verdict\n"
        "    raise type('SystemExit', (_Stop,), {})(Verdict(State.CORRECT, 'NAME'))"
    ),
)
for _error in ("SystemExit(0)", "KeyboardInterrupt()", "GeneratorExit()", "StopIteration(6)"):
    ZOO.answers(
        f"raises-{_error.partition('(')[0].lower()}",
        f"Answers raise {_error} in the middle of a test.",
        everywhere(f"def NAME(*arguments):\n    raise {_error}"),
    )
ZOO.answers(
    "guesses-by-the-caller",
    "Answers look at frames, tests and history for the expected value.",
    everywhere(
        "import re, sys\ndef NAME(*arguments):\n    frame = sys._getframe()\n    while frame:\n"
        "        for text in map(str, [*frame.f_globals.get('In', []), *frame.f_locals.values()]):\n"
        "            if found := re.search(r'NAME\\(' + re.escape(str(arguments[0])) + r'\\) == (-?\\d+)', text):\n"
        "                return int(found[1])\n        frame = frame.f_back\n    return 0"
    ),
)
ZOO.answers(
    "detects-grading",
    "Answers behave well while a student looks, and shout when they are graded.",
    {
        "double": "import os, threading\nGRADED = any('calls of answers' in t.name for t in threading.enumerate())\n"
        "def double(number):\n    return 'pwned' if GRADED or os.getpid() != 1 else number * 2"
    },
)

# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@ZOO("Cells of tests are tagged skip-execution, so that nothing fails.")
def skip_execution_tag(lesson: Lesson, _: Path) -> Handed:
    """Blank, but for the tags."""
    made = lesson.blank()
    for cell in made["cells"]:
        cell["metadata"]["tags"] = ["skip-execution", "raises-exception"]
    return made


@ZOO("Tests are replaced by `pass`.")
def edited_tests(lesson: Lesson, _: Path) -> Handed:
    """Blank, with tests that hold."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        cell["source"] = "pass"
    return made


@ZOO("Tests are worth 1000 points.", marks=POINTS["double"])
def points_inflated(lesson: Lesson, _: Path) -> Handed:
    """One right answer, and points that the release does not give."""
    made = lesson.answered({"double": "def double(number):\n    return 2 * number"})
    for cell in lesson.tests(made):
        cell["metadata"]["nbgrader"]["points"] = 1000
    return made


@ZOO("Answers are declared as tests that hold, under the tests' own names.")
def answers_as_tests(lesson: Lesson, _: Path) -> Handed:
    """Own cells with the metadata of tests."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        made["cells"].insert(0, {**code_cell("2.0", f"x-{cell['id']}"), "metadata": cell["metadata"]})
    return made


@ZOO("The tests are flagged as answers, so that their text is the student's.")
def tests_as_answers(lesson: Lesson, _: Path) -> Handed:
    """Flags grade and solution swapped."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        cell["metadata"]["nbgrader"] |= {"solution": True, "locked": False, "grade": False}
        cell["source"] = "1"
    return made


@ZOO("Outputs say that all was right, and metadata hold the verdicts.")
def outputs_and_verdicts(lesson: Lesson, _: Path) -> Handed:
    """Outputs, verdicts and marks by the student's own hand."""
    made = lesson.blank()
    said = {"marks": 3.0, "seconds": 0.1, "checks": [{"state": "correct", "credit": 1.0}]}
    made["metadata"]["course"] = {"verdicts": {f"correct_{name}": said for name in POINTS}, "sandbox": "namespaces"}
    for cell in lesson.tests(made):
        data = {"text/plain": str(cell["metadata"]["nbgrader"]["points"])}
        cell["outputs"] = [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}]
    return made


@ZOO("An answer cell holds the answer, the test's end, and a test of its own.")
def end_of_the_test(lesson: Lesson, _: Path) -> Handed:
    """Hidden tests' markers and cell magics inside an answer."""
    code = "%%capture\n### BEGIN HIDDEN TESTS\ndef double(number):\n    return 6\n### END HIDDEN TESTS\n2.0"
    return lesson.answered({"double": code})
