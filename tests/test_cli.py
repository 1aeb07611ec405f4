"""The command line: results on the screen, errors without a traceback, status 2."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course import capability, doctor, lab
from course.capability import Observation, Report, State
from course.cli import app
from course.error import CapabilityError, GuestError, UsageError

RUN = CliRunner()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with lessons, which is the working directory."""
    (tmp_path / "release" / "en" / "00-passport").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """Instead of becoming JupyterLab, note the command and the environment."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda program, command, environment: calls.append((command, environment)))
    return calls


@pytest.fixture
def a_report(monkeypatch):
    """Let the probe answer at once."""
    report = Report.from_observations([Observation("python", "T0", State.YES, "a [snake]")])
    monkeypatch.setattr(capability, "probe", lambda force=False: report)
    return report


def test_probe_prints_json_for_programs(a_report):
    """`course probe --json` prints what `Report.as_dict` gives."""
    assert json.loads(RUN.invoke(app, ["probe", "--json"]).stdout) == a_report.as_dict()


def test_probe_prints_a_table_for_people(a_report):
    """The table names all tiers."""
    result = RUN.invoke(app, ["probe"], env={"COLUMNS": "160"})
    assert [name for name in ("T0", "T1", "T2", "T3", "T4", "T5") if name not in result.stdout] == []


@pytest.mark.parametrize(
    "error",
    [UsageError("port 99999 is [no] port"), CapabilityError("QEMU", "it is not in the PATH", "Install it.")],
)
def test_our_errors_have_no_traceback(monkeypatch, error):
    """An error of the tree is printed in its own words, brackets included, with exit status 2."""

    def fail(**_):
        raise error

    monkeypatch.setattr(capability, "probe", fail)
    result = RUN.invoke(app, ["probe"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(error) in result.stderr
    assert "Traceback" not in result.stderr


def test_lab_opens_the_lessons(root, started):
    """JupyterLab starts in the course's folder, on the lessons, with this Python and the course's settings."""
    result = RUN.invoke(app, ["lab", "--no-guests", "--no-browser"])
    assert result.exit_code == 0, result.output
    ((command, environment),) = started
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={root}" in command
    assert "--no-browser" in command
    assert ("--allow-root" in command) == (os.geteuid() == 0)
    assert (Path(environment["JUPYTER_CONFIG_PATH"]) / "labconfig" / "default_setting_overrides.json").is_file()


def test_lab_takes_the_next_port(root, started):
    """A port that somebody else uses is named, and the next one taken."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        result = RUN.invoke(app, ["lab", "--no-guests", "--port", str(taken)])
    (command, _), *_ = started
    chosen = next(int(word.partition("=")[2]) for word in command if word.startswith("--port="))
    assert chosen > taken
    assert f"Port {taken} is taken: using {chosen}" in result.stderr


def test_lab_hands_options_on(root, started):
    """What stands after -- reaches JupyterLab unchanged, last."""
    RUN.invoke(app, ["lab", "--no-guests", "--", "--ip=0.0.0.0", "--debug"])
    assert started[0][0][-2:] == ["--ip=0.0.0.0", "--debug"]


def test_lab_opens_without_guests(root, started, monkeypatch):
    """Images that cannot be made are a warning: most of a lesson can be read and done without them."""
    guest = pytest.importorskip("course.guest")

    def fail(progress=None):
        raise GuestError("no space left: 3 MiB free, 600 needed")

    monkeypatch.setattr(guest, "build", fail, raising=False)
    result = RUN.invoke(app, ["lab"])
    assert (result.exit_code, len(started)) == (0, 1)
    assert "3 MiB free" in result.stderr


def test_guest_build_fails_with_status_2(monkeypatch):
    """The command that only makes images fails when they cannot be made."""
    guest = pytest.importorskip("course.guest")

    def fail(progress=None):
        progress("kernel")
        raise GuestError("no space left: 3 MiB free, 600 needed")

    monkeypatch.setattr(guest, "build", fail, raising=False)
    result = RUN.invoke(app, ["guest", "build"])
    assert (result.exit_code, "3 MiB free" in result.stderr) == (2, True)


