"""Judgements on `hw_virt`: machines as texts, each with something that misleads."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from ...error import UsageError
from ..exercise import Trial

_COMMON = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 ht syscall nx lm"
INTEL, AMD = ("GenuineIntel", "Intel(R) Xeon(R) CPU"), ("AuthenticAMD", "AMD EPYC 7B13")
CHARACTER_DEVICE = "crw-rw---- 1 root kvm 10, 232 Nov 11 09:00 /dev/kvm"
OPEN = 'open("/dev/kvm", O_RDWR)'
_ERRORS = {
    "ENOENT": "No such file or directory",
    "EACCES": "Permission denied",
    "EPERM": "Operation not permitted",
    "ENXIO": "No such device or address",
    "ENODEV": "No such device",
}
FIELDS = {"extension": ("vmx", "svm", "none"), "kvm": ("usable", "absent", "forbidden", "refused")}
Blame = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Case:
    """One machine.

    Attributes:
        words: what it is.
        texts: cpuinfo, devices, attempt.
        expected: the right answer.
        blame: field, or field=value → (misconception, hint) when that field is wrong, or has that wrong value.
    """

    words: str
    texts: tuple[str, str, str]
    expected: Mapping[str, Any]
    blame: Mapping[str, Blame]


def cpuinfo(rng: random.Random, maker: tuple[str, str], *flags: str, model: str = "", more: str = "") -> str:
    """Text of /proc/cpuinfo for one to four CPUs."""
    names = [*_COMMON.split(), *flags]
    rng.shuffle(names)
    block = f"vendor_id\t: {maker[0]}\nmodel name\t: {model or maker[1]}\nflags\t\t: {' '.join(names)}\n{more}"
    block += "bugs\t\t: spectre_v1 spectre_v2\nbogomips\t: 4000.00\n"
    return "\n".join(f"processor\t: {n}\n{block}" for n in range(rng.randrange(1, 5)))


def attempt(outcome: str) -> str:
    """What a program met that tried to use KVM, as strace would show it."""
    if outcome in _ERRORS:
        return f"{OPEN} = -1 {outcome} ({_ERRORS[outcome]})\n"
    lines = [f"{OPEN} = 3", "ioctl(3, KVM_GET_API_VERSION) = 12"]
    if outcome == "EBUSY":
        return "\n".join([*lines, "ioctl(3, KVM_CREATE_VM) = -1 EBUSY (Device or resource busy)", ""])
    lines += ["ioctl(3, KVM_CREATE_VM) = 4", "ioctl(4, KVM_CREATE_VCPU) = 5"]
    return "\n".join([*lines, f"ioctl(5, KVM_RUN) = 0, exit_reason {outcome}", ""])


def case(name: str, rng: random.Random) -> Case:
    """Make one of the machines.

    Raises:
        UsageError: there is none of that name.
    """
    makers = {
        "laptop": _laptop, "no module": _no_module, "nested without flag": _nested_without_flag, "denied": _denied,
        "busy": _busy, "internal error": _internal_error, "stale device": _stale, "vmx flags": _vmx_flags,
        "svm parts": _svm_parts, "model name": _model_name, "nested": _nested, "wide open": _wide_open,
        "left over": _left_over,
    }  # fmt: skip
    if name not in makers:
        raise UsageError(f"there is no case {name!r}; there are {', '.join(makers)}")
    return makers[name](rng)


def _expect(extension: str, in_a_vm: bool, kvm: str) -> dict[str, Any]:
    return {"extension": extension, "in_a_vm": in_a_vm, "kvm": kvm}


_RUNS = "KVM_EXIT_HLT"
_MODE = ("reads-the-mode", "Rights depend on who asks: the attempt shows whether *this* account may.")
_POLICY = ("only-eacces-forbids", "The mode is not all that decides: a policy forbids with an error of its own, EPERM.")
_DEVICE = ("device-is-kvm", "A name in /dev promises nothing: read what came of opening it.")
_FLAG = ("flag-is-kvm", "The flag tells what the processor has; the attempt tells what the kernel offers.")
_OPENING = ("opening-is-running", "Opening succeeded. Read the attempt to its last line.")
_SUBSTRING = ("substring-is-flag", "Which line holds the flags? Compare whole words of that line only.")
_VM = ("vm-guessed", "One flag is set by every hypervisor to tell its guests: search it among the flags.")


def _laptop(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "vmx", "ept"), CHARACTER_DEVICE, attempt(_RUNS))
    return Case(
        "A laptop with Intel's extension, and KVM runs a guest",
        texts,
        _expect("vmx", False, "usable"),
        {
            "kvm": _MODE,
            "in_a_vm": ("always-in-a-vm", _VM[1]),
            "extension": ("flag-not-found", "Split the flags' line at blanks."),
        },
    )


def _no_module(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, AMD, "svm", "npt", "nrip_save"), "", attempt("ENOENT"))
    return Case(
        "A server with AMD's extension, whose kernel has no KVM",
        texts,
        _expect("svm", False, "absent"),
        {"kvm": _FLAG, "extension": ("only-intel", "AMD calls it svm."), "in_a_vm": _VM},
    )


def _nested_without_flag(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "hypervisor"), CHARACTER_DEVICE, attempt(_RUNS))
    return Case(
        "A virtual machine without the flag, where KVM nevertheless runs a guest (in software, or with another trick)",
        texts,
        _expect("none", True, "usable"),
        {
            "kvm": ("no-flag-no-kvm", "The attempt is a fact: a guest ran. The flag is only a reason to expect it."),
            "extension": ("kvm-is-flag", "Only the flags tell what the processor shows."),
            "in_a_vm": _VM,
        },
    )


def _denied(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "vmx"), CHARACTER_DEVICE, attempt("EACCES"))
    return Case(
        "A workstation whose user is not in the group kvm",
        texts,
        _expect("vmx", False, "forbidden"),
        {"kvm": _DEVICE, "extension": _SUBSTRING, "in_a_vm": _VM},
    )


def _wide_open(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, AMD, "svm"), CHARACTER_DEVICE.replace("rw----", "rw-rw-"), attempt("EPERM"))
    return Case(
        "A container: the device may be opened by everybody, says its mode, and a security policy refuses",
        texts,
        _expect("svm", False, "forbidden"),
        {"kvm": _MODE, "kvm=refused": _POLICY, "extension": _SUBSTRING, "in_a_vm": _VM},
    )


def _busy(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "vmx", "ept"), CHARACTER_DEVICE, attempt("EBUSY"))
    return Case(
        "A workstation on which another hypervisor holds the extension",
        texts,
        _expect("vmx", False, "refused"),
        {"kvm": _OPENING, "extension": _SUBSTRING, "in_a_vm": _VM},
    )


def _internal_error(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "hypervisor", "vmx"), CHARACTER_DEVICE, attempt("KVM_EXIT_INTERNAL_ERROR"))
    return Case(
        "A virtual machine whose KVM makes a guest and cannot run it",
        texts,
        _expect("vmx", True, "refused"),
        {
            "kvm": ("run-is-success", "KVM_RUN returned. Why? The guest was a hlt."),
            "extension": _SUBSTRING,
            "in_a_vm": _VM,
        },
    )


def _stale(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, AMD, "hypervisor"), CHARACTER_DEVICE, attempt("ENXIO"))
    return Case(
        "A container that was given a device file without a KVM behind it",
        texts,
        _expect("none", True, "absent"),
        {"kvm": ("enxio-is-forbidden", "What does the error say: not allowed, or not there?"), "extension": _SUBSTRING,
         "in_a_vm": _VM},
    )  # fmt: skip


def _left_over(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "vmx"), CHARACTER_DEVICE, attempt("ENODEV"))
    return Case(
        "A server whose module kvm was taken out of the kernel; the device file was left",
        texts,
        _expect("vmx", False, "absent"),
        {"kvm": ("enodev-is-refused", "Three errors of open say that nothing is there; the table names them."),
         "extension": _SUBSTRING, "in_a_vm": _VM},
    )  # fmt: skip


def _vmx_flags(rng: random.Random) -> Case:
    more = "vmx flags\t: vnmi preemption_timer invvpid ept_x_only\n"
    texts = (cpuinfo(rng, INTEL, "vmxoff_ok", more=more), "", attempt("ENOENT"))
    return Case(
        "A PC whose firmware has switched the extension off; another line of the text names it",
        texts,
        _expect("none", False, "absent"),
        {"extension": _SUBSTRING, "kvm": _FLAG, "in_a_vm": ("no-flag-means-vm", _VM[1])},
    )


def _svm_parts(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, AMD, "hypervisor", "svm_lock", "svme_addr_chk"), "", attempt("ENOENT"))
    return Case(
        "A cloud machine that shows some parts of svm and not svm itself",
        texts,
        _expect("none", True, "absent"),
        {"extension": _SUBSTRING, "kvm": _FLAG, "in_a_vm": _VM},
    )


def _model_name(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, INTEL, "vmx", model="hypervisor test board vmx"), CHARACTER_DEVICE, attempt(_RUNS))
    return Case(
        "A bare machine whose model name contains the word hypervisor",
        texts,
        _expect("vmx", False, "usable"),
        {"in_a_vm": ("word-anywhere", "Only the flags' line counts."), "extension": _SUBSTRING, "kvm": _DEVICE},
    )


def _nested(rng: random.Random) -> Case:
    texts = (cpuinfo(rng, AMD, "hypervisor", "svm", "npt"), CHARACTER_DEVICE, attempt(_RUNS))
    return Case(
        "A cloud machine with nested virtualization",
        texts,
        _expect("svm", True, "usable"),
        {
            "in_a_vm": (
                "extension-means-bare",
                "A hypervisor may lend the extension to its guests.",
            ),
            "kvm": _DEVICE,
            "extension": _SUBSTRING,
        },
    )


def judge_machine(trial: Trial, machine: Case) -> None:
    """Judge the answer for one machine."""
    got: Any = trial.call(*machine.texts)
    if not isinstance(got, dict) or set(got) != set(machine.expected):
        keys = ", ".join(machine.expected)
        trial.wrong("not-the-keys", f"hw_virt returned {got!r}.", f"Return a dict with the keys {keys}.")
    for field, allowed in FIELDS.items():
        if got[field] not in allowed:
            trial.wrong("unknown-word", f"{field} is {got[field]!r}.", f"One of {', '.join(allowed)} is expected.")
    if type(got["in_a_vm"]) is not bool:
        trial.wrong("not-a-bool", f"in_a_vm is {got['in_a_vm']!r}.", "True or False is expected.")
    for field in ("extension", "in_a_vm", "kvm"):
        if got[field] != machine.expected[field]:
            misconception, hint = machine.blame.get(f"{field}={got[field]}", machine.blame[field])
            message = f"{machine.words}. {field}: expected {machine.expected[field]!r}, obtained {got[field]!r}."
            trial.wrong(misconception, f"{message}\nThe attempt: {machine.texts[2].splitlines()[-1]}", hint)
