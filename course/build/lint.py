"""House rules of lessons: what a learner relies on in every notebook.

``python -m course.build.lint`` checks all texts. Each rule is a function from a lesson to the places where it does not
hold; `RULES` lists them. A rule is about form that a program can see; whether a lesson is good is for people.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..error import BuildError
from .expand import Heading, headings, kind_of, load
from .figures import images
from .layout import Layout
from .markers import Region, regions
from .names import Names, Origins, bare_truths
from .text import Cell, Lesson

OPENING = ("You will be able to", "You need", "Time", "Runs on")
CLOSING = ("In this notebook you have", "Words", "Sources")
MAX_CODE_RUN = 3
MAX_CELLS_WITHOUT_HEADING = 8
MEDIAN_CODE_LINES, MAX_CODE_LINES = 5, 25
MIN_ALT_WORDS = 4
HINTS = 3

_ABSOLUTE_PATH = re.compile(r"""["'](/(?:home|root|Users|tmp|work|mnt|srv|opt)/[^"']*)["']""")
_HINT = re.compile(r"<details\b.*?</details>", re.DOTALL)
_PREDICTION = re.compile(r"\bpredict", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Complaint:
    """A place where a house rule does not hold.

    Attributes:
        path: the lesson's text.
        line: 1-based line.
        cell: the cell's id.
        rule: the rule's name.
        remedy: what is wrong and what to do.
    """

    path: Path
    line: int
    cell: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: cell {self.cell}: {self.rule}: {self.remedy}"


Found = Iterator[tuple[Cell, str]]
Rule = Callable[[Lesson], Found]


def lint(lesson: Lesson) -> list[Complaint]:
    """Check one expanded lesson against all rules."""
    return [
        Complaint(lesson.path, cell.line, cell.id, rule.__name__.replace("_", "-"), remedy)
        for rule in RULES
        for cell, remedy in rule(lesson)
    ]


def one_title(lesson: Lesson) -> Found:
    """The first cell begins with the only H1."""
    titles = [(cell, heading) for cell, heading in _headings(lesson) if heading.level == 1]
    first = lesson.cells[0]
    if not titles or titles[0][0] is not first or titles[0][1].at != 0:
        yield first, "begin the lesson with its title, `# …`"
    for cell, heading in titles[1:]:
        yield cell, f"a lesson has one H1; make {heading.text!r} a section, `## …`"


def heading_order(lesson: Lesson) -> Found:
    """No heading is more than one level below the one before."""
    level = 1
    for cell, heading in _headings(lesson):
        if heading.level > level + 1:
            yield cell, f"{heading.text!r} jumps from level {level} to {heading.level}; use {'#' * (level + 1)}"
        level = heading.level


def opening_block(lesson: Lesson) -> Found:
    """The first cell says what, what for, how long and where."""
    first = lesson.cells[0]
    for words in OPENING:
        if words.lower() not in first.source.lower():
            yield first, f"the opening has no *{words}*"


def closing_block(lesson: Lesson) -> Found:
    """The last sections sum up, give the words in both languages, and the sources."""
    titles = [heading.text.lower() for _, heading in _headings(lesson)]
    for words in CLOSING:
        if words.lower() not in titles:
            yield lesson.cells[-1], f"the end has no section `## {words}`"


def alternative_text(lesson: Lesson) -> Found:
    """Every image says in words what is to be seen."""
    for cell in lesson.cells:
        for path, text, _ in images(cell):
            if len(text.split()) < MIN_ALT_WORDS or Path(path).name in text:
                yield cell, f"image {path}: say in the alternative text what is to be seen, not {text!r}"


def code_runs(lesson: Lesson) -> Found:
    """A learner is not left alone with code."""
    run = 0
    for cell in lesson.cells:
        run = run + 1 if cell.kind == "code" else 0
        if run == MAX_CODE_RUN + 1:
            yield cell, f"more than {MAX_CODE_RUN} code cells in a row; say in between what was to be seen"


def headings_often(lesson: Lesson) -> Found:
    """A section has a length that can be overlooked."""
    since = 0
    for cell in lesson.cells:
        since = 0 if cell.kind == "markdown" and headings(cell.source) else since + 1
        if since == MAX_CELLS_WITHOUT_HEADING:
            yield cell, f"{MAX_CELLS_WITHOUT_HEADING} cells without a heading; give this part one"


def short_code(lesson: Lesson) -> Found:
    """Code that is read, not skipped; answers and checks have their own measure."""
    shown = [cell for cell in lesson.cells if cell.kind == "code" and not cell.grade]
    lengths = [_code_lines(cell) for cell in shown]
    for cell, length in zip(shown, lengths, strict=True):
        if length > MAX_CODE_LINES:
            yield cell, f"{length} lines of code, at most {MAX_CODE_LINES}: move what is not the point into course/"
    if lengths and statistics.median(lengths) > MEDIAN_CODE_LINES:
        longest = shown[lengths.index(max(lengths))]
        median = statistics.median(lengths)
        yield longest, f"the lesson's code cells have {median:g} lines (median), at most {MEDIAN_CODE_LINES}"


def no_star_import(lesson: Lesson) -> Found:
    """Names come from somewhere that can be seen."""
    for cell, tree in _parsed(lesson):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield cell, f"`from {node.module} import *`: name what is used"


def no_installation(lesson: Lesson) -> Found:
    """A notebook installs nothing."""
    for cell in lesson.cells:
        if cell.kind == "code" and re.search(r"^\s*[!%]\s*(pip|conda|apt|sudo)\b", cell.source, re.MULTILINE):
            yield cell, "a notebook installs nothing; dependencies are in pyproject.toml and binder/apt.txt"


def no_bare_sleep(lesson: Lesson) -> Found:
    """Wait for what has to happen, not for a while; between two looks, where nothing tells of events, one may sleep."""
    for cell, tree in _parsed(lesson):
        looks = [node for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)]
        for node in ast.walk(tree):
            if node in looks:
                continue
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sleep", "time.sleep"):
                yield cell, "wait for an event (vm.wait_event, console.expect) instead of sleeping"


def no_absolute_path(lesson: Lesson) -> Found:
    """A notebook runs in any folder of anybody's machine."""
    for cell in lesson.cells:
        if cell.kind == "code" and (match := _ABSOLUTE_PATH.search(cell.source)):
            yield cell, f"absolute path {match[1]}; use a temporary folder or a path relative to the notebook"


