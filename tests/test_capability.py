"""The probe says what is so, in time, and never raises."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from contextlib import contextmanager

import psutil
import pytest

from course.capability import Observation, Report, State, experiments, kvm, probe, probing, svm
from course.capability import report as reporting


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_PVE_HOST", raising=False)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A probe of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("LAB_PVE_HOST", raising=False)
        return probe(force=True, time_limit_s=60)


def a_report(**states):
    """Make a report with the given states, `NO` for the others."""
    return Report.from_observations(
        [Observation(n, t, states.get(n, State.NO), "seen <so>", "do & see") for n, t in probing.EXPERIMENTS.items()]
    )


# The probe as a whole


def test_probe_finds_python_and_leaves_nothing_running(here):
    """T0 holds wherever this test runs, and no experiment is left behind."""
    assert here["T0"].available
    assert [p for p in psutil.Process().children(recursive=True) if "capability" in " ".join(p.cmdline())] == []


def test_probe_agrees_with_programs_that_are_there(here):
    """T1 is QEMU and Unicorn at work: where QEMU is installed, the tier holds."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed")
    assert here["T1"].available, here["T1"]


def test_namespaces_agree_with_unshare(here):
    """util-linux enters the same namespaces exactly when the experiment says so."""
    if shutil.which("unshare") is None:
        pytest.skip("util-linux is not installed")
    command = ["unshare", "--user", "--map-root-user", "--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup"]
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    assert (here.observation("namespaces").state is State.YES) == allowed


def test_root_is_no_for_an_ordinary_user(here):
    """Only user id 0 has T4; an ordinary user is told that it is not needed."""
    if os.geteuid() == 0:
        assert here.observation("root").facts.get("uid", 0) == 0
    else:
        assert (here["T4"].state, here.observation("root").facts["uid"]) == (State.NO, os.geteuid())


def test_every_shortcoming_has_a_remedy(here):
    """Whatever does not work wholly comes with something to do."""
    for tier in here.tiers:
        assert [o.name for o in tier.observations if o.state is not State.YES and not o.remedy] == []


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import time; time.sleep(600)", "no answer within 0.5 s"),
        ("import os; os.abort()", "status -6"),
        ("raise SystemExit('seccomp says no')", "seccomp says no"),
        ("print('{}')", "it said nothing"),
        ("print('not JSON')", "it said nothing"),
        ("import sys; sys.stdout.buffer.write(bytes([255]))", "it said nothing"),
    ],
)
def test_an_experiment_that_misbehaves_is_an_observation(monkeypatch, program, expected):
    """Hanging, crashing or talking nonsense in a child is reported, not raised, and the child is gone."""
    children = []

    def start(name):
        popen = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        children.append(popen)
        return popen

    monkeypatch.setattr(probing, "EXPERIMENTS", {"kvm": "T3"})
    monkeypatch.setattr(probing, "_start", start)
    found = probe(force=True, time_limit_s=0.5 if "sleep" in program else 60)
    observation = found.observation("kvm")
    assert observation.state is State.NO
    assert expected in observation.observed
    assert found.kvm == "broken"
    assert children[0].returncode is not None


def test_an_experiment_takes_its_children_with_it(monkeypatch, tmp_path):
    """What a hanging experiment started is ended with it."""
    note = tmp_path / "pid"
    program = (
        "import subprocess, sys, time, pathlib\n"
        f"p = subprocess.Popen(['sleep', '600']); pathlib.Path({str(note)!r}).write_text(str(p.pid)); time.sleep(600)"
    )
    real = subprocess.Popen

    def start(_):
        child = real([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, start_new_session=True)
        while not (note.exists() and note.read_text()):
            assert child.poll() is None
        return child

    monkeypatch.setattr(probing, "EXPERIMENTS", {"qemu": "T1"})
    monkeypatch.setattr(probing, "_start", start)
    probe(force=True, time_limit_s=0.1)
    grandchild = int(note.read_text())
    for _ in range(600):  # a process that was killed may take a moment to end
        if not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail(f"process {grandchild} goes on running")


def test_no_interpreter_to_start_is_an_observation(monkeypatch):
    """When no process can be started at all, the report says so."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert "could not be started" in probe(force=True).observation("python").observed


# The memory


def test_probe_remembers(monkeypatch, here):
    """Under the same circumstances no experiment runs twice."""
    first = probe()
    monkeypatch.setattr(probing, "_start", pytest.fail)
    assert probe() == first


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"circumstances": 1}', "null"])
def test_a_damaged_memory_is_ignored(monkeypatch, damage):
    """A cache file that is not ours to read leads to a new look."""
    monkeypatch.setattr(probing, "_run_all", lambda _: [Observation("python", "T0", State.YES, "fresh")])
    probe()
    probing.cache_path().write_text(damage)
    assert probe().observation("python").observed == "fresh"


def test_a_memory_of_other_circumstances_is_ignored(monkeypatch):
    """Naming a Proxmox host makes the probe look again, and `force` always does."""
    looks = []
    monkeypatch.setattr(probing, "_run_all", lambda _: looks.append(1) or [])
    probe()
    probe()
    assert len(looks) == 1
    monkeypatch.setenv("LAB_PVE_HOST", "127.0.0.1:1")
    probe()
    probe(force=True)
    assert len(looks) == 3


def test_a_cache_that_cannot_be_written_does_no_harm(monkeypatch, tmp_path):
    """Without a place to remember, the probe answers all the same."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(probing, "_run_all", lambda _: [Observation("python", "T0", State.YES, "fresh")])
    assert probe().best == "T0"


def test_the_host_of_proxmox_is_not_written_down(monkeypatch):
    """The memory holds no address a user named (it could hold a secret)."""
    monkeypatch.setattr(probing, "_run_all", lambda _: [])
    monkeypatch.setenv("LAB_PVE_HOST", "secret-host")
    probe()
    assert "secret-host" not in probing.cache_path().read_text()


# QEMU and its firmware


def test_firmware_is_what_it_claims():
    """A disassembler that nobody here wrote reads the ROM as: jump, then bytes to COM1, then the exit port, halt."""
    capstone = pytest.importorskip("capstone")
    rom = experiments.firmware(b"A")
    assert len(rom) == 0x10000
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16)
    text = [f"{i.mnemonic} {i.op_str}".strip() for i in decoder.disasm(rom[:16], 0)]
    assert text[:7] == [
        "mov dx, 0x3f8",
        "mov al, 0x41",
        "out dx, al",
        "mov dx, 0xf4",
        "mov al, 0x10",
        "out dx, al",
        "hlt",
    ]
    assert [i.mnemonic for i in decoder.disasm(rom[0xFFF0:0xFFF5], 0)] == ["ljmp"]


