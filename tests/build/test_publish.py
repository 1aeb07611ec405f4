"""`course publish`: the bundle of the real package with a small lesson."""

import shutil
import zipfile

import pytest

from course.build.layout import Layout
from course.build.leaks import Secrets
from course.build.pipeline import build
from course.build.publish import publish
from course.build.release import files
from course.error import PublishError

from .conftest import LESSON, ROOT

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The checkout's package, recipe and configuration, with the small lesson, built."""
    root = tmp_path_factory.mktemp("publish") / "course"
    skipped = shutil.ignore_patterns("lessons", "__pycache__")
    shutil.copytree(ROOT / "course", root / "course", ignore=skipped)
    shutil.copytree(ROOT / "tests" / "build" / "lessons", root / "course" / "lessons")
    shutil.copytree(ROOT / "autograder", root / "autograder", ignore=shutil.ignore_patterns("work", "gradebook*"))
    shutil.copytree(ROOT / "binder", root / "binder")
    for name in ("pyproject.toml", "README.md", "LICENSE", "nbgrader_config.py"):
        shutil.copy(ROOT / name, root)
    layout = Layout(root)
    assert build(layout, [LESSON]).errors == []
    return layout


@pytest.fixture(scope="module")
def bundle(built):
    """A published bundle."""
    folder = built.root.parent / "bundle"
    publish(built, folder)
    return folder


def test_holds_what_a_student_needs_and_nothing_else(bundle):
    """Release, wheel, recipe and README; the README names the lessons by title."""
    assert sorted(path.name for path in bundle.iterdir() if path.suffix != ".whl") == [
        "LICENSE",
        "README.md",
        "binder",
        "release",
    ]
    assert len(list(bundle.glob("virtualization_course-*.whl"))) == 1
    assert f"[Counting](release/en/{LESSON}/{LESSON}.ipynb)" in (bundle / "README.md").read_text()
    assert (bundle / "binder" / "setup").stat().st_mode & 0o111


def test_wheel_is_the_package_without_the_authors_side(bundle):
    """Students install the checks they see and nothing of lessons, build or autograder."""
    (wheel,) = bundle.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "course/check/exercise.py" in names
    assert not [name for name in names if "autograder" in name or "lessons" in name or "course/build" in name]


def test_leaks_nothing(built, bundle):
    """No solution, hidden test or mutant is in the bundle, the wheel's inside included."""
    assert Secrets.of(built).search(bundle) == []


def test_planted_leak_stops_publishing(built, tmp_path):
    """A mutant in the package stops it, names the file, and leaves nothing behind."""
    planted = built.root / "course" / "check" / "planted.py"
    answers = (built.root / "autograder" / "answers").rglob("*.py")
    largest = max(answers, key=lambda path: path.stat().st_size)
    planted.write_text(largest.read_text())
    try:
        with pytest.raises(PublishError, match=r"planted\.py"):
            publish(built, tmp_path / "bundle")
    finally:
        planted.unlink()
    assert list(tmp_path.iterdir()) == []


def test_second_bundle_has_the_same_bytes(built, bundle, tmp_path):
    """Publishing is a function of the checkout."""
    publish(built, tmp_path / "again")
    assert files(tmp_path / "again") == files(bundle)


def test_full_folder_is_not_overwritten(built, bundle, tmp_path):
    """Somebody's files are safe; an older bundle goes with --force, other folders never."""
    with pytest.raises(PublishError, match="is not empty"):
        publish(built, bundle)
    publish(built, bundle, force=True)
    (tmp_path / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(PublishError, match="is not empty"):
            publish(built, tmp_path, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(PublishError, match="holds the course itself"):
        publish(built, built.root, force=True)


def test_folder_that_cannot_be_made_is_named(built, tmp_path):
    """Below a file no folder can be made: the message names the place."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PublishError, match=r"no folder can be made in .*/file: .*choose another"):
        publish(built, tmp_path / "file" / "bundle")


def test_stale_release_is_not_published(built, tmp_path):
    """What students get is what the texts say now."""
    path = built.release_notebook(LESSON)
    before = path.read_text()
    path.write_text(before.replace("YOUR CODE", "MY CODE"))
    try:
        with pytest.raises(PublishError, match="not made from source/"):
            publish(built, tmp_path / "bundle")
    finally:
        path.write_text(before)
