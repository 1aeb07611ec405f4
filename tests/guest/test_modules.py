"""Choosing kernel modules by what they say of themselves."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import kernel, modules


def ko(depends: str, *aliases: str) -> bytes:
    """Return what stands in for a module: a .modinfo section among other bytes."""
    words = [f"depends={depends}", *(f"alias={alias}" for alias in aliases), "license=GPL"]
    return b"\x7fELF...\0" + b"\0".join(word.encode() for word in words) + b"\0tail"


AVAILABLE = {
    "net": ("kernel/net.ko", ko("ring,fail_over", "virtio:d1*")),
    "fail_over": ("kernel/fail-over.ko.xz", lzma.compress(ko(""))),
    "ring": ("kernel/ring.ko.gz", gzip.compress(ko("base"))),
    "base": ("kernel/base.ko", ko("")),
    "broken": ("kernel/broken.ko", ko("nowhere")),
    "alone": ("kernel/alone.ko", ko("inside")),
}


def test_closure_puts_what_is_needed_first() -> None:
    """Each module comes after all that it depends on, once, decompressed."""
    names = [module.name for module in modules.closure(["net", "ring"], AVAILABLE, [])]
    assert sorted(names) == ["base", "fail_over", "net", "ring"]
    assert names.index("base") < names.index("ring") < names.index("net")
    assert names.index("fail_over") < names.index("net")
    assert all(b"license=GPL" in module.content for module in modules.closure(["net"], AVAILABLE, []))


def test_closure_leaves_out_what_is_built_in() -> None:
    """A module inside the kernel is no file, and no error."""
    assert [module.name for module in modules.closure(["alone"], AVAILABLE, ["inside"])] == ["alone"]
    assert modules.closure(["in-side"], AVAILABLE, ["in_side"]) == []


def test_closure_refuses_what_is_missing() -> None:
    """A missing module is named, with who needs it; a question mark makes it a wish."""
    with pytest.raises(GuestError, match="no module nowhere, which broken needs"):
        modules.closure(["broken"], AVAILABLE, [])
    assert modules.closure(["nothing?"], AVAILABLE, []) == []


def test_index_lists_dependencies_and_aliases() -> None:
    """modules.dep has the whole closure of each module, modules.alias its other names."""
    index = modules.index(modules.closure(["net"], AVAILABLE, []))
    lines = index["modules.dep"].decode().splitlines()
    needs = {line.partition(":")[0]: set(line.partition(":")[2].split()) for line in lines}
    assert needs["net.ko"] == {"ring.ko", "base.ko", "fail_over.ko"}
    assert needs["base.ko"] == set()
    assert index["modules.alias"] == b"alias virtio:d1* net\n"


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox, whose depmod is the judge, is not here")
def test_index_agrees_with_depmod(linux_files: object, tmp_path: Path) -> None:
    """On the real kernel's modules, busybox's depmod finds the same dependencies."""
    linux = kernel.ensure()
    folder = tmp_path / "lib/modules" / linux.release
    shutil.copytree(linux.modules, folder)
    ours = _parsed(folder / "modules.dep")
    (folder / "modules.dep").unlink()
    subprocess.run(["busybox", "depmod", "-b", str(tmp_path), linux.release], check=True, capture_output=True)
    assert ours == _parsed(folder / "modules.dep")


def _parsed(path: Path) -> dict[str, set[str]]:
    lines = (line.partition(":") for line in path.read_text().splitlines() if line.strip())
    return {Path(name).name: {Path(need).name for need in needs.split()} for name, _, needs in lines}
