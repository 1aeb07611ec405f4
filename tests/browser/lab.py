"""JupyterLab and a browser that looks at it: what the fixtures of this folder hand out."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from course import lab

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / ".artifacts"
TOKEN = "a-token-for-tests"
START_S, RUN_S = 60, 240
# The notebook draws only what is visible unless told otherwise; a test looks at all of it.
TEST_SETTINGS = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
BROWSERS = ("chromium", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # tests may run as root and in containers
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # this machine only
]
KERNEL_READY = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return session && session.isReady && session.session?.kernel?.connectionStatus === 'connected'
        && session.session.kernel.status === 'idle';
}"""
NOTEBOOK = "window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"


def find_browser():
    """Return a Chromium or Chrome that is installed, or None; a snap's wrapper does not run in containers."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None and "/snap/" not in str(Path(path).resolve()):
            return path
    return None


def unused_port():
    """Return a port that the system gives nobody else soon: several workers ask at once."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


class LabServer:
    """JupyterLab as `course lab` starts it, in a home of its own.

    Attributes:
        root: the course folder it shows; tests may write there.
        address: such as ``http://127.0.0.1:8888``.
    """

    def __init__(self, root, home):
        self.root = root
        self.home = home
        self.port = unused_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        settings = self.home / "config" / "labconfig"
        settings.mkdir(parents=True)
        (settings / "default_setting_overrides.json").write_text(json.dumps(TEST_SETTINGS))
        arguments = (f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser", "--ip=127.0.0.1")
        command = lab.command(self.root, port=self.port, browser=False, arguments=arguments)
        with (self.home / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=self._environment(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """End the server, which ends its kernels, which end their machines."""
        for number, patience_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
                return

    def _environment(self):
        private = {f"JUPYTER_{name}_DIR": str(self.home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        private |= {f"JUPYTERLAB_{name}_DIR": str(self.home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        cache = os.environ.get("COURSE_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        key = "COURSE_CACHE" if os.environ.get("COURSE_CACHE") else "XDG_CACHE_HOME"  # guests are made once for all
        home = {"HOME": str(self.home), "IPYTHONDIR": str(self.home / "ipython"), key: str(cache)}
        return lab.environment({**os.environ, **private, **home})

    def _wait(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{self.address}/api/status?token={TOKEN}", timeout=2).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        said = (self.home / "log").read_text()
        raise AssertionError(f"JupyterLab did not answer within {START_S} s; it said:\n{said}")


class LabPage:
    """One tab of a browser with JupyterLab in it; what a person does there, as methods.

    Attributes:
        page: Playwright's page, for everything else.
        complaints: errors on the browser's console.
    """

    def __init__(self, page, server):
        self.page = page
        self.server = server
        self.complaints = []
        page.set_default_timeout(60_000)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    def open(self, path=""):
        """Open a folder or a notebook, relative to the course's root; wait for the kernel of a notebook."""
        page = f"/lab/tree/{path}" if path else "/lab"
        self.page.goto(f"{self.server.address}{page}?token={TOKEN}&reset")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        if path.endswith(".ipynb"):
            self.page.wait_for_selector(".jp-Notebook .jp-Cell")
            self.page.wait_for_function(KERNEL_READY)

    def run_all(self, timeout_s=RUN_S):
        """Run all cells; wait until each has run or one has failed."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        self.page.wait_for_function(
            f"""() => {{
                const cells = {NOTEBOOK}.filter(c => c.model.sharedModel.source.trim());
                return cells.every(c => c.model.executionCount) || {FAILED};
            }}""",
            timeout=timeout_s * 1000,
        )
        self.page.wait_for_function(f"() => ({KERNEL_READY})() || {FAILED}", timeout=timeout_s * 1000)

    def outputs(self):
        """Return the outputs of the code cells: one list of nbformat outputs per cell."""
        return self.page.evaluate(f"() => {NOTEBOOK}.map(c => c.model.outputs.toJSON())")

    def errors(self):
        """Return the exceptions shown in the notebook, as text."""
        found = [output for cell in self.outputs() for output in cell if output["output_type"] == "error"]
        return [re.sub(r"\x1b\[[0-9;]*m", "", f"{e['ename']}: {e['evalue']}") for e in found]

    def validate(self, timeout_s=RUN_S):
        """Press nbgrader's Validate button and return what the dialog says in the end."""
        toolbar = self.page.locator(".jp-NotebookPanel-toolbar")
        toolbar.get_by_text("Validate", exact=True).click()
        dialog = self.page.locator(".jp-Dialog")
        self.page.wait_for_function(
            "() => /pass|fail|error|changed/i.test(document.querySelector('.jp-Dialog')?.innerText || '')",
            timeout=timeout_s * 1000,
        )
        return dialog.first.inner_text()

    def scroll_to(self, selector):
        """Bring the first match into view, as a reader who scrolls does; return it."""
        match = self.page.locator(selector).first
        match.scroll_into_view_if_needed()
        return match

    def screenshot(self, name):
        """Keep a picture under .artifacts/ for people to look at."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


FAILED = f"{NOTEBOOK}.some(c => c.model.outputs.toJSON().some(o => o.output_type === 'error'))"