def typed_stubs(lesson: Lesson) -> Found:
    """A stub says in types and words what is wanted."""
    for cell in lesson.cells:
        if kind_of(cell) != "answer":
            continue
        for node in _tree(cell).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _untyped(cell, node)


def tested_answers(lesson: Lesson) -> Found:
    """What is answered is checked before the next answer is asked for."""
    waiting: list[Cell] = []
    for cell in lesson.cells:
        kind = kind_of(cell)
        if kind == "answer":
            waiting.append(cell)
        elif kind == "test":
            waiting.clear()
        elif cell.kind == "markdown" and headings(cell.source):
            yield from ((one, "no test cell follows in its section (`:ng: test …`)") for one in waiting)
            waiting.clear()
    yield from ((one, "no test cell follows it (`:ng: test …`)") for one in waiting)


def hidden_tests(lesson: Lesson) -> Found:
    """Visible checks help, hidden ones measure."""
    for cell in lesson.cells:
        if kind_of(cell) == "test":
            if not any(block.region is Region.HIDDEN_TESTS for block in regions(cell.source)):
                yield cell, "no hidden check between ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS"
            if not ast.get_docstring(_tree(cell)):
                yield cell, "begin the test with a docstring that says what must hold"


def trusted_judges(lesson: Lesson) -> Found:
    """What judges an answer comes from its test, never from what a student may change."""
    code = [cell for cell in lesson.cells if cell.kind == "code"]
    answers = [cell.source for cell in code if kind_of(cell) in ("answer", "manual")]
    origins = Origins.of(answers, [cell.source for cell in code if not cell.grade])
    bound: set[str] = set()
    for cell in code:
        if kind_of(cell) not in ("test", "locked"):
            continue
        names = Names.of(cell.source)
        if foreign := origins.foreign(names, bound):
            yield cell, f"{', '.join(foreign)}: define it in the test, import it, or ask for it as an answer"
        for assertion in bare_truths(cell.source, origins.answers):
            yield cell, f"`{assertion}` holds for nearly anything that is returned; compare it with what is expected"
        bound |= names.bound


