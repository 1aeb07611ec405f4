"""Calls of the API: how one is declared, what its handler gets, and how a path leads to it.

::

    @endpoint("GET", "/nodes/{node}/time", parameters={"node": NODE}, permissions=AUDIT, inline=True)
    def time(call: Call) -> Any:
        return {"time": ...}

Each module of `course.cluster.api` declares its calls this way; `registry` finds them all. Between a request and its
handler the server does what Proxmox VE does, in its order: the path is looked up, the caller's rights are checked, the
request goes to the node that it names, the parameters are checked, and what changes the cluster needs its quorum.

Source: order of the checks in pve-manager's HTTPServer.pm, as recorded in the facts that this project works from.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .declaration import Declarations

if TYPE_CHECKING:
    from .access import Access
    from .node import Node
    from .tasks import Task

GREEDY = frozenset(("{volume}", "{cidr}"))
"""Parameters of a path that take all that is left, slashes included: ``local:iso/live.iso``, ``10.0.0.0/8``."""

Handler = Callable[["Call"], "Any | Awaitable[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One call of the API.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: such as ``/nodes/{node}/qemu/{vmid}``.
        parameters: what may be given, those of the path included.
        permissions: the rule of the schema; None lets only root pass.
        proxy: the path's parameter that names the node which answers; None for whichever is asked.
        inline: whether the handler never blocks and runs in the event loop itself.
        writes: whether it needs the cluster's quorum.
        upload: whether it takes a file, which the server keeps in `Call.upload`.
        additional: whether parameters that are not declared are let through.
        allow_token: whether an API token will do.
        handler: answers.
    """

    method: str
    path: str
    parameters: Declarations
    permissions: Mapping[str, Any] | None
    proxy: str | None
    inline: bool
    writes: bool
    upload: bool
    additional: bool
    allow_token: bool
    handler: Handler

    @property
    def uri_parameters(self) -> list[str]:
        """The names in the path's braces, in order."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


@dataclass(slots=True, kw_only=True)
class Call:
    """What a handler gets.

    Attributes:
        node: the node that answers.
        endpoint: the call's declaration.
        user: ``root@pam`` or, for a token, ``alice@pve!ci``.
        values: checked and typed parameters, those of the path included; defaults are not filled in.
        request: the web server's request; None for a call from inside.
        upload: an uploaded file, which is the handler's from here on: it moves or deletes it.
        total: how many entries there are, for an answer that holds only some of them.
    """

    node: Node
    endpoint: Endpoint
    user: str
    values: dict[str, Any]
    request: Any = None
    upload: Path | None = None
    total: int | None = None
    more: dict[str, Any] = field(default_factory=dict)
    _access: Access | None = None

    @property
    def access(self) -> Access:
        """The rights of everybody, as they were when the call came."""
        if self._access is None:
            self._access = self.node.access()
        return self._access

    def check(self, path: str, privileges: Sequence[str], *, any_of: bool = False) -> None:
        """Refuse a caller who lacks a privilege.

        Raises:
            PermissionRefused: in Proxmox VE's words.
        """
        self.access.check(self.user, path, privileges, any_of=any_of)

    def may(self, path: str, privileges: Sequence[str], *, any_of: bool = False) -> bool:
        """Say whether the caller has the privileges."""
        return self.access.may(self.user, path, privileges, any_of=any_of)

    def task(self, type: str, id: str | int, work: Callable[[Task], None]) -> str:
        """Start a task on this node for the caller.

        Args:
            type: such as ``qmstart``.
            id: what it is about, such as 169; ``""`` for nothing.
            work: runs in a thread of its own; what it raises ends the task with these words.

        Returns:
            The task's UPID.
        """
        return self.node.tasks.start(type, str(id), self.user, work)


ENDPOINTS: list[Endpoint] = []
"""All that was declared so far; `registry` makes sure that this is all there is."""


def endpoint(
    method: str,
    path: str,
    *,
    parameters: Declarations | None = None,
    permissions: Mapping[str, Any] | None = None,
    proxy: str | None = "node",
    inline: bool = False,
    writes: bool | None = None,
    upload: bool = False,
    additional: bool = False,
    allow_token: bool = True,
) -> Callable[[Handler], Handler]:
    """Declare a call; the decorated function answers it. See `Endpoint` for the arguments.

    Args:
        method: GET, POST, PUT or DELETE.
        path: with parameters in braces, which are declared in `parameters` like the others.
        parameters: what may be given.
        permissions: such as ``{"check": ["perm", "/vms/{vmid}", ["VM.Audit"]]}``, ``{"user": "all"}`` or
            ``{"user": "world"}``; None lets only root pass.
        proxy: used only when the path holds it.
        inline: the handler is quick and never blocks; it may be ``async``.
        writes: None for whatever is no GET.
        upload: the call takes a file.
        additional: other parameters are let through.
        allow_token: an API token will do.
    """

    def declare(handler: Handler) -> Handler:
        ENDPOINTS.append(
            Endpoint(
                method=method,
                path=path,
                parameters=parameters or {},
                permissions=permissions,
                proxy=proxy if proxy and f"{{{proxy}}}" in path else None,
                inline=inline,
                writes=method != "GET" if writes is None else writes,
                upload=upload,
                additional=additional,
                allow_token=allow_token,
                handler=handler,
            )
        )
        return handler

    return declare


@functools.cache
def registry() -> tuple[Endpoint, ...]:
    """Return all calls: whatever the modules of `course.cluster.api` declare."""
    from . import api  # noqa: PLC0415 - its modules import this one

    for module in sorted(found.name for found in pkgutil.iter_modules(api.__path__)):
        with tolerant(f"calls of {module}"):
            importlib.import_module(f"{api.__name__}.{module}")
    return tuple(ENDPOINTS)


@contextlib.contextmanager
def tolerant(what: str) -> Iterator[None]:
    """Go on without a part that cannot be loaded, where ``COURSE_LAB_TOLERANT`` is set: for those who work on one."""
    try:
        yield
    except Exception:
        if not os.environ.get("COURSE_LAB_TOLERANT"):
            raise
        sys.stderr.write(f"without {what}: {traceback.format_exc()}\n")


class Routes:
    """Finds the call that a path means.

    Args:
        endpoints: all calls.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._root = _Level()
        for found in endpoints:
            self._add(found)

    def _add(self, added: Endpoint) -> None:
        level = self._root
        for part in _parts(added.path):
            if part.startswith("{"):
                level.parameter = level.parameter or _Level()
                level.greedy = level.greedy or part in GREEDY
                level = level.parameter
            else:
                level = level.words.setdefault(part, _Level())
        level.methods[added.method] = added

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """Return the call and the parameters of its path, or None when there is no such call."""
        level, values = self._root, list[str]()
        parts = _parts(path)
        for number, part in enumerate(parts):
            if part in level.words:
                level = level.words[part]
            elif level.parameter is not None:
                greedy = level.greedy
                level = level.parameter
                values.append("/".join(parts[number:]) if greedy else part)
                if greedy:
                    break
            else:
                return None
        found = level.methods.get(method)
        return (found, dict(zip(found.uri_parameters, values, strict=True))) if found else None

    def below(self, path: str) -> list[str]:
        """Return the words that may follow a path, as an index shows them; parameters are not among them."""
        level = self._root
        for part in _parts(path):
            found = level.parameter if part.startswith("{") else level.words.get(part)
            if found is None:
                return []
            level = found
        return sorted(level.words)


@dataclass(slots=True)
class _Level:
    """One level of the tree of paths."""

    words: dict[str, _Level] = field(default_factory=dict)
    parameter: _Level | None = None
    greedy: bool = False
    methods: dict[str, Endpoint] = field(default_factory=dict)


def _parts(path: str) -> list[str]:
    """Take a path apart; needless slashes do not count."""
    return [part for part in path.split("/") if part]


@functools.cache
def routes() -> Routes:
    """Return the tree of all calls."""
    return Routes(registry())
