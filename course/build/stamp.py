"""What was built last from what, by content: lets a build with nothing to do end before anything heavy is imported.

A stamp is a digest of everything that a lesson's notebooks are made from *and* of the notebooks themselves, so it
fails when a text, a figure, the configuration, this package or a generated file has changed by whatever hand. Stamps
are local (``.stamps/``, ignored by git): without one, the committed notebooks are compared with the text as `audit`
does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from .layout import Layout

_CHECKPOINTS = ".ipynb_checkpoints"


class Stamps:
    """The stamps of one checkout.

    Attributes:
        known: digest by lesson, as last saved.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads(layout.stamps.read_text(encoding="utf-8"))
            self.known = dict(loaded) if isinstance(loaded, dict) else {}

    def fresh(self, lesson: str) -> bool:
        """True when nothing that concerns `lesson` has changed since it was stamped."""
        return self.known.get(self._key(lesson)) == self.digest(lesson)

    def stamp(self, lesson: str) -> None:
        """Remember that `lesson` is built."""
        self.known[self._key(lesson)] = self.digest(lesson)

    def save(self) -> None:
        """Write the stamps, whole or not at all."""
        path = self.layout.stamps
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(self.known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        scratch.replace(path)

    def digest(self, lesson: str) -> str:
        """Digest of the text, its figures, the configuration, this package, and the notebooks made from them."""
        layout = self.layout
        total = hashlib.sha256(self._common.encode())
        for path in (layout.text(lesson), *_files(layout.source / lesson), *_files(layout.release / lesson)):
            total.update(f"\0{path.relative_to(layout.root)}\0".encode())
            total.update(path.read_bytes() if path.exists() else b"missing")
        return total.hexdigest()

    def _key(self, lesson: str) -> str:
        return f"{self.layout.language}/{lesson}"

    @functools.cached_property
    def _common(self) -> str:
        """Digest of what all lessons share."""
        total = hashlib.sha256()
        own = sorted(Path(__file__).parent.glob("*.py"))
        for path in (*own, self.layout.config, self.layout.sanitize, *_files(self.layout.lessons / "figures")):
            total.update(path.name.encode())
            total.update(path.read_bytes() if path.exists() else b"missing")
        return total.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != _CHECKPOINTS)
        yield from (Path(parent) / name for name in sorted(names))