def three_hints(lesson: Lesson) -> Found:
    """A learner who is stuck gets three steps, and never the solution."""
    hints: list[str] = []
    for cell in lesson.cells:
        if cell.kind == "markdown":
            hints = ([] if headings(cell.source) else hints) + _HINT.findall(cell.source)
        elif kind_of(cell) == "answer":
            if len(hints) != HINTS:
                yield (
                    cell,
                    f"{len(hints)} hints in <details> before it, not {HINTS}: a question, the idea, nearly the code",
                )
            solution = "".join(_squeezed(line) for block in regions(cell.source) for line in block.lines)
            if solution and any(solution in _squeezed(hint) for hint in hints):
                yield cell, "a hint holds the whole solution"
            hints = []


def no_locked_prose(lesson: Lesson) -> Found:
    """What nbgrader locks comes back in English in a French student's feedback."""
    for cell in lesson.cells:
        if cell.kind == "markdown" and cell.grade.get("locked") and kind_of(cell) != "task":
            yield cell, "nbgrader-locked prose; leave out `ng`"


def predictions(lesson: Lesson) -> Found:
    """A learner predicts before an experiment runs."""
    if not any(cell.kind == "code" and _PREDICTION.search(cell.source) for cell in lesson.cells):
        yield lesson.cells[0], "no prediction: add a cell such as `predicted_seconds = 1.0` before an experiment"


RULES: tuple[Rule, ...] = (
    one_title,
    heading_order,
    opening_block,
    closing_block,
    alternative_text,
    code_runs,
    headings_often,
    short_code,
    no_star_import,
    no_installation,
    no_bare_sleep,
    no_absolute_path,
    typed_stubs,
    tested_answers,
    hidden_tests,
    trusted_judges,
    three_hints,
    no_locked_prose,
    predictions,
)


def _headings(lesson: Lesson) -> Iterator[tuple[Cell, Heading]]:
    for cell in lesson.cells:
        if cell.kind == "markdown":
            yield from ((cell, heading) for heading in headings(cell.source))


def _untyped(cell: Cell, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Found:
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    untyped = [argument.arg for argument in arguments if argument.annotation is None and argument.arg != "self"]
    if untyped or node.returns is None:
        yield cell, f"give {node.name} type hints ({', '.join(untyped) or 'what it returns'})"
    if not ast.get_docstring(node):
        yield cell, f"give {node.name} a docstring that says what it has to do"


def _code_lines(cell: Cell) -> int:
    lines = (line.strip() for line in cell.source.splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


def _parsed(lesson: Lesson) -> Iterator[tuple[Cell, ast.Module]]:
    yield from ((cell, _tree(cell)) for cell in lesson.cells if cell.kind == "code")


def _tree(cell: Cell) -> ast.Module:
    """The cell's code without IPython's own lines; empty when it is not Python, which running it will tell."""
    code = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.MULTILINE)
    try:
        tree = compile(code, cell.id, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return ast.Module([], [])
    assert isinstance(tree, ast.Module)
    return tree


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def main(arguments: Sequence[str] = ()) -> int:
    """Check the lessons named, or all; returns the number of complaints."""
    layout = Layout.find()
    complaints: list[Complaint | BuildError] = []
    for lesson in layout.select(arguments):
        try:
            complaints += lint(load(layout.text(lesson)))
        except BuildError as error:
            complaints.append(error)
    for complaint in complaints:
        sys.stdout.write(f"{complaint}\n")
    return len(complaints)


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
