"""The lab cluster: how quickly it answers, how much memory it needs, how long a machine's ways take.

``python -m tests.bench.cluster`` prints

- a read of the API against an aiohttp "hello" over TLS of the same kind, asked in turn (target: at most 3 times);
- the memory of the three idle nodes, each page counted once (target: at most 150 MB together);
- the time from nothing to the first answer of all nodes;
- starting a machine of 64 MB, a snapshot with its RAM, and moving it live to another node.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from course.cluster.lab import Cluster

READS = 1500
TARGET_RATIO, TARGET_MB = 3.0, 150
PATHS = ("/api2/json/version", "/api2/json/nodes", "/api2/json/cluster/resources")
# The least that answers over TLS: what else costs time is ours.
HELLO = """
import ssl, sys
from aiohttp import web
async def hello(request):
    return web.json_response({"data": "hello"})
application = web.Application()
application.router.add_get("/", hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
web.run_app(application, sock=listener, ssl_context=context, access_log=None, print=None)
"""


@contextlib.contextmanager
def hello(lab: Cluster) -> Iterator[int]:
    """Run the "hello" with a node's certificate; yields its port."""
    folder = lab.state / "pve" / "nodes" / "franklin"
    command = [sys.executable, "-c", HELLO, str(folder / "pve-ssl.pem"), str(folder / "pve-ssl.key")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


class Reader:
    """One connection that stays, as proxmoxer's does."""

    def __init__(self, lab: Cluster, port: int, headers: dict[str, str]) -> None:
        context = ssl.create_default_context(cafile=lab.ca)
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
        self._headers = headers

    def read(self, path: str) -> float:
        """Read once; return how long it took, in seconds."""
        start = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status == http.client.OK, (path, answer.status, answer.reason)
        return time.perf_counter() - start


def latencies(lab: Cluster, reads: int = READS) -> dict[str, tuple[float, float]]:
    """Return for each path the median of ours and of the hello, in seconds, asked in turn."""
    api = lab.api()
    store = api._store["session"].auth
    headers = {"Cookie": f"PVEAuthCookie={store.pve_auth_ticket}"}
    found = {}
    with hello(lab) as port:
        theirs, ours = Reader(lab, port, {}), Reader(lab, lab.address()[1], headers)
        for path in PATHS:
            pairs = [(ours.read(path), theirs.read("/")) for _ in range(reads)]
            found[path] = (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
    return found


def memory_mb(lab: Cluster) -> float:
    """Return the proportional memory of the three nodes, in MB."""
    return sum(psutil.Process(lab.pid(node)).memory_full_info().pss for node in lab.nodes) / 1e6


def await_task(api: Any, upid: str) -> None:
    """Wait for a task's good end."""
    node = upid.split(":")[1]
    while (found := api.nodes(node).tasks(upid).status.get())["status"] == "running":
        time.sleep(0.01)
    assert found["exitstatus"] == "OK", found


def timed(action: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def machine(lab: Cluster) -> dict[str, float]:
    """Return how long a machine's start, snapshot and live migration take, task included, in seconds."""
    api = lab.api()
    vmid = int(api.cluster.nextid.get())
    here, there = api.nodes("michael").qemu, api.nodes("trevor").qemu
    await_task(api, here.post(vmid=vmid, memory=64, scsi0="shared:1,format=qcow2", kvm=0))
    try:
        return {
            "start": timed(lambda: await_task(api, here(vmid).status.start.post())),
            "snapshot with RAM": timed(lambda: await_task(api, here(vmid).snapshot.post(snapname="bench", vmstate=1))),
            "live migration": timed(lambda: await_task(api, here(vmid).migrate.post(target="trevor", online=1))),
        }
    finally:
        place = next(entry for entry in api.cluster.resources.get(type="vm") if int(entry["vmid"]) == vmid)
        own = there if place["node"] == "trevor" else here
        await_task(api, own(vmid).status.stop.post())
        await_task(api, own(vmid).delete())


def main() -> None:
    """Measure and print."""
    write = sys.stdout.write
    start = time.perf_counter()
    with Cluster(auth_delay_s=0) as lab:
        lab.api().version.get()
        write(f"from nothing to the first answer: {time.perf_counter() - start:.2f} s\n")
        time.sleep(3)
        write(f"three idle nodes: {memory_mb(lab):.0f} MB together (target: at most {TARGET_MB})\n")
        for path, (ours, theirs) in latencies(lab).items():
            ratio = ours / theirs
            write(
                f"{path:32} {ours * 1e6:6.0f} us, hello {theirs * 1e6:6.0f} us: {ratio:.2f} times "
                f"(target: at most {TARGET_RATIO:.0f})\n"
            )
        for what, seconds in machine(lab).items():
            write(f"{what:32} {seconds:6.2f} s\n")


if __name__ == "__main__":
    main()