def fake_qemu(folder, script):
    """Put a program called qemu-system-x86_64 into `folder`."""
    path = folder / "qemu-system-x86_64"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_qemu_that_is_missing_names_the_package(monkeypatch, tmp_path):
    """Without QEMU the remedy is the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = experiments.qemu()
    assert (found["state"], "apt-get install qemu-system-x86" in found["remedy"]) == ("no", True)


def test_qemu_that_fails_shows_its_last_words(monkeypatch, tmp_path):
    """A QEMU that ends early is quoted."""
    fake_qemu(tmp_path, "echo 'could not set up TCG' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = experiments.qemu()
    assert (found["state"], "could not set up TCG" in found["observed"]) == ("no", True)


# SVM


def test_the_svm_firmware_is_a_hypervisor():
    """A disassembler that nobody here wrote finds the switch to 32 bits, SVM's two registers and vmrun, in order."""
    capstone = pytest.importorskip("capstone")
    rom = svm.firmware(0xF4, 0x10)
    assert len(rom) == 0x10000
    real = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16).disasm(rom[:0x20], 0)
    assert [i.mnemonic for i in real][:6] == ["cli", "lgdt", "mov", "or", "mov", "ljmp"]
    code = rom[0x60 : rom.index(b"\xf4\x90\x90\x90", 0x60) + 1]
    lines = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32).disasm(code, 0))
    assert sum(line.size for line in lines) == len(code)
    kept = [i.mnemonic for i in lines if i.mnemonic in ("rdmsr", "wrmsr", "vmrun", "cmp", "jne", "out", "hlt")]
    assert kept == ["rdmsr", "wrmsr", "wrmsr", "vmrun", "cmp", "jne", "cmp", "jne", "out", "out", "out", "hlt"]


def test_svm_is_seen_by_using_it():
    """The same firmware on the same processor without SVM ends in a triple fault, not in a greeting."""
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("QEMU is not installed")
    assert experiments.svm()["state"] == "yes"
    rom = svm.firmware(experiments.EXIT_PORT, experiments.EXIT_VALUE)
    done = experiments._boot(binary, rom, "-cpu", "qemu64,-svm", "-no-reboot")
    assert (done.returncode, done.stdout) == (0, b"")


