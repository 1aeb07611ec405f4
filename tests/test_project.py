"""The repository as a whole: what README promises, what must not be in any file, what must agree."""

import importlib
import inspect
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import course

ROOT = Path(__file__).resolve().parents[1]
# /home/jovyan is Binder's, anna is nobody; /root without a hidden folder may be a guest's.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:root/\.|(?:work|home/(?!jovyan\b|anna\b)\w+|Users/\w+)/[\w.])")


def committed():
    """Return all text files of the repository that are not generated, also those not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    paths = [ROOT / name for name in done.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".bin", ".gz", ".xz", ".zst")]


def test_no_file_names_a_place_on_somebodys_machine():
    """Home folders and work folders of one machine have no place in a file (notebooks with outputs included)."""
    found = []
    for path in committed():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATHS.finditer(text)]
    assert found == []


def test_readme_shows_the_first_success_by_line_20():
    """A reader who stops after twenty lines knows the two commands."""
    lines = (ROOT / "README.md").read_text().splitlines()[:20]
    assert [line.split()[:2] for line in lines if line.startswith("make ")] == [["make", "lab"], ["make", "test"]]


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", *sorted(p.name for p in ROOT.glob("course/decisions/*.md"))]
)
def test_links_lead_somewhere(document):
    """Every relative link and picture of a document exists."""
    path = ROOT / document if (ROOT / document).exists() else ROOT / "course" / "decisions" / document
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert missing == []


def test_pictures_of_the_readme_say_what_is_to_be_seen():
    """Each picture has an alternative text that is a sentence, not a file name."""
    alternatives = re.findall(r"!\[([^\]]*)\]\(", (ROOT / "README.md").read_text())
    assert alternatives
    assert [text for text in alternatives if len(text.split()) < 6] == []


def test_make_explains_every_target():
    """`make` alone lists each public target with a sentence and runs nothing."""
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\w+) +(\S.*)$", done.stdout, flags=re.MULTILINE)
    assert {"lab", "test", "build", "lint", "bench", "clean"} <= {name for name, _ in listed}


def test_benchmarks_run_without_arguments():
    """`make bench` calls each one's `main` with nothing."""
    names = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[a-z]*.py"))
    mains = {name: importlib.import_module(f"tests.bench.{name}").main for name in names}
    for main in mains.values():
        inspect.signature(main).bind()
    assert {"boot", "build", "qmp"} <= set(names)


def test_versions_agree():
    """The package, its metadata and the citation name one version; the changelog has a place for the next."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)[1]
    assert (course.__version__, cited) == (declared, declared)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_changelog_names_every_lesson():
    """Who teaches reads there which lessons there are, by number and title."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    texts = sorted((ROOT / "course" / "lessons").glob("[0-9]*.md"))
    titles = {path.name[:2]: re.search(r"^title: *(.+)$", path.read_text(), re.MULTILINE) for path in texts}
    assert [n for n, title in titles.items() if title and f"Lesson {n}, *{title[1]}*" not in changelog] == []


def test_licence_holds_both_texts():
    """The BSD text is whole, and the texts' licence is named with its address."""
    text = (ROOT / "LICENSE").read_text()
    for part in (
        "Redistributions in binary form",
        "Neither the name",
        "PROVIDED BY THE COPYRIGHT HOLDERS",
        "POSSIBILITY OF",
    ):
        assert part in text
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in text


@pytest.mark.parametrize("script", [".ci/run", "binder/setup", "binder/rehearse"])
def test_scripts_can_be_run(script):
    """Scripts are executable and begin with their interpreter."""
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!")


def test_ci_calls_what_the_readme_says():
    """CI starts from nothing, stops at the first failure and uses the commands that people use, tests last."""
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert [line for line in text.splitlines() if line.startswith("make ")] == ["make lint", "make test"]
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_settings_for_jupyter_are_json():
    """The settings that JupyterLab is started with can be read."""
    import json

    files = sorted((ROOT / "course" / "jupyter").rglob("*.json"))
    assert len(files) >= 3
    for path in files:
        assert isinstance(json.loads(path.read_text()), dict)
