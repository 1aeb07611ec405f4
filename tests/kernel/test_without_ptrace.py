"""The whole way without ptrace, refused by a real seccomp filter as in many containers."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# A seccomp filter that answers ptrace with EPERM, then the engines, a command, and two exercises with a right and a
# wrong answer each.
_CHILD = """
import ctypes, json, platform, struct, sys
number = {"x86_64": 101, "aarch64": 117}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("=HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(code)
program = struct.pack("=HxxxxxxQ", 4, ctypes.addressof(buffer))
filter = ctypes.create_string_buffer(program)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0, "seccomp"
from course.kernel import tracer
from course.check import kernel_and_user_space as visible
from autograder.checks import kernel_and_user_space as hidden
from autograder.answers.kernel_and_user_space import counting, executables

def judge(name, answer):
    seen = getattr(visible, name).examine(answer)
    return (getattr(hidden, name).examine(answer) if seen.ok else seen).misconception

print(json.dumps({
    "engines": tracer.engines(),
    "right": [judge("make_elf", executables.plain_moves), judge("make_elf", executables.with_int_80),
              judge("count_syscalls", counting.every_second_stop)],
    "wrong": [judge("make_elf", executables.forgets_exit), judge("make_elf", executables.length_in_a_signed_byte),
              judge("count_syscalls", counting.every_stop), judge("count_syscalls", counting.placeholder_means_entry)],
}))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the filter is written for two ISAs")
def test_every_point_is_reachable_when_ptrace_is_refused():
    """Engines fall back, right answers are accepted and wrong ones get the same names as with ptrace."""
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=False, timeout=120)
    if "AssertionError: seccomp" in done.stderr:
        pytest.skip("this system lets no process restrict itself with seccomp")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "ptrace" not in seen["engines"]
    assert seen["right"] == ["", "", ""]
    assert seen["wrong"] == ["no-exit", "length-sign-extended", "both-stops", "enosys-is-an-answer"]
