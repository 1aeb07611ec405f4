"""`course publish DIR`: what students get, as a folder that can be their repository, their download or their Binder.

::

    DIR/README.md                    how to start, which lessons there are
    DIR/release/en/NN-slug/…         the notebooks
    DIR/*.whl                        the package, without lessons and authors' tools
    DIR/binder/                      setup, system packages, versions, Dockerfile

The bundle is made next to DIR, searched for leaks, and only then put in its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..error import PublishError
from .audit import audit
from .expand import load
from .layout import Layout
from .leaks import Secrets

_RECIPE = ("setup", "apt.txt", "constraints.txt", "Dockerfile")
_README = Path(__file__).with_name("student_readme.md")


def publish(layout: Layout, folder: Path, *, force: bool = False) -> None:
    """Make the student bundle in `folder`.

    Args:
        layout: the course; its releases have to be up to date.
        folder: empty or not there yet.
        force: replace what `folder` holds, unless it looks like something else than a bundle.

    Raises:
        PublishError: `folder` is not empty or cannot be made, the release is stale, the wheel cannot be built, or
            something leaks.
    """
    folder = folder.resolve()
    _refuse_folder(layout, folder, force)
    lessons = layout.all_lessons()
    _refuse_stale(layout, lessons)
    with _scratch_beside(folder) as scratch:
        made = Path(scratch) / "bundle"
        _fill(layout, lessons, made)
        refuse_leaks(layout, made)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def refuse_leaks(layout: Layout, folder: Path) -> None:
    """Search a bundle for solutions, hidden tests and answers.

    Raises:
        PublishError: names each file and what must not be in it.
    """
    if leaks := Secrets.of(layout).search(folder):
        raise PublishError("nothing was published:\n" + "\n".join(str(leak) for leak in leaks[:20]))


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the package that students install, without a network.

    Raises:
        PublishError: with what the build said.
    """
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    # The same source gives the same bytes: dates inside the wheel are fixed.
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1577836800"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise PublishError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}".strip())
    return wheels[0]


def _scratch_beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent)
    except OSError as error:
        raise PublishError(f"no folder can be made in {folder.parent}: {error.strerror}; choose another one") from error


def _refuse_folder(layout: Layout, folder: Path, force: bool) -> None:
    if folder == layout.root or folder in layout.root.parents:
        raise PublishError(f"{folder} holds the course itself; choose a folder of its own, such as ../course-students")
    if folder.exists() and not folder.is_dir():
        raise PublishError(f"{folder} is a file; choose a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not force:
        raise PublishError(f"{folder} is not empty; choose another folder, or --force to replace a bundle")
    if not (folder / "release").is_dir() or not list(folder.glob("*.whl")):
        raise PublishError(f"{folder} is not empty and no student bundle; --force replaces only a bundle")


def _refuse_stale(layout: Layout, lessons: Sequence[str]) -> None:
    findings = audit(layout, lessons, everything=True)
    if not lessons:
        raise PublishError("there are no lessons to publish in course/lessons/")
    if findings:
        raise PublishError("the release is not what the texts give:\n" + "\n".join(map(str, findings[:20])))


def _fill(layout: Layout, lessons: Sequence[str], made: Path) -> None:
    skipped = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
    for language in sorted(path for path in (layout.root / "release").iterdir() if path.is_dir()):
        shutil.copytree(language, made / "release" / language.name, ignore=skipped)
    (made / "binder").mkdir()
    for name in _RECIPE:
        source = layout.root / "binder" / name
        if not source.is_file():
            raise PublishError(f"binder/{name} is missing; the bundle needs it to install itself")
        shutil.copy2(source, made / "binder" / name)
    with tempfile.TemporaryDirectory(prefix="course-wheel-") as scratch:
        shutil.copy(build_wheel(layout.root, Path(scratch)), made)
    shutil.copy(layout.root / "LICENSE", made / "LICENSE")
    titles = (f"- [{load(layout.text(lesson)).title}](release/en/{lesson}/{lesson}.ipynb)" for lesson in lessons)
    text = _README.read_text(encoding="utf-8").replace("{lessons}", "\n".join(titles))
    (made / "README.md").write_text(text, encoding="utf-8")
