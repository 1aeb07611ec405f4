"""A course in a temporary folder with lures laid out, in which the zoo is graded and then looked at.

What counts as harm is decided from outside, after the last command has ended:

- a file of the course, of another student or of the grader's home was changed, or a new one lies there;
- a process is left that hostile code started, or that the grader did;
- somebody connected to a listener, or sent a datagram;
- a secret, or (on a page for students) a hidden test, or a script, stands in what grading wrote;
- something is left in the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from course.build.layout import Layout
from course.build.pipeline import build
from course.guest import cache_dir

from .specimen import LESSON, SEAL, Lesson, Lure, Specimen

ROOT = Path(__file__).resolve().parents[2]
PLAIN = """
for _name in ("pre_convert_hook", "exporter_class", "sanitize_preprocessors", "autograde_preprocessors"):
    c.Autograde.pop(_name, None)
"""
"""Lines for the configuration: nbgrader's own preprocessors in the place of ours."""
IMPATIENT = """
c.CachedExecute.timeout = 10
c.CachedExecute.interrupt_timeout = 3
c.CachedExecute.startup_timeout = 20
c.CachedExecute.check_timeout = 60
c.CachedExecute.notebook_timeout = 240
"""
"""Lines for the configuration: small budgets, for submissions that use them up."""
_BUDGET_S = 1800
_WATCHED = ("source", "release", "nbgrader_config.py", "autograder/secret.txt")


