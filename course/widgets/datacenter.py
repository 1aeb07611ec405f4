"""The datacenter in a notebook: servers, guests, tasks, and the buttons that a beginner looks for.

::

    from proxmoxer import ProxmoxAPI
    Datacenter(ProxmoxAPI(host, user=…, token_name=…, token_value=…))

It needs proxmoxer's connection and nothing else, so it shows the lab cluster and a real one alike. A background thread,
started when the view is displayed, asks the cluster once a second and does what the buttons say; the browser never
speaks with the cluster. Whatever the cluster refuses stands in the status line, in its own words.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from . import clusterview
from .view import View, script, style

if TYPE_CHECKING:
    from proxmoxer import ProxmoxAPI

    from ..cluster.terminal import Terminal

_INTERVAL_S, _INTERVAL_WITHOUT_ANSWER_S = 1.0, 5.0
_TASKS, _LOG_LINES, _CONSOLE_CHARACTERS = 30, 500, 8000
Message = Mapping[str, Any]


class Datacenter(View):
    """Show a Proxmox VE cluster and let its guests be driven.

    The tree has the arrow keys, Home and End; everything else is buttons, forms and tables in the order of Tab.

    Args:
        api: a connection of proxmoxer.
        pool: when given, buttons act on guests of this pool only, and what is created belongs to it.
        interval_s: seconds between two looks at the cluster.

    Attributes:
        tree: the lines of the server tree.
        selected: id of the selected line, such as ``"qemu/169"``.
        said: the status line.
    """

    _esm = script("datacenter")
    _css = style("datacenter")
    tree: Any = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode("datacenter").tag(sync=True)
    detail: Any = traitlets.Dict().tag(sync=True)
    tasks: Any = traitlets.List().tag(sync=True)
    log: Any = traitlets.Dict().tag(sync=True)
    console: Any = traitlets.Dict().tag(sync=True)
    choices: Any = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode("").tag(sync=True)

    def __init__(self, api: ProxmoxAPI, *, pool: str = "", interval_s: float = _INTERVAL_S) -> None:
        super().__init__(tree=[], selected="datacenter", said="")
        self._api, self._pool, self._interval_s = api, pool, interval_s
        self._wanted: queue.Queue[Message | None] = queue.Queue()
        self._worker: threading.Thread | None = None
        self._watched = ""
        self._status: list[Any] = []
        self._terminal: Terminal | None = None
        self._ended = False
        self.on_msg(lambda _, message, __: self._wanted.put(message))

    def __str__(self) -> str:
        return clusterview.as_text(self.tree)

    def static(self) -> dict[str, str]:
        """The tree as it is when the view is displayed."""
        return {"text/html": clusterview.as_html(self.tree)}

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Look once, so that the text says something, then go on looking in the background."""
        self.refresh()
        bundle = super()._repr_mimebundle_(**kwargs)
        if self._worker is None and not self._ended:
            self._worker = threading.Thread(target=self._work, name="datacenter view", daemon=True)
            self._worker.start()
        return bundle

    def close(self) -> None:
        """End the background thread and the view."""
        self._ended = True
        self._wanted.put(None)
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(10)
        self._hang_up()
        super().close()

    # ─── looking ─────────────────────────────────────────────────────────────

    def refresh(self) -> bool:
        """Ask the cluster once for all that is shown; returns whether it answered."""
        try:
            self._status = self._api.cluster.status.get()
            self.tree = clusterview.tree(self._api.cluster.resources.get(), self._status)
            self.tasks = clusterview.tasks(self._api.cluster.tasks.get())[:_TASKS]
            self.detail = self._look_at(self._line())
            self._look_at_log()
            self._look_at_console()
        except Exception as error:  # what the cluster or the way to it says belongs in the view, not in a thread's end
            self.said = clusterview.words(error)
            return False
        if self.said.startswith("no answer"):
            self.said = "the cluster answers again"
        return True

    def _line(self, key: str = "") -> Any:
        """The tree's line of this id, by default the selected one; None when it is gone."""
        return next((line for line in self.tree if line["id"] == (key or self.selected)), None)

    def _look_at(self, line: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {"title": "nothing is selected", "summary": [], "hardware": [], "snapshots": []}
        if line is not None:
            shown |= {"title": line["name"], "kind": line["kind"], **self._rows(line)}
        return {**shown, "buttons": clusterview.buttons(line, allowed=self._allowed(line))}

    def _rows(self, line: Any) -> dict[str, Any]:
        if line["kind"] == "datacenter":
            return {"summary": clusterview.summary_of_cluster(self._status)}
        if line["status"] in ("offline", "unknown") or line["status"].startswith("unknown"):
            return {"summary": [["status", line["status"]]]}
        node = self._api.nodes(line["node"])
        if line["kind"] == "node":
            return {"summary": clusterview.summary_of_node(node.status.get())}
        if line["kind"] == "storage":
            return {"summary": clusterview.summary_of_storage(node.storage(line["storage"]).status.get())}
        guest = node(f"{line['kind']}/{line['vmid']}")
        return {
            "summary": clusterview.summary_of_guest(guest.status.current.get(), line),
            "hardware": clusterview.hardware(guest.config.get()),
            "snapshots": clusterview.snapshots(guest.snapshot.get()),
        }

    def _allowed(self, line: Any) -> bool:
        return not self._pool or (line is not None and line.get("pool") == self._pool)

    def _look_at_log(self) -> None:
        if not self._watched:
            return
        task = self._api.nodes(self._watched.split(":")[1]).tasks(self._watched)
        status = task.status.get()
        lines = [str(line["t"]) for line in task.log.get(limit=_LOG_LINES)]
        running = status["status"] == "running"
        end = "running" if running else str(status.get("exitstatus", "unknown"))
        what = f"{status.get('type', 'task')} {status.get('id') or ''}".strip()
        fresh = {"upid": self._watched, "title": what, "lines": lines, "status": end}
        if fresh != self.log:
            self.log = fresh
            self.said = f"{what}: {end}"

    def _look_at_console(self) -> None:
        if self._terminal is not None:
            text = self._terminal.text[-_CONSOLE_CHARACTERS:]
            self.console = {**self.console, "text": text, "open": not self._terminal.closed}

    # ─── doing ───────────────────────────────────────────────────────────────

    def _work(self) -> None:
        pause_s = self._interval_s
        while True:
            with contextlib.suppress(queue.Empty):
                wanted = self._wanted.get(timeout=pause_s)
                if wanted is None:
                    return
                self.do(wanted)
            pause_s = self._interval_s if self.refresh() else _INTERVAL_WITHOUT_ANSWER_S

    def do(self, wanted: Message) -> None:
        """Do what a button says; a refusal goes to the status line.

        Args:
            wanted: ``do``, and what the button's form adds: see the methods below.
        """
        actions: dict[str, Callable[[Message], Any]] = {
            "select": self._select,
            "create": self._create,
            "start": lambda wanted: self._guest().status.start.post(),
            "shutdown": lambda wanted: self._guest().status.shutdown.post(),
            "stop": lambda wanted: self._guest().status.stop.post(),
            "migrate": self._migrate,
            "snapshot": self._snapshot,
            "rollback": lambda wanted: self._guest().snapshot(wanted["name"]).rollback.post(),
            "delsnapshot": lambda wanted: self._guest().snapshot(wanted["name"]).delete(),
            "console": lambda wanted: self._open_console(),
            "type": self._type,
            "watch": lambda wanted: wanted["upid"],
            "choices": lambda wanted: self._find_choices(),
        }
        try:
            done = actions[wanted["do"]](wanted)
        except Exception as error:  # see refresh
            self.said = clusterview.words(error) if hasattr(error, "status_code") else f"✗ {error}"
            return
        if isinstance(done, str) and done.startswith("UPID:"):
            self._watched = done
            self.said = f"{wanted['do']}: the cluster has accepted it as a task"

    def _guest(self) -> Any:
        line = self._line()
        if line is None or "vmid" not in line:
            raise ValueError("select a guest in the tree first")
        if not self._allowed(line):
            raise ValueError(f"{line['name']} is not in the pool {self._pool}: it is left alone")
        return self._api.nodes(line["node"])(f"{line['kind']}/{line['vmid']}")

    def _select(self, wanted: Message) -> None:
        self._hang_up()
        self.selected = wanted["id"]
        self.console = {}

    def _create(self, wanted: Message) -> str:
        values = {
            "vmid": int(wanted["vmid"]),
            "name": wanted.get("name") or None,
            "memory": int(wanted["memory"]),
            "serial0": "socket",
            "net0": "virtio,bridge=vmbr0",
            "pool": self._pool or None,
        }
        if wanted.get("iso"):
            values["ide2"] = f"{wanted['iso']},media=cdrom"
        if wanted.get("disk"):
            values["scsi0"] = wanted["disk"]
        node = self._api.nodes(wanted["node"])
        self.selected = f"qemu/{values['vmid']}"
        return str(node.qemu.post(**values))

    def _migrate(self, wanted: Message) -> str:
        line = self._line()
        online = 1 if line and line["status"].startswith("running") else None
        return str(self._guest().migrate.post(target=wanted["target"], online=online))

    def _snapshot(self, wanted: Message) -> str:
        return str(self._guest().snapshot.post(snapname=wanted["name"], vmstate=1 if wanted.get("ram") else 0))

    def _find_choices(self) -> None:
        """What the forms offer: nodes, CD images, the next free VMID."""
        nodes = [line["node"] for line in self.tree if line["kind"] == "node" and line["status"] == "online"]
        images: dict[str, str] = {}
        for line in self.tree:
            if line["kind"] == "storage" and line["node"] in nodes:
                with contextlib.suppress(Exception):  # a storage that cannot be read offers nothing
                    storage = self._api.nodes(line["node"]).storage(line["storage"])
                    images |= {found["volid"]: line["node"] for found in storage.content.get(content="iso")}
        self.choices = {"nodes": nodes, "isos": sorted(images), "vmid": str(self._api.cluster.nextid.get())}

    def _open_console(self) -> None:
        from ..cluster.terminal import Terminal  # noqa: PLC0415 - only when somebody looks

        self._guest()
        line = self._line()
        self._hang_up()
        self._terminal = Terminal(self._api, line["node"], line["vmid"], line["kind"])
        try:
            self._terminal.open()
        except Exception:
            self._terminal = None
            raise
        self.console = {"title": line["name"], "text": "", "open": True}
        self.said = f"console of {line['name']}: open"

    def _type(self, wanted: Message) -> None:
        if self._terminal is None:
            raise ValueError("open the console first")
        self._terminal.write(wanted["text"] + "\r")

    def _hang_up(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()
