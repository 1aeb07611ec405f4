"""The set-up script, the list of system packages, the pinned versions and the Binder image, without Docker."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"


# binder/setup, in a world of its own: every program it may call is a note-taking stand-in


@pytest.fixture
def world(tmp_path):
    """A course folder with three packages, and a PATH with nothing but what the script needs."""
    return World(tmp_path)


NEEDED = [
    "sh",
    "cat",
    "sed",
    "tr",
    "sort",
    "grep",
    "cksum",
    "rm",
    "mkdir",
    "dirname",
    "ls",
    "env",
    "true",
    "chmod",
    "cp",
]
PYTHON = """
case $1 in
    -c | --help) exit 0 ;;
    --version) echo "Python 3.12.0" ;;
    *)
        echo "python $*" >> {log}
        mkdir -p .venv/bin
        cp "$0" .venv/bin/course
        [ -e .venv/bin/python ] || cp "$0" .venv/bin/python
        ;;
esac
"""


class World:
    """Stand-ins for dpkg-query, apt-get, sudo, id and python3."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "log"
        (folder / "binder").mkdir()
        (folder / "bin").mkdir()
        shutil.copy(BINDER / "setup", folder / "binder")
        self.write("binder/apt.txt", "# list\nalpha  # first\nold-beta|beta\n#: tests only\ngamma|-\n")
        self.write("binder/constraints.txt", "")
        self.write("pyproject.toml", "")
        for name in NEEDED:
            (folder / "bin" / name).symlink_to(shutil.which(name))
        self.installed(())
        self.uid(0)
        self.program("apt-cache", 'case $2 in beta|alpha) echo "  Candidate: 1";; *) echo "  Candidate: (none)";; esac')
        self.program("apt-get", f'echo "apt-get $*" >> {self.log}')
        self.program("sudo", f'echo "sudo $*" >> {self.log}; [ "$1" = -n ] && shift; exec "$@"')
        self.program("python3", PYTHON.format(log=self.log))

    def write(self, name, text):
        """Make a file of the course."""
        (self.folder / name).write_text(text)

    def program(self, name, script):
        """Make a program."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def installed(self, names):
        """Let dpkg know these packages."""
        cases = "|".join(names) or "none"
        self.program("dpkg-query", f"for last; do :; done; case $last in {cases}) echo installed;; *) exit 1;; esac")

    def uid(self, number):
        """Be this user."""
        self.program("id", f"echo {number}")

    def setup(self, *arguments, **environment):
        """Run the script without a terminal."""
        return subprocess.run(
            ["sh", "binder/setup", *arguments], cwd=self.folder, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, env={"PATH": str(self.folder / "bin"), **environment},
        )  # fmt: skip

    def done(self):
        """Return what was noted, and forget it."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


INSTALL = "apt-get install -qq -y --no-install-recommends"


def test_setup_installs_only_what_is_missing(world):
    """As root, apt-get is asked for the missing packages and nothing else."""
    world.installed(["alpha"])
    result = world.setup("system")
    assert result.returncode == 0, result.stderr
    assert world.done() == ["apt-get update -qq", f"{INSTALL} beta"]


def test_setup_takes_either_name(world):
    """A package that is installed under another release's name is not missing; nothing is asked of apt-get."""
    world.installed(["alpha", "old-beta"])
    assert (world.setup("system").returncode, world.done()) == (0, [])


def test_setup_for_tests_reads_the_last_section(world):
    """Packages for tests are looked for only with --tests, and `|-` goes on without."""
    world.installed(["alpha", "beta"])
    assert (world.setup("system").returncode, world.done()) == (0, [])
    assert (world.setup("system", "--tests").returncode, world.done()) == (0, ["apt-get update -qq"])


def test_setup_uses_sudo(world):
    """An ordinary user who may use sudo gets the packages through it."""
    world.uid(1000)
    assert world.setup("system").returncode == 0
    assert [line for line in world.done() if line.startswith("sudo -n apt-get update")]


