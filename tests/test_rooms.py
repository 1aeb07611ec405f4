"""Who may import whom: the arrows of the design, read from the source without running it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "course"

COMMON = {"error", "capability"}
ALLOWED = {  # room -> the other rooms it may use; a room that is not named here may use all but those in FORBIDDEN
    "error": set(),
    "machine": COMMON,
    "isa": COMMON,
    "network": COMMON,
    "formats": COMMON,
    "vcpu": {*COMMON, "isa"},
    "kernel": {*COMMON, "isa"},
    "guest": {*COMMON, "isa", "machine"},
    "container": {*COMMON, "kernel", "machine", "guest"},
    "cluster": {*COMMON, "machine", "container", "network", "guest"},
}
FORBIDDEN = {  # room -> rooms it must not use
    "check": {"widgets", "build", "cli", "doctor", "lab"},
    "widgets": {"check", "build", "cli"},
    "capability": {"check", "build", "widgets", "cluster"},
}


def modules():
    """Yield every module of the package with its dotted name's parts below `course`."""
    for path in sorted(COURSE.rglob("*.py")):
        relative = path.relative_to(COURSE)
        if relative.parts[0] in ("lessons", "locale"):
            continue
        yield path, relative.with_suffix("").parts


def imported(tree, package):
    """Yield the absolute dotted name of all that a module imports, also inside functions.

    Args:
        tree: the module.
        package: the parts of the package that it is in, such as ("course", "machine").
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def rooms_used(path, parts):
    """Return the rooms of `course` that a module uses, its own left out."""
    package = ("course", *parts[:-1])
    used = set()
    for name in imported(ast.parse(path.read_text()), package):
        words = name.split(".")
        if words[0] == "course" and len(words) > 1 and exists(words[1]):
            used.add(words[1])
    return used - {parts[0]}


def exists(room):
    """Say whether a name below `course` is a room and not, say, a function of its __init__."""
    return (COURSE / room).is_dir() or (COURSE / f"{room}.py").is_file()


def test_the_arrows_are_kept():
    """No room uses one that the design does not let it use."""
    wrong = []
    for path, parts in modules():
        used = rooms_used(path, parts)
        limit = ALLOWED.get(parts[0])
        excess = used - limit if limit is not None else used & FORBIDDEN.get(parts[0], set())
        wrong += [f"{path.relative_to(ROOT)} must not use {room}" for room in sorted(excess)]
    assert wrong == []


def test_the_course_never_imports_the_autograder():
    """What students install knows nothing of hidden checks and answers."""
    wrong = [
        str(path.relative_to(ROOT))
        for path, parts in modules()
        for name in imported(ast.parse(path.read_text()), ("course", *parts[:-1]))
        if name.split(".")[0] in ("autograder", "tests")
    ]
    assert wrong == []


def test_imports_inside_the_package_are_relative():
    """`from ..machine import`, not `from course.machine import`: the package can be moved and read as one."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, _ in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "course")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "course" for alias in node.names))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from ..machine import Machine", ("course", "guest"), "course.machine"),
        ("from . import cli", ("course",), "course.cli"),
        ("def f():\n    import course.build", ("course",), "course.build"),
        ("from .qemu import find", ("course", "machine"), "course.machine.qemu"),
        ("from ... import error", ("course", "check", "memory"), "course.error"),
    ],
)
def test_the_reader_of_imports_sees(source, package, expected):
    """Relative, absolute and late imports are all seen; otherwise the tests above would prove nothing."""
    assert expected in set(imported(ast.parse(source), package))
