"""Answers to `hw_virt`."""

from __future__ import annotations

import re

from autograder.answers import alternative, mutant


def _flags(cpuinfo):
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return value.split()
    return []


def _kvm(attempt):
    if any(f"-1 {name}" in attempt for name in ("EACCES", "EPERM")):
        return "forbidden"
    if any(f"-1 {name}" in attempt for name in ("ENOENT", "ENXIO", "ENODEV")):
        return "absent"
    return "usable" if "KVM_EXIT_HLT" in attempt else "refused"


def _extension(flags):
    return next((name for name in ("vmx", "svm") if name in flags), "none")


def _right(cpuinfo, devices, attempt):
    flags = _flags(cpuinfo)
    return {"extension": _extension(flags), "in_a_vm": "hypervisor" in flags, "kvm": _kvm(attempt)}


@alternative("hw_virt")
def with_regular_expressions(cpuinfo, devices, attempt):
    flags = re.search(r"^flags\s*: (.*)$", cpuinfo, re.MULTILINE)[1]
    found = re.search(r"\b(vmx|svm)(?= |$)", flags)
    opened = re.search(r"open\(.*\) = (-?\d+) ?(\w*)", attempt)
    kvm = "usable" if attempt.rstrip().endswith("KVM_EXIT_HLT") else "refused"
    if opened[1] == "-1":
        kvm = "forbidden" if opened[2] in ("EACCES", "EPERM") else "absent"
    extension = found[1] if found else "none"
    return {"extension": extension, "in_a_vm": bool(re.search(r"\bhypervisor\b", flags)), "kvm": kvm}


@alternative("hw_virt")
def last_line_first(cpuinfo, devices, attempt):
    last = attempt.splitlines()[-1]
    words = {"HLT": "usable", "EACCES": "forbidden", "EPERM": "forbidden", "ENOENT": "absent", "ENXIO": "absent"}
    words["ENODEV"] = "absent"
    kvm = next((value for word, value in words.items() if word in last), "refused")
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "flag-is-kvm")
def flag_means_kvm(cpuinfo, devices, attempt):
    right = _right(cpuinfo, devices, attempt)
    return right | {"kvm": "usable" if right["extension"] != "none" else "absent"}


@mutant("hw_virt", "no-flag-no-kvm")
def no_flag_means_no_kvm(cpuinfo, devices, attempt):
    right = _right(cpuinfo, devices, attempt)
    return right | ({"kvm": "absent"} if right["extension"] == "none" else {})


@mutant("hw_virt", "device-is-kvm")
def device_means_kvm(cpuinfo, devices, attempt):
    return _right(cpuinfo, devices, attempt) | {"kvm": "usable" if "/dev/kvm" in devices else "absent"}


@mutant("hw_virt", "reads-the-mode")
def mode_of_the_device(cpuinfo, devices, attempt):
    kvm = "absent" if not devices else "usable" if devices.startswith("crw-rw-rw-") else "forbidden"
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "reads-the-mode")
def mode_or_attempt(cpuinfo, devices, attempt):
    kvm = "usable" if devices.startswith("crw-rw-rw-") else _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "opening-is-running")
def opening_is_enough(cpuinfo, devices, attempt):
    kvm = _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": "usable" if kvm == "refused" else kvm}


@mutant("hw_virt", "run-is-success")
def kvm_run_returned(cpuinfo, devices, attempt):
    kvm = "usable" if "KVM_RUN) = 0" in attempt else _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "enxio-is-forbidden")
def every_refused_open_is_forbidden(cpuinfo, devices, attempt):
    kvm = "forbidden" if "open" in attempt.splitlines()[-1] and devices else _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "only-eacces-forbids")
def policy_is_refused(cpuinfo, devices, attempt):
    kvm = "refused" if "EPERM" in attempt else _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "enodev-is-refused")
def enodev_is_unknown(cpuinfo, devices, attempt):
    kvm = "refused" if "ENODEV" in attempt else _kvm(attempt)
    return _right(cpuinfo, devices, attempt) | {"kvm": kvm}


@mutant("hw_virt", "substring-is-flag")
def anywhere_in_the_text(cpuinfo, devices, attempt):
    extension = next((name for name in ("vmx", "svm") if name in cpuinfo), "none")
    return _right(cpuinfo, devices, attempt) | {"extension": extension}


@mutant("hw_virt", "substring-is-flag")
def part_of_a_flag(cpuinfo, devices, attempt):
    flags = " ".join(name for name in _flags(cpuinfo) if name != "vmxoff_ok")
    extension = next((name for name in ("vmx", "svm") if name in flags), "none")
    return _right(cpuinfo, devices, attempt) | {"extension": extension}


@mutant("hw_virt", "only-intel")
def only_vmx(cpuinfo, devices, attempt):
    extension = "vmx" if "vmx" in _flags(cpuinfo) else "none"
    return _right(cpuinfo, devices, attempt) | {"extension": extension}


@mutant("hw_virt", "word-anywhere")
def hypervisor_anywhere(cpuinfo, devices, attempt):
    return _right(cpuinfo, devices, attempt) | {"in_a_vm": "hypervisor" in cpuinfo}


@mutant("hw_virt", "extension-means-bare")
def a_machine_with_the_extension_is_real(cpuinfo, devices, attempt):
    right = _right(cpuinfo, devices, attempt)
    return right | {"in_a_vm": right["in_a_vm"] and right["extension"] == "none"}


@mutant("hw_virt", "no-flag-means-vm")
def no_extension_means_vm(cpuinfo, devices, attempt):
    right = _right(cpuinfo, devices, attempt)
    return right | {"in_a_vm": right["in_a_vm"] or right["extension"] == "none"}


@mutant("hw_virt", "always-in-a-vm")
def kvm_device_means_vm(cpuinfo, devices, attempt):
    return _right(cpuinfo, devices, attempt) | {"in_a_vm": "kvm" in devices}


@mutant("hw_virt", "unknown-word")
def words_of_its_own(cpuinfo, devices, attempt):
    return _right(cpuinfo, devices, attempt) | {"kvm": True}


@mutant("hw_virt", "not-the-keys")
def only_the_extension(cpuinfo, devices, attempt):
    return {"extension": _extension(_flags(cpuinfo))}


@mutant("hw_virt", "unanswered")
def hw_virt_untouched(cpuinfo, devices, attempt):
    raise NotImplementedError
