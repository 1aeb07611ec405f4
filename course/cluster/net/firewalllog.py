"""What the firewall writes down: one line per packet that a rule or a policy with a log level was about.

::

    169 6 tap169i0-IN 23/Nov/2026:19:36:13 +0000 policy DROP: IN=fwbr169i0 ... SRC=10.0.0.7 DST=10.0.0.9 ... PROTO=ICMP

VMID (0 for the node), level, chain, time, what happens, and the packet as the kernel's log shows it. A flood of packets
is no flood of lines: a bucket holds five and fills with one a second, unless the datacenter says otherwise.

Source: chapter "Logging of firewall rules" of the Proxmox VE administration guide.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ...network.address import ip_text
from ...network.bucket import Bucket
from ...network.frames import ICMP, ICMPV6, TCP, UDP
from ...network.guard import Log
from ...network.packet import Packet

LEVELS = {
    "emerg": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7,
}  # fmt: skip
LARGEST = 4 << 20
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_NAMES = {ICMP: "ICMP", ICMPV6: "ICMPv6", TCP: "TCP", UDP: "UDP"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_STAMP = "%d/%b/%Y:%H:%M:%S %z"
_LINE = re.compile(r"(?P<vmid>\d+) \d \S+ (?P<stamp>\S+ [+-]\d{4}) ")


class FirewallLog:
    """A node's log of the firewall.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._bucket: Bucket | None = None
        self.limit("")

    def limit(self, setting: str) -> None:
        """Limit the lines, as the datacenter's option ``log_ratelimit`` says: ``enable=1,burst=5,rate=1/second``."""
        values = dict((part if "=" in part else f"enable={part or 1}").split("=", 1) for part in setting.split(","))
        enable = values.get("enable", "1")
        number, _, unit = values.get("rate", "1/second").partition("/")
        rate = int(number) / _SECONDS[unit] if number.isdecimal() and unit in _SECONDS else 1.0
        burst = int(values["burst"]) if values.get("burst", "").isdecimal() else 5
        self._bucket = None if enable in ("0", "off", "no", "false") else Bucket(rate, max(1, burst))

    def of(self, vmid: int) -> Log:
        """Return what a guard of a guest, or of the node with 0, logs with."""

        def log(level: str, chain: str, words: str, packet: Packet) -> None:
            if self._bucket is None or self._bucket.take(time.monotonic()):
                stamp = time.strftime(_STAMP)
                self._write(f"{vmid} {LEVELS.get(level, 6)} {chain} {stamp} {words}: {_details(packet, chain)}\n")

        return log

    def _write(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full disk must not stop the network
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                full = file.tell() > LARGEST
            if full:
                self._path.replace(self._path.with_suffix(".log.1"))

    def lines(self, vmid: int | None = None, since: int = 0, until: int = 0) -> Iterator[str]:
        """Yield the lines, those of one guest alone if one is given.

        Args:
            vmid: the guest; None for all.
            since: only lines from this time on, in seconds since 1970.
            until: only lines up to this time; 0 for no bound.
        """
        with contextlib.suppress(FileNotFoundError), self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                found = _LINE.match(line)
                if found is None or (vmid is not None and int(found["vmid"]) != vmid):
                    continue
                when = _seconds(found["stamp"])
                if when >= since and (not until or when <= until):
                    yield line.rstrip("\n")


def _seconds(stamp: str) -> float:
    """Return a line's time in seconds since 1970."""
    from datetime import datetime  # noqa: PLC0415 - only who reads the log needs it

    with contextlib.suppress(ValueError):
        return datetime.strptime(stamp, _STAMP).timestamp()
    return 0.0


def _details(packet: Packet, chain: str) -> str:
    """Return a packet in the words of the kernel's log."""
    size = 4 if packet.version == 4 else 16
    frame = packet.frame
    card, _, way = chain.rpartition("-")
    words = [f"IN={card}" if way == "OUT" else f"OUT={card}", f"MAC={frame[:14].hex(':')}"]
    words += [f"SRC={ip_text(packet.src.to_bytes(size, 'big'))}", f"DST={ip_text(packet.dst.to_bytes(size, 'big'))}"]
    if packet.version == 4:
        words += [f"LEN={int.from_bytes(frame[16:18], 'big')}", f"TTL={frame[22]}", f"ID={packet.id}"]
    else:
        words += [f"LEN={40 + int.from_bytes(frame[18:20], 'big')}", f"HOPLIMIT={frame[21]}"]
    words.append(f"PROTO={_NAMES.get(packet.protocol, packet.protocol)}")
    if packet.icmp is not None:
        words.append(f"TYPE={packet.icmp[0]} CODE={packet.icmp[1]}")
    elif packet.protocol in (TCP, UDP):
        words.append(f"SPT={packet.sport} DPT={packet.dport}")
    if packet.protocol == TCP:
        words += [name for bit, name in enumerate(_FLAGS) if packet.flags >> bit & 1]
    return " ".join(words)
