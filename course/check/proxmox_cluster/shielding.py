"""`shield(access, vmid) -> list[dict]`: let pings in and keep port 22 out, on the wire.

The witness sends Ethernet frames to the guest's network card, as its neighbour on the bridge, and counts which of
them come out at the other end: rules that stand in a file and filter nothing are found out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from ..exercise import Exercise, Trial
from .lab import Lab, asked, lab, shuffled_nodes
from .wire import arp, ping, syn

shield = Exercise("shield", deadline_s=60)

FRAMES = 5
_PATIENCE_S = 20.0
COLLEAGUE = "web for all, by a colleague"
_RULE = {"type": "in", "action": "ACCEPT", "enable": 1, "comment": COLLEAGUE}


@dataclasses.dataclass
class Street:
    """Two guests on one bridge: the one to be shielded, and its neighbour."""

    cluster: Lab
    node: str
    vmid: int
    neighbour: int
    source_port: int = 40000

    @property
    def path(self) -> str:
        """The shielded guest's path below the API."""
        return f"nodes/{self.node}/qemu/{self.vmid}"

    def mac(self, vmid: int) -> str:
        """Hardware address of a guest's first network card."""
        card = str(self.cluster.config(self.node, vmid).get("net0", ""))
        return card.partition(",")[0].partition("=")[2]

    def received(self) -> int:
        """Bytes that have reached the shielded guest."""
        return int(self.cluster.status(self.node, self.vmid).get("netin") or 0)

    def passes(self, kind: str) -> bool:
        """Send some frames of a kind to the guest; tell whether they came out at its network card."""
        there, here = self.mac(self.vmid), self.mac(self.neighbour)
        self.source_port += FRAMES
        if kind == "ping":
            frames = [ping(here, there, self.source_port + n) for n in range(FRAMES)]
        else:
            port = int(kind.removeprefix("port "))
            frames = [syn(here, there, port, self.source_port + n) for n in range(FRAMES)]
        before = self.received()
        # The last frame is one that nothing filters: when it has come, the others have been decided on.
        self.cluster.outside.ask("frames", self.node, self.neighbour, [*frames, arp(here)])
        end = time.monotonic() + _PATIENCE_S
        while (now := self.received()) == before and time.monotonic() < end:
            time.sleep(0.02)
        return now - before > sum(map(len, frames)) // 2


@contextlib.contextmanager
def street(trial: Trial, policy: str = "ACCEPT") -> Iterator[Street]:
    """Run a guest and its neighbour; the firewall is off everywhere, and a colleague's rule is there."""
    cluster = lab()
    node = shuffled_nodes(trial)[0]
    with contextlib.ExitStack() as stack:
        stack.callback(_reset, cluster)
        _reset(cluster)
        card = "virtio,bridge=vmbr0"
        vmid = stack.enter_context(cluster.guest(node, net0=card))
        neighbour = stack.enter_context(cluster.guest(node, net0=card))
        found = Street(cluster, node, vmid, neighbour)
        cluster.do("POST", f"{found.path}/firewall/rules", **_RULE, proto="tcp")
        cluster.do("PUT", f"{found.path}/firewall/options", policy_in=policy)
        yield found


def _reset(cluster: Lab) -> None:
    """The datacenter's firewall is off, without rules."""
    cluster.do("PUT", "cluster/firewall/options", enable=0)
    for rule in sorted(cluster.get("cluster/firewall/rules"), key=lambda rule: -int(rule["pos"])):
        cluster.do("DELETE", f"cluster/firewall/rules/{rule['pos']}")


