"""Image layers, and how the kernel's overlayfs merges them.

A layer is what an image's tar archive holds: path → content, None for a folder. Every folder that leads to a path is
listed. Two kinds of names are instructions to those who merge:

- ``folder/.wh.name``: *whiteout*, whatever the layers **below** have under ``folder/name`` is gone;
- ``folder/.wh..wh..opq``: *opaque*, whatever the layers **below** have in ``folder`` is gone.

overlayfs says the same otherwise: a whiteout is a character device 0/0 under the name itself, an opaque folder has the
extended attribute ``trusted.overlay.opaque``. Busybox cannot write that attribute, but the kernel writes it itself
when a folder is removed and made again above a lower one; `merge_in_kernel` lets it do so and moves the folder.

Source: OCI Image Format Specification 1.1, layer.md, "Whiteouts"; Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence

from ..error import MachineError, UsageError
from .laboratory import Laboratory

Layer = Mapping[str, bytes | None]
Tree = dict[str, bytes | None]

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

_SCRIPT = r"""
set -e
mkdir -p /lab/merge && cd /lab/merge
mount -t tmpfs merge . && cd /lab/merge
tar xzf /lab/layers.tgz
mkdir -p empty none low up work all
touch opaque
n=0; while read -r folder; do n=$((n + 1)); mkdir low/$n; done <opaque
if [ $n -gt 0 ]; then
  mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work all
  rmdir all/*; i=0; while [ $i -lt $n ]; do i=$((i + 1)); mkdir all/$i; done
  umount all
fi
n=0; while read -r folder; do
  n=$((n + 1))
  find "$folder" -mindepth 1 -maxdepth 1 -exec mv {} up/$n/ \;
  rmdir "$folder"; mv up/$n "$folder"
done <opaque
while read -r stack lower; do
  mkdir -p all/$stack
  cd stacks/$stack; mount -t overlay overlay -o "lowerdir=$lower../../empty:../../none" ../../all/$stack; cd /lab/merge
done <mounts
tar czf /lab/merged.tgz -C all . 2>/dev/null || true
cd /; umount /lab/merge/all/*; umount /lab/merge
"""


def merge_in_kernel(lab: Laboratory, stacks: Sequence[Sequence[Layer]]) -> list[Tree]:
    """Let the guest's overlayfs merge stacks of layers.

    Args:
        lab: the guest.
        stacks: each a list of layers, the lowest first.

    Returns:
        For each stack: path → content, None for a folder.

    Raises:
        UsageError: a layer is not one: a folder that leads to a path is not listed, or the root is opaque.
        MachineError: the guest could not do it.
    """
    for layers in stacks:
        for layer in layers:
            _validate(layer)
    lab.put("/lab/layers.tgz", _archive(stacks))
    done = lab.run(_SCRIPT, timeout_s=60)
    if done.exitcode:
        raise MachineError(f"overlayfs could not merge {len(stacks)} stacks of layers", output=done.output)
    return _read(lab.get("/lab/merged.tgz"), len(stacks))


def _validate(layer: Layer) -> None:
    for path in layer:
        folder, name = posixpath.split(path)
        if folder and (folder not in layer or layer[folder] is not None):
            raise UsageError(f"the layer has {path!r} but not its folder; expected {folder!r}: None in the same layer")
        if name == OPAQUE and not folder:
            raise UsageError("the layer makes the root opaque; expected opaque folders below it only")


def _archive(stacks: Sequence[Sequence[Layer]]) -> bytes:
    """Pack the layers as overlayfs wants them, and two lists: opaque folders (inner ones first), and mounts."""
    opaque, mounts = [], []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, layers in enumerate(stacks):
            _add(archive, f"stacks/{number}", None)
            for level, layer in enumerate(layers):
                base = f"stacks/{number}/{level}"
                _add(archive, base, None)
                for path in sorted(layer):
                    folder, name = posixpath.split(path)
                    if name == OPAQUE:
                        opaque.append(f"{base}/{folder}")
                    elif not name.startswith(WHITEOUT):
                        _add(archive, f"{base}/{path}", layer[path])
                    elif (hidden := posixpath.join(folder, name.removeprefix(WHITEOUT))) not in layer:
                        _add_whiteout(archive, f"{base}/{hidden}")
                    elif layer[hidden] is None:  # a whiteout, and a new folder of that name: the folder is opaque
                        opaque.append(f"{base}/{hidden}")
            mounts.append(f"{number} " + "".join(f"{level}:" for level in reversed(range(len(layers)))))
        _add(archive, "opaque", _lines(sorted(set(opaque), key=lambda path: (-path.count("/"), path))))
        _add(archive, "mounts", _lines(mounts))
    return buffer.getvalue()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _add(archive: tarfile.TarFile, path: str, content: bytes | None) -> None:
    member = tarfile.TarInfo(path)
    if content is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _add_whiteout(archive: tarfile.TarFile, path: str) -> None:
    member = tarfile.TarInfo(path)
    member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 0, 0
    archive.addfile(member)


def _read(data: bytes, count: int) -> list[Tree]:
    trees: list[Tree] = [{} for _ in range(count)]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if len(parts) > 1:
                file = archive.extractfile(member) if member.isfile() else None
                trees[int(parts[0])]["/".join(parts[1:])] = file.read() if file else None
    return trees
