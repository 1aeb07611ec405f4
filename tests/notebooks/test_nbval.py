"""Nbval over built notebooks, as `make test` runs it: it accepts what is volatile and refuses what is wrong."""

import os
import subprocess
import sys

import pytest

from course.build.pipeline import build
from tests.build.conftest import LESSON, ROOT, small_course

pytestmark = pytest.mark.pipeline

UPDATES = """```{code-cell}
from IPython.display import display

shown = display("booting", display_id="vm")
for step in range(3):
    shown.update(f"step {step}")
```

```{code-cell}
from tqdm.auto import tqdm

for _ in tqdm(range(3)):
    pass
```

A program refuses"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A built course whose lesson updates displays and prints volatile text."""
    layout = small_course(tmp_path_factory.mktemp("nbval") / "course")
    path = layout.text(LESSON)
    path.write_text(path.read_text().replace("A program refuses", UPDATES))
    assert build(layout, [LESSON]).errors == []
    return layout


def nbval(layout):
    """Run nbval on the source of a course as `make test` does."""
    command = [sys.executable, "-m", "pytest", "--rootdir", layout.root, "-c", os.devnull, "-W", "error"]
    command += ["-p", "tests.fast_import", "-p", "tests.notebooks.updates", "--nbval", "-p", "no:cacheprovider"]
    command += ["--nbval-sanitize-with", ROOT / "tests" / "notebooks" / "sanitize.cfg", "--nbval-cell-timeout", "300"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, layout.source], cwd=layout.root, capture_output=True, text=True, check=False, env=environment
    )


def test_built_notebook_passes(layout):
    """Pids, durations, addresses, tracebacks, progress bars and updated displays are no difference."""
    done = nbval(layout)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout


def test_wrong_output_fails(layout):
    """An output that says something else is a failure of its cell."""
    path = layout.source_notebook(LESSON)
    before = path.read_text()
    assert "step 2" in before
    path.write_text(before.replace("'step 2'", "'step 1'"))
    try:
        done = nbval(layout)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert "1 failed, 8 passed" in done.stdout