def test_qemu_without_svm_has_a_remedy(monkeypatch, tmp_path):
    """A QEMU that ends otherwise, or none, is no SVM; the remedy says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install" in experiments.svm()["remedy"]
    fake_qemu(tmp_path, "exit 0")
    found = experiments.svm()
    assert (found["state"], "status 0" in found["observed"], "Update QEMU" in found["remedy"]) == ("no", True, True)


# KVM


@pytest.mark.parametrize(
    ("working", "level", "state"),
    [
        ("real16 long64 user64 paging32 cmpxchg16b", "full", "yes"),
        ("real16 long64 user64", "mini", "partly"),
        ("user64", "mini", "partly"),
        ("real16 paging32", "broken", "no"),
        ("", "broken", "no"),
    ],
)
def test_kvm_level_follows_from_the_guests_that_ran(working, level, state):
    """Only a KVM that runs all five tiny guests may be used for Linux."""
    found = kvm._judge({guest.__name__: guest.__name__ in working.split() for guest in kvm.GUESTS})
    assert (found["facts"]["level"], found["state"]) == (level, state)


@pytest.mark.parametrize(
    ("error", "level"),
    [(FileNotFoundError(2, ""), "absent"), (PermissionError(13, ""), "no-permission"), (OSError(19, ""), "absent")],
)
def test_kvm_that_cannot_be_opened(monkeypatch, error, level):
    """A missing device and a forbidden one are told apart."""

    def refuse(*_):
        raise error

    monkeypatch.setattr(kvm.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(kvm.os, "open", refuse)
    assert kvm.experiment()["facts"]["level"] == level


def test_a_file_called_kvm_proves_nothing(monkeypatch):
    """A /dev/kvm that opens but is no KVM gives a finding, not a success."""
    monkeypatch.setattr(kvm.platform, "machine", lambda: "x86_64")
    real = os.open
    monkeypatch.setattr(kvm.os, "open", lambda _path, flags: real("/dev/null", flags))
    with pytest.raises(OSError, match="ioctl"):
        kvm.experiment()
    output = subprocess.run(
        [sys.executable, "-c", "import os; o = os.open; os.open = lambda p, *a, **k: o('/dev/null' if p == '/dev/kvm' "
         "else p, *a, **k); from course.capability import experiments; experiments.main('kvm')"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(output)["facts"]["level"] in ("broken", "absent")


def test_kvm_structures_have_the_kernels_sizes():
    """The ioctl numbers carry the sizes of the structures that the kernel expects."""
    for request, structure in ((kvm.KVM_SET_REGS, kvm.Regs), (kvm.KVM_SET_SREGS, kvm.Sregs)):
        assert (request >> 16) & 0x3FFF == kvm.ctypes.sizeof(structure)


# Proxmox


@contextmanager
def server(name, status=401):
    """An HTTP server on a loopback port that calls itself `name`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api2/json/version"
            self.send_response_only(status)
            self.send_header("Server", name)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http_server.server_port}"
        finally:
            http_server.shutdown()
            thread.join()


@pytest.mark.parametrize(("name", "state"), [("pve-api-daemon/3.0", "yes"), ("nginx", "no")])
def test_proxmox_is_known_by_its_refusal(monkeypatch, name, state):
    """A host counts as a Proxmox VE by what it calls itself when it refuses to answer strangers."""
    with server(name) as address:
        monkeypatch.setenv("LAB_PVE_HOST", address)
        assert experiments.proxmox()["state"] == state


def test_proxmox_that_does_not_answer(monkeypatch):
    """A host that is not there is named, with the variable to set."""
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LAB_PVE_HOST", f"127.0.0.1:{idle.getsockname()[1]}")
        found = experiments.proxmox()
    assert (found["state"], "LAB_PVE_HOST" in found["remedy"]) == ("no", True)


def test_proxmox_asks_only_by_http(monkeypatch):
    """A file address is refused."""
    monkeypatch.setenv("LAB_PVE_HOST", "file:///etc/passwd?")
    assert experiments.proxmox()["state"] == "no"


# The report


def test_best_is_the_highest_tier_that_works_wholly():
    """Half of a tier is no tier: ptrace without namespaces leaves T1 the best."""
    report = a_report(python=State.YES, qemu=State.YES, svm=State.YES, unicorn=State.YES, ptrace=State.YES)
    assert (report.best, report["T2"].state, bool(report["T2"])) == ("T1", State.PARTLY, False)


def test_report_survives_json(here):
    """What `course probe --json` prints reads back as the same report."""
    assert Report.from_dict(json.loads(json.dumps(here.as_dict()))) == here


def test_unknown_tier_names_the_tiers(here):
    """A typing error is told what there is."""
    with pytest.raises(KeyError, match="T0, T1, T2, T3, T4, T5"):
        here["T9"]


def test_badge_is_well_formed_and_says_all_in_words():
    """The badge is an image with a title and a description; each plate carries a word, escaped properly."""
    report = a_report(python=State.YES, ptrace=State.YES)
    svg = ET.fromstring(reporting.badge(report))
    namespace = "{http://www.w3.org/2000/svg}"
    assert svg.get("role") == "img"
    assert svg.find(f"{namespace}desc").text == report.sentence() == svg.get("aria-label")
    words = [text.text for text in svg.iter(f"{namespace}text")]
    assert words == ["T0", "✓ yes", "T1", "✗ no", "T2", "~ partly", "T3", "✗ no", "T4", "✗ no", "T5", "✗ no"]
    ET.fromstring(reporting.details(report))


def test_badge_has_contrast():
    """Ink on plate is at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for plate, ink in reporting.COLOURS.values():
        low, high = sorted((luminance(plate), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_report_speaks_without_a_front_end(here):
    """The text fallback names all six tiers and their states; no markup."""
    bundle = here._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/svg+xml"}
    assert [f"{tier.name} {tier.title}: {tier.state.value}" for tier in here.tiers] == bundle["text/plain"].split(" · ")