def test_doctor_is_content_or_not(monkeypatch):
    """Exit status 1 says that something needed is missing; what is only nice to have does not count."""
    symptoms = [doctor.Symptom("QEMU", State.YES, "there"), doctor.Symptom("KVM", State.NO, "absent", "Do it.")]
    monkeypatch.setattr(doctor, "examine", lambda: symptoms)
    assert RUN.invoke(app, ["doctor"]).exit_code == 0
    symptoms.append(doctor.Symptom("disk", State.NO, "full", "Free 600 MiB.", serious=True))
    result = RUN.invoke(app, ["doctor"], env={"COLUMNS": "160"})
    assert (result.exit_code, "Free 600 MiB" in result.stdout) == (1, True)


def test_doctor_examines_this_machine(tmp_path, monkeypatch):
    """Each thing is looked at once, and what is missing comes with a remedy."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "not" / "yet" / "there"))
    symptoms = doctor.examine()
    subjects = [symptom.subject for symptom in symptoms]
    assert len(subjects) == len(set(subjects))
    assert [s.subject for s in symptoms if s.state is State.NO and not s.remedy] == []


def test_doctor_names_the_package_of_a_missing_program(monkeypatch, tmp_path):
    """Without programs in the PATH, each is named with the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    remedies = {symptom.remedy for symptom in doctor._programs() if symptom.subject.startswith("qemu-img")}
    assert remedies == {"sudo apt-get install qemu-utils"}


def test_doctor_refuses_a_qemu_that_is_too_old(monkeypatch, tmp_path):
    """A program in the PATH is not enough: its version is named with the one that is needed."""
    old = tmp_path / "qemu-system-x86_64"
    old.write_text("#!/bin/sh\necho QEMU emulator version 5.0.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = [symptom for symptom in doctor._programs() if symptom.subject.startswith(old.name)]
    assert (found.state, found.serious) == (State.NO, True)
    assert "version 5.0.0, at least 7.2" in found.observed


def test_doctor_refuses_a_cache_that_is_a_file(monkeypatch, tmp_path):
    """Where COURSE_CACHE names a file, guests have no room."""
    place = tmp_path / "notes.txt"
    place.write_text("mine")
    monkeypatch.setenv("COURSE_CACHE", str(place))
    assert doctor._disk().observed == f"{place} is a file"


def test_course_root_is_found_from_below(root):
    """The course is found from any folder inside it."""
    below = root / "release" / "en" / "00-passport"
    assert lab.course_root(below) == root


def test_course_root_that_is_nowhere_says_what_was_expected(tmp_path, monkeypatch):
    """Outside of any course the message names the folder looked for and the next step."""
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "a" / "b" / "lab.py"))
    with pytest.raises(UsageError, match=r"release/en.*make build"):
        lab.course_root(tmp_path)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port):
    """The message names the value and the range."""
    with pytest.raises(UsageError, match=rf"{port} is no TCP port: expected 1 to 65535"):
        lab.free_port(port)


def test_the_users_settings_win(monkeypatch):
    """The course's settings stand behind those the user has chosen."""
    paths = lab.environment({"JUPYTER_CONFIG_PATH": "/mine", "PATH": "/bin"})["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert paths == ["/mine", str(lab.SETTINGS)]


def test_help_is_quick():
    """The command line itself loads no Jupyter, no QEMU client, no plots."""
    code = (
        "import sys; import course.cli; "
        "heavy = {'jupyterlab', 'nbformat', 'nbgrader', 'nbclient', 'qemu', 'matplotlib'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_module_is_the_command():
    """`python -m course` explains the same commands."""
    done = subprocess.run([sys.executable, "-m", "course", "--help"], capture_output=True, text=True, check=True)
    assert [name for name in ("lab", "probe", "doctor", "guest") if name not in done.stdout] == []
