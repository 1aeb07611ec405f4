"""The lab cluster of the checks: three nodes of their own, and a witness for everything that an answer does to them.

It runs outside the box that an answer is judged in (`course.check.outside`), and starts once for all checks of a
process. An answer gets the address of a relay, an API token and the authority's certificate; the check asks the
service for what truly happened: requests and answers, QEMU processes, the guests' memory, disks and frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outside import Offer, service
from .relay import relay
from .wire import send_frames

if TYPE_CHECKING:
    from ...cluster.lab import Cluster

TASK_S = 180.0
ISO, LOCAL_ISO = "shared:iso/counter.iso", "local:iso/counter.iso"
NODES = ("franklin", "trevor", "michael")
# What a person would wait for is short here; a busy host must not look like a dead node.
_SETTINGS: dict[str, Any] = {
    "auth_delay_s": 0.0,
    "status_every_s": 0.5,
    "ha_tick_s": 0.2,
    "fence_delay_s": 0.5,
    "reboot_s": -1.0,
}


@service
@contextlib.contextmanager
def laboratory() -> Iterator[Offer]:
    """Start the cluster, a token for the answers, and a relay that writes down what they ask."""
    from ...cluster.lab import Cluster  # noqa: PLC0415 - a thousand modules

    with Cluster(**_SETTINGS) as lab:
        place_counter(lab)
        own = lab.state / "pve" / "nodes" / NODES[0]
        with relay(own / "pve-ssl.pem", own / "pve-ssl.key", lab.address(NODES[0])) as listening:
            witness = _Witness(lab, listening)
            yield Offer(
                [listening.address],
                told={"token": witness.token(), "authority": lab.ca_path.read_text()},
                questions=witness.questions(),
            )


def place_counter(lab: Cluster) -> None:
    """Put the CD that counts where the storages keep their images."""
    from ...guest import bootcounter  # noqa: PLC0415

    for storage in (lab.state / "shared", *(lab.state / "nodes" / node / "vz" for node in NODES)):
        folder = storage / "template" / "iso"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bootcounter.cd(), folder / "counter.iso")


class _Witness:
    """What the service can be asked."""

    def __init__(self, lab: Cluster, listening: Any) -> None:
        self.lab, self.relay = lab, listening
        self._apis: dict[str, Any] = {}

    def questions(self) -> dict[str, Callable[..., Any]]:
        named = (self.call, self.run, self.processes, self.memory, self.content, self.fill, self.frames, self.through)
        more = {"listen": self.relay.listen, "heard": self.relay.heard, "power": self.power, "plug": self.plug}
        return {function.__name__: function for function in named} | more

    def api(self, node: str = "") -> Any:
        """A connection as root of a node that is on."""
        name = node or next(name for name in NODES if self.lab.pid(name))
        if name not in self._apis:
            self._apis[name] = self.lab.api(node=name)
        return self._apis[name]

    def token(self) -> str:
        made = self.api().access.users("root@pam").token("lesson").post(privsep=0)
        return str(made["value"])

    def call(self, method: str, path: str, values: dict[str, Any], node: str = "") -> dict[str, Any]:
        """One request as root: ``{"data": …}``, or ``{"status": …, "words": …}`` when it is refused."""
        from proxmoxer import ResourceException  # noqa: PLC0415

        try:
            return {"data": getattr(self.api(node)(path), method.lower())(**values)}
        except ResourceException as error:
            return {"status": error.status_code, "words": str(error.content)}

    def run(self, method: str, path: str, values: dict[str, Any]) -> dict[str, Any]:
        """A request that makes a task, waited for: adds ``exitstatus`` and ``log``."""
        told = self.call(method, path, values)
        upid = told.get("data")
        if not isinstance(upid, str) or not upid.startswith("UPID:"):
            return told
        task = self.api().nodes(upid.split(":")[1]).tasks(upid)
        end = time.monotonic() + TASK_S
        while (status := task.status.get())["status"] != "stopped" and time.monotonic() < end:
            time.sleep(0.02)
        log = [line["t"] for line in task.log.get(limit=200)]
        return {"data": upid, "exitstatus": status.get("exitstatus", "still running"), "log": log}

    def processes(self, vmid: int) -> list[dict[str, Any]]:
        """QEMU processes of a guest of this lab: pid, node, -m in MiB, state."""
        wanted, found = f"qemu-server/{vmid}.qmp", []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                line = " ".join(words)
                if wanted in line and str(self.lab.run) in line and "qemu" in words[0]:
                    memory = re.search(r"size=(\d+)|^(\d+)", words[words.index("-m") + 1])
                    mib = int(next(filter(None, memory.groups()))) if memory else 0
                    node = next(name for name in NODES if f"{self.lab.run}/{name}/" in line)
                    found.append({"pid": int(entry.name), "node": node, "memory_mib": mib})
        return found

    def memory(self, node: str, vmid: int) -> list[int]:
        """The guest's two numbers in RAM: what it has counted to, and which life it is."""
        said = self.api().nodes(node).qemu(vmid).monitor.post(command="xp /2xw 0x500")
        words = re.findall(r"0x([0-9a-f]{8})", str(said).split(":", 1)[-1])
        return [int(word, 16) for word in words[:2]]

    def _file(self, volid: str) -> Path:
        """The file of a volume of the shared storage."""
        storage, _, name = volid.partition(":")
        if storage != "shared":
            raise ValueError(f"{volid} is not on the storage shared")
        return self.lab.state / "shared" / "images" / name

    def fill(self, volid: str, seed: int) -> None:
        """Write noise on a disk that nobody uses: 64 KiB at its beginning and at 1 MiB."""
        from ...machine import disk  # noqa: PLC0415

        file = self._file(volid)
        known = disk.info(file)
        with tempfile.TemporaryDirectory(prefix="check-") as folder:
            raw = Path(folder) / "raw"
            with raw.open("wb") as image:
                image.truncate(known["virtual-size"])
                for part in range(2):
                    image.seek(part << 20)
                    image.write(noise(seed, part))
            disk.convert(raw, file, format=known["format"], source_format="raw", overwrite=True)

    def content(self, volid: str) -> str:
        """A digest of a disk's contents, as the guest sees them, whatever the format."""
        from ...machine import disk  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="check-") as folder:
            raw = disk.convert(self._file(volid), Path(folder) / "raw", format="raw")
            return hashlib.sha256(raw.read_bytes()).hexdigest()

    def frames(self, node: str, vmid: int, frames: list[bytes]) -> None:
        """Send Ethernet frames as if the first network card of a guest had sent them."""
        send_frames(Path(self.lab.run) / node / "net" / f"{vmid}.net0", frames)

    def through(self, node: str) -> None:
        """From now on the relay leads to this node."""
        self.relay.upstream = self.lab.address(node)

    def power(self, node: str, on: bool) -> None:
        """Switch a node on or off, and say when it has happened."""
        if on:
            self.lab.power_on(node)
        else:
            self.lab.power_off(node)
            self._apis.pop(node, None)

    def plug(self, node: str, plugged: bool) -> None:
        """Put a node's network cable in, or pull it."""
        (self.lab.reconnect if plugged else self.lab.isolate)(node)


def noise(seed: int, part: int) -> bytes:
    """64 KiB that no disk holds by chance."""
    return b"".join(hashlib.sha256(f"{seed}/{part}/{n}".encode()).digest() for n in range(2048))
