"""A stand-in that answers as a Proxmox VE of two nodes does, over TLS-less loopback; for views, not for lessons.

proxmoxer speaks HTTPS only, so `connect` hands out a connection whose session speaks HTTP instead.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from proxmoxer import ProxmoxAPI


class Stand:
    """State of the stand-in; tests change and read it.

    Attributes:
        guests: vmid -> node, status, pool.
        asked: (method, path, values) of everything but GET, in order.
        refuse: (status, words, errors) with which the next change is refused.
        lines: lines of every task's log.
        running: whether tasks are still running.
    """

    def __init__(self):
        self.guests = {
            169: {"node": "michael", "status": "stopped", "pool": "students"},
            900: {"node": "trevor", "status": "running"},
        }
        self.asked, self.refuse, self.lines, self.running = [], None, ["starting"], True
        self.tasks = []

    def answer(self, path, query=""):  # noqa: PLR0911, PLR0912 - one per path
        """Return the data of a GET."""
        words = path.split("/")
        node = words[1] if words[0] == "nodes" and len(words) > 1 else ""
        if path == "cluster/status":
            nodes = [{"type": "node", "name": name, "online": 1} for name in ("michael", "trevor")]
            return [{"type": "cluster", "name": "lab", "quorate": 1, "nodes": 2}, *nodes]
        if path == "nodes":
            return [{"node": name, "status": "online"} for name in ("trevor", "michael")]
        if path == "cluster/resources":
            found = [{"type": "node", "node": name, "status": "online"} for name in ("trevor", "michael")]
            found.append({"type": "storage", "storage": "local", "node": "michael", "status": "available"})
            for vmid, guest in self.guests.items():
                found.append({"type": "qemu", "vmid": vmid, "name": f"vm{vmid}", **guest})
            return [one for one in found if query != "type=vm" or one["type"] == "qemu"]
        if path == "cluster/tasks":
            return self.tasks
        if path == "cluster/nextid":
            return "170"
        if words[-1] == "content":
            return [{"volid": "local:iso/counter.iso"}]
        if words[-2:] == ["status", "current"]:
            guest = self.guests[int(words[3])]
            return {"status": guest["status"], "qmpstatus": guest["status"], "maxmem": 64 << 20, "mem": 1 << 20}
        if words[-1] == "config":
            return {"memory": "64", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0", "digest": "x"}
        if words[-1] == "snapshot":
            return [{"name": "before", "vmstate": 1, "snaptime": 1}, {"name": "current", "running": 1}]
        if words[-1] == "log":
            return [{"n": n, "t": line} for n, line in enumerate(self.lines, 1)]
        if words[2:3] == ["tasks"]:
            ended = {"status": "stopped", "exitstatus": "OK"}
            return {"type": "qmstart", "id": "169", **({"status": "running"} if self.running else ended)}
        if words[2:3] == ["storage"]:
            return {"type": "dir", "used": 1 << 30, "total": 4 << 30, "content": "iso,images"}
        return {"pveversion": "pve-manager/8.1", "uptime": 61, "node": node, "memory": {"used": 1, "total": 2}}

    def change(self, method, path, values):
        """Do what a POST, PUT or DELETE asks for; return a task."""
        self.asked.append((method, path, values))
        words = path.split("/")
        if words[-1] == "start":
            self.guests[int(words[3])]["status"] = "running"
        upid = f"UPID:{words[1]}:0000A1:000000A2:65000000:qmstart:169:root@pam:"
        self.tasks = [{"upid": upid, "node": words[1], "type": "qm" + words[-1], "id": "169", "starttime": 5}]
        return upid


@contextlib.contextmanager
def standing():
    """Yield a `Stand` and a connection of proxmoxer to it."""
    stand = Stand()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self._reply(200, "OK", {"data": stand.answer(self._path(), urlsplit(self.path).query)})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            values = {key: value[0] for key, value in parse_qs(body).items()}
            if stand.refuse:
                status, words, errors = stand.refuse
                stand.refuse = None
                self._reply(status, words, {"data": None, "errors": errors})
            else:
                self._reply(200, "OK", {"data": stand.change(self.command, self._path(), values)})

        do_PUT = do_DELETE = do_POST  # noqa: N815 - the library's names

        def _path(self):
            return urlsplit(self.path).path.removeprefix("/api2/json/")

        def _reply(self, status, words, answer):
            data = json.dumps(answer).encode()
            self.send_response(status, words)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    api = ProxmoxAPI("127.0.0.1", user="root@pam", token_name="t", token_value="secret", verify_ssl=True)
    api._store["base_url"] = f"http://127.0.0.1:{server.server_port}/api2/json"
    try:
        yield stand, api
    finally:
        api._store["session"].close()
        server.shutdown()
        thread.join()
        server.server_close()
