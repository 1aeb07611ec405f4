"""Jupyter's way to a box: nbclient runs notebooks in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory
from nbformat.v4 import new_code_cell, new_notebook

from autograder import sandbox
from autograder.sandbox import provisioner


@pytest.fixture(scope="module")
def boxed() -> Iterator[None]:
    """Kernels of this module are in boxes."""
    if sandbox.probe().level is sandbox.Isolation.NONE:
        pytest.skip(f"kernels cannot be shut in here: {sandbox.probe()}")
    sandbox.register()
    provisioner.zygote()
    yield
    sandbox.unregister()
    provisioner.close()


def _client(*sources: str, **options: Any) -> nbclient.NotebookClient:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    work = tempfile.mkdtemp(prefix="t-")
    resources = {"metadata": {"path": work}}
    return nbclient.NotebookClient(
        notebook, kernel_name="python3", resources=resources, allow_errors=True, startup_timeout=120, **options
    )


def _text(client: nbclient.NotebookClient, number: int) -> str:
    (output,) = client.nb.cells[number].outputs
    return str(output.get("text") or output.get("ename") or output["data"]["text/plain"])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of this test alone."""
    path = Path(tempfile.mkdtemp(prefix="t-"))
    path.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path)


def test_a_notebook_runs_in_a_box(boxed, place):
    """Cells share a kernel that is not root and sees no home of the grader's; nothing is left of it."""
    client = _client("import os\nname = os.environ['USER']", "name, os.getuid() != 0", timeout=120)
    client.execute()
    assert _text(client, 1) == "('student', True)"
    assert list(place.glob("run-*")) == []


def test_a_cell_that_takes_too_long_is_interrupted(boxed, place):
    """The interrupt reaches the kernel; the next cell runs."""
    client = _client(
        "x = 6",
        "while True: pass",
        "x * 7",
        timeout_func=lambda cell: 2 if "while" in cell.source else 250,
        interrupt_on_timeout=True,
    )
    client.execute()
    assert _text(client, 1) == "KeyboardInterrupt"
    assert _text(client, 2) == "42"


def test_a_kernel_that_ends_itself_is_noticed(boxed):
    """Nbclient is told at once that there is no kernel any more."""
    client = _client("import os; os._exit(3)", timeout=120)
    with pytest.raises(nbclient.exceptions.DeadKernelError):
        client.execute()


def test_a_kernel_can_be_restarted(boxed, tmp_path):
    """A manager that restarts its kernel gets a new box at the same address, and its clients go on."""
    from jupyter_client import KernelManager

    # As nbgrader_config.py has it, for kernels without boxes.
    manager = KernelManager(kernel_name="python3", transport_encryption="auto")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    first = manager.provisioner.box
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=120)
    assert manager.provisioner.box is not first
    assert not first.alive()
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_registering_can_be_undone():
    """Other kernels of the process are not touched afterwards."""
    sandbox.register()
    assert KernelProvisionerFactory.instance().default_provisioner_name == provisioner.NAME
    sandbox.unregister()
    assert KernelProvisionerFactory.instance().default_provisioner_name == "local-provisioner"