def test_setup_without_any_rights_says_what_to_ask_for(world):
    """Neither root nor sudo: the exact command for an administrator, and the way to go on without."""
    world.uid(1000)
    world.program("sudo", "exit 1")
    result = world.setup("system")
    assert (result.returncode, world.done()) == (1, [])
    assert "apt-get install --no-install-recommends alpha old-beta" in result.stderr
    assert "COURSE_SYSTEM=skip make lab" in result.stderr


def test_setup_can_leave_the_system_alone(world):
    """COURSE_SYSTEM=skip goes on without packages."""
    world.uid(1000)
    assert (world.setup("system", COURSE_SYSTEM="skip").returncode, world.done()) == (0, [])


def test_setup_on_another_system_says_what_to_do(world):
    """Without dpkg the message names the list and the switch."""
    (world.folder / "bin" / "dpkg-query").unlink()
    result = world.setup("system")
    assert (result.returncode, "binder/apt.txt" in result.stderr) == (1, True)


def test_setup_reports_apt_that_fails(world):
    """When apt-get fails, set-up fails, and the next run tries again."""
    world.program("apt-get", f'echo "apt-get $*" >> {world.log}; [ "$1" = update ]')
    assert world.setup("system").returncode == 1
    world.done()
    assert world.setup("system").returncode == 1
    assert world.done() != []


def test_setup_makes_the_environment_once(world):
    """The second call does nothing; a change of the pinned versions does it again."""
    assert world.setup("python").returncode == 0
    assert [line.split()[:3] for line in world.done()] == [["python", "-m", "venv"], ["python", "-m", "pip"]]
    assert (world.setup("python").returncode, world.done()) == (0, [])
    world.write("binder/constraints.txt", "a==1")
    assert world.setup("python").returncode == 0
    assert [line.split()[:3] for line in world.done()] == [["python", "-m", "pip"]]


def test_setup_for_tests_is_enough_for_the_course(world):
    """After `make test`, `make lab` installs nothing."""
    world.setup("python", "--tests")
    assert any("--editable .[dev,asm]" in line for line in world.done())
    assert (world.setup("python").returncode, world.done()) == (0, [])


def test_setup_repairs_a_broken_environment(world):
    """When the environment's Python is gone (an upgrade of the system), it is made anew."""
    world.setup("python")
    world.done()
    for path in (world.folder / ".venv" / "bin").iterdir():
        path.unlink()
    assert world.setup("python").returncode == 0
    assert "venv" in world.done()[0]