class Habitat:
    """One course with its submissions; a context manager.

    Args:
        configuration: lines at the end of nbgrader_config.py.
        built: the root of another habitat, whose built lesson is taken over.
        box: a command to run graders in, such as bubblewrap's.
    """

    def __init__(self, configuration: str = "", *, built: Path | None = None, box: Iterable[str] = ()) -> None:
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-", ignore_cleanup_errors=True))
        self.folder = Path(folder)
        self.folder.chmod(0o755)
        self.root, self.home, self.tmp = self.folder / "course", self.folder / "home", self.folder / "t"
        self.box = list(box)
        self._listeners = self._listen()
        self.lure = Lure(
            root=str(self.root),
            home=str(self.home),
            port=self._listeners["tcp"].getsockname()[1],
            socket=str(self.folder / "socket"),
            secret=f"secret-{os.urandom(8).hex()}",
            marker=f"marker-{os.urandom(8).hex()}",
        )
        self._abstract = self._listeners["abstract"]
        self._abstract.bind(f"\0{self.lure.marker}")
        self._abstract.listen()
        self._plant(configuration, built)
        self.lesson = Lesson(self._notebook("source"), self._notebook("release/en"), self.lure)
        self.said = ""
        self._before: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._listeners.values():
            one.close()
        self._stack.close()

    # ── before ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def hand_in(self, specimens: Iterable[Specimen]) -> None:
        """Hand in specimens, and the work of another student, whose marks must not change."""
        submitted = self.root / "autograder" / "work" / "submitted"
        for specimen in specimens:
            specimen.hand_in(self.lesson, submitted)
        victim = submitted / "ada" / LESSON
        if not victim.exists():
            self.submit(
                "ada", self.lesson.solved({"double": f"# {self.lure.secret}\ndef double(n):\n    return n + n"})
            )
        self._before = self._watched()

    def submit(self, student: str, notebook: Mapping[str, Any]) -> None:
        """Hand in a notebook."""
        folder = self.root / "autograder" / "work" / "submitted" / student / LESSON
        folder.mkdir(parents=True)
        (folder / f"{LESSON}.ipynb").write_text(json.dumps(notebook))

    def _listen(self) -> dict[str, socket.socket]:
        kinds = {
            "tcp": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "unix": socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
            "abstract": socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        }
        for _ in range(100):  # until one port is free for both
            with contextlib.suppress(OSError):
                kinds["tcp"].bind(("127.0.0.1", 0))
                kinds["udp"].bind(kinds["tcp"].getsockname())
                break
            kinds["tcp"].close()
            kinds["tcp"] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        kinds["unix"].bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        for name in ("tcp", "unix"):
            kinds[name].listen()
        for one in kinds.values():
            one.setblocking(False)
        return kinds

    def _plant(self, configuration: str, built: Path | None) -> None:
        for folder in (self.home / ".ssh", self.tmp, self.folder / "cache", self.root / "autograder"):
            folder.mkdir(parents=True)
        (self.home / ".ssh" / "id_rsa").write_text(self.lure.secret)
        (self.root / "autograder" / "secret.txt").write_text(self.lure.secret)
        text = (ROOT / "nbgrader_config.py").read_text()
        (self.root / "nbgrader_config.py").write_text(text + configuration)
        if built is not None:
            for kind in ("source", "release"):
                shutil.copytree(built / kind, self.root / kind)
            return
        for where in ("course/lessons", "tests/notebooks"):
            (self.root / where).mkdir(parents=True)
        shutil.copy(Path(__file__).parent / "lesson.md", self.root / "course" / "lessons" / f"{LESSON}.md")
        shutil.copy(ROOT / "tests" / "notebooks" / "sanitize.cfg", self.root / "tests" / "notebooks")
        if errors := build(Layout(self.root), [LESSON]).errors:
            raise RuntimeError(f"the zoo's lesson cannot be built: {errors}")
        for kind in ("source", "release/en"):  # nbgrader's partial credit, which `course build` does not allow
            path = self.root / kind / LESSON / f"{LESSON}.ipynb"
            path.write_text(path.read_text().replace("worth = 2 *", "2 *"))

    def _notebook(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / kind / LESSON / f"{LESSON}.ipynb").read_text())
        for cell in found["cells"]:
            cell["source"] = "".join(cell["source"])
        return found

    # ── grading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment at the course's root, as an instructor does.

        Raises:
            RuntimeError: it failed, and `check` is set.
        """
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "COURSE_CACHE": str(cache_dir()),  # made once; boxes may only read it
            "NBGRADER_EXCHANGE": str(self.folder / "exchange"),
            "ZOO_SECRET": self.lure.secret,
            "USER": "teacher",
        }
        for name in (
            "IPYTHONDIR",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "XDG_RUNTIME_DIR",
            "PYTEST_CURRENT_TEST",
        ):
            environment.pop(name, None)
        program = str(Path(sys.executable).parent / command[0])
        done = subprocess.run(
            [*self.box, program, *command[1:]],
            cwd=self.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=_BUDGET_S,
        )  # fmt: skip
        self.said = done.stdout + done.stderr
        (self.folder / f"{command[0]}-{command[1]}.log").write_text(self.said)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {self.said[-3000:]}")
        return done

    def release(self) -> None:
        """Enter the lesson into the gradebook, and plant a secret there."""
        self.run("nbgrader", "generate_assignment", LESSON, "--force")
        import sqlite3  # noqa: PLC0415

        base = sqlite3.connect(self.root / "autograder" / "gradebook.db")
        with contextlib.closing(base), base:
            base.execute("create table if not exists planted (word text)")
            base.execute("insert into planted values (?)", (self.lure.secret,))
        self._before = self._watched()

    def autograde(self, *arguments: str, check: bool = True) -> float:
        """Grade all with plain nbgrader; returns wall seconds."""
        start = time.perf_counter()
        self.run("nbgrader", "autograde", LESSON, *arguments, check=check)
        return time.perf_counter() - start

    def grade(self, jobs: int, *arguments: str, check: bool = True) -> float:
        """Grade all with ``course grade``; returns wall seconds."""
        start = time.perf_counter()
        self.run("course", "grade", LESSON, "-j", str(jobs), *arguments, check=check)
        return time.perf_counter() - start

    def feedback(self) -> None:
        """Make the pages that students get."""
        self.run("nbgrader", "generate_feedback", LESSON, "--force", check=False)

    def marks(self) -> dict[str, float]:
        """Marks by student, as ``nbgrader export`` writes them; without those that have none."""
        self.run("nbgrader", "export", "--to", "grades.csv")
        with (self.root / "grades.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["score"] and row["timestamp"] is not None]
        graded = {path.parent.parent.name for path in self._work("autograded").glob("*/*/*.ipynb")}
        return {row["student_id"]: float(row["score"]) for row in rows if row["student_id"] in graded}

    def _work(self, kind: str) -> Path:
        return self.root / "autograder" / "work" / kind

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────

    def harm(self) -> list[str]:
        """What was done to others, one sentence each; call it when all commands have ended."""
        return [*self._changed(), *self._left(), *self._contacts(), *self._told()]

    def _watched(self) -> dict[str, str]:
        """Digests of all that nobody may change, by path."""
        roots = [self.root / name for name in _WATCHED] + [self._work("submitted"), self.home]
        files = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
        # Links and pipes do not count: `repair.drop_links` takes them out of a submission before it is copied.
        files = [path for path in files if path.is_file() and not path.is_symlink()]
        return {str(path): _digest(path) for path in files if _kept(path.relative_to(self.folder))}

    def _changed(self) -> list[str]:
        now = self._watched()
        said = [f"{path} is gone" for path in self._before if path not in now]
        said += [f"{path} is new" for path in now if path not in self._before]
        said += [f"{path} was changed" for path, what in now.items() if self._before.get(path, what) != what]
        planted = [ROOT / "course" / "check" / "evil.py", Path("/etc/cron.d/zoo-evil"), Path("/root/zoo-evil.bashrc")]
        said += [f"{path} was made" for path in planted if path.exists()]
        return said + [f"{path} was left" for path in sorted(self.tmp.iterdir())]

    def _left(self) -> list[str]:
        end = time.monotonic() + 20
        while (left := self._processes()) and time.monotonic() < end:
            time.sleep(0.2)
        return [f"process {pid} is left: {what}" for pid, what in left.items()]

    def _processes(self) -> dict[int, str]:
        found = {}
        words = [self.lure.marker.encode(), str(self.folder).encode()]
        for path in Path("/proc").glob("[0-9]*"):
            if path.name == str(os.getpid()):
                continue
            with contextlib.suppress(OSError):
                text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                if any(word in text for word in words):
                    found[int(path.name)] = (
                        (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return found

    def _contacts(self) -> list[str]:
        said = []
        for name, one in self._listeners.items():
            with contextlib.suppress(BlockingIOError):
                if name == "udp":
                    said.append(f"a datagram came: {one.recv(100)!r}")
                else:
                    client, _ = one.accept()
                    with client:
                        said.append(f"somebody connected to the {name} listener")
        return said

    def _told(self) -> list[str]:
        """Secrets in what grading wrote, and hidden tests or scripts on students' pages."""
        said = []
        for kind in ("autograded", "feedback", "cache", "graded"):
            for path in sorted(self._work(kind).rglob("*")):
                if not path.is_file() or "ada" in path.parts:
                    continue
                data = path.read_bytes()
                text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")
                mine = kind == "cache" and f"# {self.lure.secret}" in text
                if self.lure.secret in text and not mine:
                    said.append(f"a secret stands in {path}")
                if kind == "feedback" and SEAL in text:
                    said.append(f"a hidden test stands in {path}")
                if kind == "feedback" and (found := _RUNS.search(text)):
                    said.append(f"a script stands in {path}: {text[max(0, found.start() - 80) : found.end() + 40]!r}")
                if "ESCAPED [" in text and "print('ESCAPED'" not in text[: text.index("ESCAPED [")][-200:]:
                    said.append(f"something escaped: {path}")
        return said


_RUNS = re.compile(
    r"<script[^>]*>(?:(?!</script>).)*zoo-script|<[a-z]+[^<>]*\son\w+\s*=[^<>]*zoo-script"
    r"|<[^<>]*javascript:[^<>]*zoo-script|<style>body",
    re.IGNORECASE | re.DOTALL,
)
"""What would run, or change the page, where a browser opens it."""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kept(path: Path) -> bool:
    """False for what the grader's own programs leave in a home: their caches, settings and histories."""
    ours = ("home/.cache", "home/.config", "home/.local", "home/.ipython", "home/.jupyter", "home/.nbgrader.log")
    name = str(path)
    if "startup" in name or "authorized" in name or name.endswith((".bashrc", ".profile", "jupyter_config.py")):
        return "README" not in name
    return not name.startswith(ours)