def judge(trial: Trial, found: Street) -> None:
    """Have the guest shielded."""
    cluster, mac = found.cluster, found.mac(found.vmid)
    pid = [process["pid"] for process in cluster.processes(found.vmid)]
    call = asked("shield", found.vmid)
    done, transcript = cluster.ask(trial, found.vmid)
    cluster.finish(transcript)
    cards = [e["values"]["net0"] for e in transcript.changes if "net0" in e["values"]]
    if other := next((card for card in cards if mac not in card), None):
        trial.wrong(
            "other-card",
            f"{call} asked for net0={other}: that is another network card. The guest's own has the address {mac}. "
            f"The cluster's words: {'; '.join(transcript.refused) or 'accepted'}",
            "Change one option of net0, and leave the rest as it was.",
        )
    trial.value_of(done, call, none_is_an_answer=True)
    rules = cluster.get(f"{found.path}/firewall/rules")
    trial.expect(
        any(rule.get("comment") == COLLEAGUE for rule in rules),
        "foreign-rule",
        f"{call} deleted the colleague's rule; the guest's rules are now: {describe(rules)}",
        "The rules of others stay. Which position does yours need?",
    )
    _require_on(trial, found, call)
    _require_wire(trial, found, call)
    trial.expect(
        [process["pid"] for process in cluster.processes(found.vmid)] == pid,
        "restarted",
        f"{call} restarted the guest; a firewall changes while guests run.",
    )


def describe(rules: list[dict[str, object]]) -> str:
    """Rules in their order, for a message."""
    words = ("type", "action", "macro", "proto", "dport", "icmp-type")
    told = [" ".join(str(rule[word]) for word in words if rule.get(word)) for rule in rules]
    off = ["" if int(str(rule.get("enable", 0))) else " (off)" for rule in rules]
    return "; ".join(f"{at}: {one}{how}" for at, (one, how) in enumerate(zip(told, off, strict=True))) or "none"


def _require_on(trial: Trial, found: Street, call: str) -> None:
    """All three levels are on; judged in the order in which a frame meets them."""
    if not int(found.cluster.get("cluster/firewall/options").get("enable") or 0):
        trial.wrong(
            "datacenter-off",
            f"After {call} the datacenter's firewall is off: no rule of any guest is looked at, and port 22 is open.",
            "Three levels have a switch. Which one is above all guests?",
        )
    if not int(found.cluster.get(f"{found.path}/firewall/options").get("enable") or 0):
        trial.wrong(
            "guest-off",
            f"After {call} the firewall of guest {found.vmid} is off: its rules are written, and not looked at.",
            "Three levels have a switch. Which one belongs to the guest?",
        )
    card = str(found.cluster.config(found.node, found.vmid).get("net0", ""))
    trial.expect(
        "firewall=1" in card.split(","),
        "card-off",
        f"After {call} the network card is {card!r}: its frames take the way without firewall.",
        "Three levels have a switch. Which one is an option of net0?",
    )


def _require_wire(trial: Trial, found: Street, call: str) -> None:
    rules = describe(found.cluster.get(f"{found.path}/firewall/rules"))
    if found.passes("port 22"):
        trial.wrong(
            "port-open",
            f"After {call}, {FRAMES} TCP segments to port 22 went to the guest, and arrived. Its rules: {rules}",
            "The first rule that fits decides. Which one fits first, and is it on?",
        )
    if not found.passes("ping"):
        trial.wrong(
            "ping-dropped",
            f"After {call}, {FRAMES} pings went to the guest, and none arrived. Its rules: {rules}",
            "Pings are ICMP. Which rule, or which policy, decides on them?",
        )
    if not found.passes("port 80"):
        trial.wrong(
            "too-much",
            f"After {call}, {FRAMES} TCP segments to port 80 went to the guest, and none arrived. Its rules: {rules}",
            "Only port 22 was to be closed; the colleague's web server is in use.",
        )


@shield.step("pings arrive, port 22 is closed, and the rest is as it was")
def _shielded(trial: Trial) -> None:
    with street(trial) as found:
        trial.expect(found.passes("port 22") and found.passes("ping"), "lab", "The lab's wire does not carry frames.")
        judge(trial, found)