def test_setup_with_an_old_python_says_which_is_needed(world):
    """Too old a Python: the version found, the one needed, the variable that names another."""
    world.program("python3", 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi')
    result = world.setup("python")
    assert result.returncode == 1
    for expected in ("Python 3.11 or later", "Python 3.9.2", "COURSE_PYTHON="):
        assert expected in result.stderr


def test_setup_installs_the_wheel_that_students_get(world):
    """Where there is no pyproject.toml, the wheel beside the lessons is installed."""
    (world.folder / "pyproject.toml").unlink()
    world.write("virtualization_course-1.0-py3-none-any.whl", "")
    assert world.setup("python").returncode == 0
    assert world.done()[-1].endswith("./virtualization_course-1.0-py3-none-any.whl")


def test_setup_refuses_what_it_does_not_know(world):
    """A typing error gets the usage, and nothing is done."""
    result = world.setup("everything")
    assert (result.returncode, world.done()) == (1, [])
    assert "usage: binder/setup" in result.stderr


# apt.txt and constraints.txt


def test_every_system_package_is_named_once_and_explained():
    """One package a line, each with a comment that says what it is for."""
    lines = (BINDER / "apt.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in packages if not re.fullmatch(r"[a-z0-9][a-z0-9+.|-]* +# \S.*", line)] == []
    names = [name for line in packages for name in line.split()[0].split("|")]
    assert len(names) == len(set(names)) + names.count("-") - (1 if "-" in names else 0)
    assert lines.count("#: tests only") == 1


def pinned():
    """Return name -> version."""
    lines = [line for line in (BINDER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_pinned_versions_satisfy_what_is_declared():
    """Every declared dependency is pinned, to a version that its declaration allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]
    versions = pinned()
    wrong = [
        str(requirement)
        for requirement in declared
        if requirement.name != project["name"]
        and versions.get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]
    assert wrong == []


@pytest.mark.parametrize("python", ["3.11.2", "3.12.3", "3.13.0"])
def test_pinned_versions_run_on_all_our_pythons(python):
    """No pinned package (that is installed here) refuses a Python of Debian 12, Ubuntu 24.04 or Debian 13."""
    refusing = [
        distribution.name
        for distribution in importlib.metadata.distributions()
        if pinned().get(canonicalize_name(distribution.name)) == Version(distribution.version)
        and Version(python) not in SpecifierSet(distribution.metadata["Requires-Python"] or "")
    ]
    assert refusing == []


# The Binder image


def instructions():
    """Return the Dockerfile's instructions in order."""
    text = re.sub(r"^#.*\n", "", (BINDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]


def test_repo2docker_takes_our_dockerfile():
    """Binder's own tool chooses the Dockerfile of binder/ and uses it as it is."""
    pytest.importorskip("repo2docker")
    from repo2docker.app import Repo2Docker

    app = Repo2Docker()
    with in_folder(ROOT):
        found = next(pack for pack in app.buildpacks if _detects(pack, app))
        pack = found(app.base_image) if _wants_base(found) else found()
        assert type(pack).__name__ == "DockerBuildPack"
        assert pack.render() == (BINDER / "Dockerfile").read_text()


def _wants_base(pack):
    import inspect

    return "base_image" in inspect.signature(pack.__init__).parameters


def _detects(pack, app):
    instance = pack(app.base_image) if _wants_base(pack) else pack()
    return instance.detect()


class in_folder:  # noqa: N801 - reads as a statement
    """Work in another folder for a while (contextlib.chdir, which a test runner may not share)."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        import os

        self.before = Path.cwd()
        os.chdir(self.path)

    def __exit__(self, *_):
        import os

        os.chdir(self.before)


def test_image_ends_as_an_ordinary_user():
    """The last user is not root, the hub may choose name and number, and nothing runs as root after the switch."""
    names = [name for name, _ in instructions()]
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == ["${NB_USER}"]
    assert {"NB_USER=jovyan", "NB_UID=1000"} <= {rest for name, rest in instructions() if name == "ARG"}
    after = instructions()[names.index("USER") :]
    assert not any("sudo" in rest or "apt-get" in rest for _, rest in after)


def test_image_reads_the_one_list_of_packages():
    """No package is named in the Dockerfile: binder/setup reads binder/apt.txt, without the section for tests."""
    text = (BINDER / "Dockerfile").read_text()
    assert "binder/setup system" in text
    assert "--tests" not in text
    assert "apt-get install" not in text


def test_image_stands_on_a_named_release():
    """The base is a release, not whatever is the latest."""
    assert instructions()[0] == ("FROM", "debian:12")


def test_image_holds_no_secret():
    """No instruction sets anything like a password, and no file outside of the commit is copied in."""
    assert re.findall(r"(?i)password|secret|token|api_key", "\n".join(" ".join(i) for i in instructions())) == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "autograder/gradebook.db*", "autograder/work"} <= set(ignored)


def test_rehearsal_knows_every_instruction():
    """`binder/rehearse` can carry out all that the Dockerfile says."""
    text = (BINDER / "rehearse").read_text()
    assert [name for name, _ in instructions() if f'"{name}": ' not in text] == []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", ["binder/setup", ".ci/run"])
def test_scripts_pass_shellcheck(script):
    """The shell scripts have none of the usual mistakes."""
    done = subprocess.run(["shellcheck", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_rehearsal_needs_root_or_says_so():
    """Without root or debootstrap the rehearsal says what it needs and does nothing."""
    done = subprocess.run(
        [sys.executable, BINDER / "rehearse"], env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "needs root and debootstrap" in done.stderr) == (1, True)
