r"""Choose kernel modules with all that they need, reading what each module says about itself.

A package has no modules.dep (depmod writes it when the package is installed), so the dependencies come from the
``.modinfo`` section of each module: ``depends=virtio_ring,virtio\0alias=pci:v00001AF4d*…\0``. From the same strings
we write the `modules.dep` and `modules.alias` of our guest, so that its own modprobe works, and so does the kernel's
request for a module when something needs one (``ip link add type veth``, ``mount -t overlay``).
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from ..error import GuestError
from . import zstd


@dataclasses.dataclass(frozen=True)
class Module:
    """One kernel module, decompressed.

    Attributes:
        name: with underscores, as the kernel says it.
        content: the ELF relocatable object.
        depends: names of the modules it needs first.
        aliases: what it answers to besides its name.
    """

    name: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def read(path: str, data: bytes) -> Module:
    """Make a `Module` of a file ``*.ko``, ``*.ko.xz``, ``*.ko.zst`` or ``*.ko.gz``."""
    file = PurePosixPath(path)
    content = _decompressed(file.suffix, data)
    depends = [name for value in _modinfo(content, "depends") for name in value.split(",") if name]
    return Module(
        module_name(path), content, tuple(_normal(name) for name in depends), tuple(_modinfo(content, "alias"))
    )


def module_name(path: str) -> str:
    """Return the kernel's name of the module in a file: ``virtio_net`` for ``…/virtio-net.ko.xz``."""
    return _normal(PurePosixPath(path).name.partition(".ko")[0])


def closure(wanted: Iterable[str], available: Mapping[str, tuple[str, bytes]], builtin: Iterable[str]) -> list[Module]:
    """Return the `wanted` modules and all they need, each after what it depends on.

    Args:
        wanted: names; those that are neither available nor built in are left out when they end in ``?``.
        available: path and content of each of the kernel's module files, by the module's name.
        builtin: names that the kernel has inside.

    Raises:
        GuestError: a module is neither there nor built in.
    """
    inside = {_normal(name) for name in builtin}
    order: dict[str, Module] = {}

    def visit(name: str, needed_by: str) -> None:
        if name in order or name in inside:
            return
        if name not in available:
            raise GuestError(f"the kernel has no module {name}, which {needed_by} needs; is the package incomplete?")
        module = read(*available[name])
        for dependency in module.depends:
            visit(dependency, name)
        order[name] = module

    for name in wanted:
        optional, plain = name.endswith("?"), _normal(name.rstrip("?"))
        if not (optional and plain not in available):
            visit(plain, "the guest")
    return list(order.values())


def index(modules: Iterable[Module]) -> dict[str, bytes]:
    """Return the files modules.dep and modules.alias of a folder that holds ``NAME.ko`` for each module."""
    by_name = {module.name: module for module in modules}
    dep = [f"{name}.ko: " + " ".join(f"{need}.ko" for need in _needs(by_name, name)) for name in by_name]
    alias = [f"alias {alias} {module.name}" for module in by_name.values() for alias in module.aliases]
    return {"modules.dep": _lines(dep), "modules.alias": _lines(alias)}


def _needs(by_name: Mapping[str, Module], name: str) -> list[str]:
    """All that `name` needs, nearest first, as depmod writes it."""
    found: dict[str, None] = {}
    for dependency in by_name[name].depends:
        if dependency in by_name:
            for need in (dependency, *_needs(by_name, dependency)):
                found.pop(need, None)
                found[need] = None
    return list(found)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(line.rstrip() + "\n" for line in lines).encode()


def _modinfo(content: bytes, key: str) -> list[str]:
    found = re.findall(rb"(?:^|\0)" + key.encode() + rb"=([^\0]*)", content)
    return [value.decode(errors="replace") for value in found]


def _decompressed(suffix: str, data: bytes) -> bytes:
    match suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            return zstd.decompress(data)
    return data


def _normal(name: str) -> str:
    return name.replace("-", "_")
