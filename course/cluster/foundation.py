"""A new cluster's files: what an administrator finds after the installation of three nodes.

Only what is missing is made, so a cluster that was there keeps all that it has.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from . import certificates, tickets
from .config import files, sections
from .config.sections import TypedSection
from .config.users import User, UserConfig
from .settings import NODES, Settings
from .state import FOLDERS, State, render_options
from .vm import media

EVERYTHING = "backup,images,iso,rootdir,snippets,vztmpl"
CA, CA_KEY = "pve-root-ca.pem", "priv/pve-root-ca.key"
SHADOW = "priv/shadow.cfg"
NODE_FOLDERS = ("vz/template/iso", "vz/template/cache", "vz/images", "vz/dump", "vz/snippets", "lvm", "tasks", "log")


def establish(root: Path, settings: Settings) -> State:
    """Make whatever a cluster lacks; call it while none of its nodes runs.

    Args:
        root: the state directory.
        settings: of the cluster.
    """
    state = State(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.sweep(root)
    _folders(state)
    _missing(state, tickets_key := "priv/authkey.key", tickets.new_key)
    _certificates(state, settings)
    _missing(state, "user.cfg", _users)
    _missing(state, SHADOW, lambda: f"root@pam {tickets.hashed(settings.password)}\n")
    _missing(state, "domains.cfg", _realms)
    _missing(state, "storage.cfg", _storages)
    _missing(state, "datacenter.cfg", lambda: render_options({"keyboard": "en-us"}))
    _missing(state, "corosync.conf", lambda: _corosync(state, settings))
    state.path(tickets_key).chmod(0o600)
    media.provide(state)
    return state


def _folders(state: State) -> None:
    for node in state.nodes:
        for folder in FOLDERS.values():
            state.path(f"nodes/{node}/{folder}").mkdir(parents=True, exist_ok=True)
        for name in NODE_FOLDERS:
            (state.of(node) / name).mkdir(parents=True, exist_ok=True)
    for name in ("images", "template/iso", "template/cache", "dump", "snippets"):
        (state.shared / name).mkdir(parents=True, exist_ok=True)
    state.path("priv").mkdir(mode=0o700, exist_ok=True)


def _missing(state: State, relative: str, text: Callable[[], str]) -> None:
    """Write a file unless it is there."""
    if not state.path(relative).exists():
        state.write(relative, text())


def _certificates(state: State, settings: Settings) -> None:
    """Make the authority once, and a certificate for each node; another address needs new ones."""
    if not (state.path(CA).exists() and state.path(CA_KEY).exists()):
        made = certificates.authority(settings.name)
        state.write(CA_KEY, made.key)
        state.write(CA, made.certificate)
    authority = certificates.Pair(state.read(CA), state.read(CA_KEY))
    for node in state.nodes:
        certificate, key, known = (
            f"nodes/{node}/{name}" for name in ("pve-ssl.pem", "pve-ssl.key", ".pve-ssl.addresses")
        )
        if state.path(key).exists() and state.read(known) == settings.address:
            continue
        made = certificates.node(node, authority, _names(settings.address))
        state.write(certificate, made.certificate)
        files.write(state.path(key), made.key, mode=0o600)
        state.write(known, settings.address)


def _names(address: str) -> tuple[str, ...]:
    """Return under what a node can be reached that listens on an address: on all of the host's, if that is meant."""
    if address not in ("0.0.0.0", "::"):
        return (address,)
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        return (name, *{str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    return (name,)


def _users() -> str:
    config = UserConfig()
    config.users["root@pam"] = User()
    return config.text()


def _realms() -> str:
    return sections.render(
        [
            TypedSection("pam", "pam", {"comment": "Linux PAM standard authentication"}),
            TypedSection("pve", "pve", {"comment": "Proxmox VE authentication server"}),
        ]
    )


def _storages() -> str:
    return sections.render(
        [
            TypedSection("dir", "local", {"path": "/var/lib/vz", "content": EVERYTHING}),
            TypedSection("lvmthin", "local-lvm", {"thinpool": "data", "vgname": "pve", "content": "images,rootdir"}),
            TypedSection("dir", "shared", {"path": "/mnt/pve/shared", "content": EVERYTHING, "shared": "1"}),
        ]
    )


def address_of(node: str) -> str:
    """Return a node's address in the cluster's own network, which is only a name here."""
    return f"10.0.0.{NODES.index(node) + 1}"


def host_address(node: str) -> str:
    """Return the address of a node's network card."""
    return f"BC:24:11:00:00:{NODES.index(node) + 1:02X}"


def _corosync(state: State, settings: Settings) -> str:
    """Write what corosync would read: the nodes and their votes."""
    words = "  node {{\n    name: {}\n    nodeid: {}\n    quorum_votes: 1\n    ring0_addr: {}\n  }}\n"
    entries = "".join(words.format(node, number, address_of(node)) for number, node in enumerate(state.nodes, 1))
    return (
        f"logging {{\n  debug: off\n  to_syslog: yes\n}}\n\nnodelist {{\n{entries}}}\n\n"
        "quorum {\n  provider: corosync_votequorum\n}\n\n"
        f"totem {{\n  cluster_name: {settings.name}\n  config_version: {len(state.nodes)}\n"
        f"  interface {{\n    linknumber: 0\n  }}\n  ip_version: ipv4-6\n  secauth: on\n  version: 2\n}}\n"
        f"# made {time.strftime('%Y-%m-%d')} by the lab\n"
    )


def cluster_name(state: State, settings: Settings) -> str:
    """Return the cluster's name: what its files say, which outlive the settings."""
    found = re.search(r"cluster_name:\s*(\S+)", state.parsed("corosync.conf", str))
    return found[1] if found else settings.name
