"""A node's web server: from a request to an answer, in the order in which Proxmox VE decides.

    no such uri · who calls (401, after a while) · which call (501) · may they (403) · which node (forwarded, 595)
    · are the parameters right (400) · is there a quorum (500) · the handler

Handlers run in a pool of threads, unless they say that they never block.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import secrets
import ssl
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from ..error import ClusterError, CourseError, ParameterError, PermissionRefused
from . import parameters, wire
from .callers import caller
from .forward import ONCE, Forwarder
from .node import Node
from .peer import SOCKET
from .route import Call, Endpoint, routes

FORMS = ("json", "extjs")
BODY_LIMIT = 1 << 20
CHUNK = 1 << 18
KEEP_ALIVE_S = 3600.0
THREADS = 24
UNAUTHORIZED = 401
_ANYBODY = ""
WELCOME = """<!doctype html>
<html lang="en"><title>{node}</title>
<p>This is <b>{node}</b>, a node of the course's lab cluster. It has the API of Proxmox VE, at
<code>/api2/json</code>, and no web interface: the lessons show the datacenter in a notebook.</p></html>
"""

_log = logging.getLogger(__name__)


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The server itself refuses, before the API is asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = wire.refused(status, message)


class Server:
    """Answers requests for one node.

    Args:
        node: whose API it is.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._routes = routes()
        self._forwarder = Forwarder(node)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="call")
        self._runner: web.ServerRunner | None = None

    async def start(self, listener: Any, context: ssl.SSLContext) -> None:
        """Listen: TLS on a socket that is bound, and plain HTTP on the node's Unix socket, for the other nodes."""
        server = web.Server(self.handle, access_log=None, keepalive_timeout=KEEP_ALIVE_S, logger=_log)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        path = self.node.run / SOCKET
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(path)).start()
        path.chmod(0o600)
        await web.SockSite(self._runner, listener, ssl_context=context, backlog=128).start()

    async def stop(self) -> None:
        """End what is being answered, and stop listening."""
        await self._forwarder.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        form = "json"
        if request.raw_path == "/":
            return web.Response(text=WELCOME.format(node=self.node.name), content_type="text/html")
        try:
            form, path = _split(unquote(request.raw_path.partition("?")[0], errors="replace"))
            return await self._answer(request, form, path)
        except _Refused as refused:
            return refused.answer.response()
        except ClusterError as error:
            if error.status == UNAUTHORIZED:
                await asyncio.sleep(self.node.settings.auth_delay_s)
            errors = error.errors if isinstance(error, ParameterError) else {}
            return wire.Answer(status=error.status, message=error.message, errors=errors).response(form)
        except Exception as error:
            self._unexpected(request)
            expected = isinstance(error, CourseError | OSError | ValueError) and str(error)
            return wire.Answer(status=500, message=str(error) if expected else repr(error)).response(form)

    def _unexpected(self, request: web.BaseRequest) -> None:
        self.node.log(f"{request.method} {request.path}: {traceback.format_exc()}", "err", "pveproxy")

    async def _answer(self, request: web.BaseRequest, form: str, path: str) -> web.StreamResponse:
        method = request.method
        found = self._routes.find(method, path)
        upload = found is not None and found[0].upload
        user = await self._caller(request, path, upload)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = None if upload else await _body(request)
        if found is None:
            raise ClusterError(f"Method '{method} {path}' not implemented", status=501)
        endpoint, uri = found
        given = parameters.combine(uri, _given(request, body))
        self._may(endpoint, user, path, given)
        elsewhere = self._elsewhere(endpoint, uri)
        if elsewhere is not None:
            if ONCE in request.headers:
                raise ClusterError("proxy loop detected")
            return await self._forwarder.send(request, elsewhere, body)
        if endpoint.proxy:
            given[endpoint.proxy] = self.node.name
        call = Call(node=self.node, endpoint=endpoint, user=user, values=given, request=request)
        if upload:
            await self._take_file(request, call)
        try:
            call.values = parameters.check(endpoint.parameters, call.values, additional=endpoint.additional)
            if endpoint.writes:
                self.node.state.assert_quorum()
            data = await self._run(call)
        except BaseException:
            if call.upload is not None:
                call.upload.unlink(missing_ok=True)
            raise
        if isinstance(data, web.StreamResponse):
            return data
        more = dict(call.more) if call.total is None else {"total": call.total, **call.more}
        return wire.Answer(data=data, more=more).response(form)

    async def _caller(self, request: web.BaseRequest, path: str, upload: bool) -> str:
        """Return who calls; who is refused waits for it."""
        try:
            return caller(self.node, request.method, path, request.headers, upload=upload) or _ANYBODY
        except ClusterError as error:
            await asyncio.sleep(self.node.settings.auth_delay_s)
            raise _Refused(error.status, error.message) from None

    def _may(self, endpoint: Endpoint, user: str, path: str, given: Mapping[str, Any]) -> None:
        """Refuse who may not."""
        if "!" in user and not endpoint.allow_token:
            words = f"URI '{path}' not available with API token, need proper ticket."
            raise PermissionRefused(f"Permission check failed ({words})")
        if user == _ANYBODY and (endpoint.permissions or {}).get("user") != "world":
            raise ClusterError("No ticket", status=401)
        self.node.access().check_call(user, endpoint.permissions, given)

    def _elsewhere(self, endpoint: Endpoint, uri: Mapping[str, str]) -> str | None:
        """Return the other node that has to answer.

        Raises:
            ClusterError: the cluster has no such node.
        """
        name = uri[endpoint.proxy] if endpoint.proxy else self.node.name
        if name in (self.node.name, "localhost"):
            return None
        return self.node.peer(name).name

    async def _run(self, call: Call) -> Any:
        """Run the handler where it belongs."""
        handler = call.endpoint.handler
        if call.endpoint.inline:
            result = handler(call)
            return await result if inspect.isawaitable(result) else result
        return await asyncio.get_running_loop().run_in_executor(self._pool, handler, call)

    # Uploads

    async def _take_file(self, request: web.BaseRequest, call: Call) -> None:
        """Read a form with a file, which goes to the disk as it comes."""
        limit = self.node.settings.upload_limit_bytes
        if not request.headers.get("Content-Type", "").startswith("multipart/form-data"):
            fields = await _body(request)
            call.values |= _form(fields or b"", request.headers.get("Content-Type", ""))
            return
        if request.content_length is None:
            raise _Refused(501, "upload without content length header not supported")
        if request.content_length > limit + BODY_LIMIT:
            raise _Refused(501, "for data too large")
        if "tmpfilename" in call.values:
            raise ParameterError({"tmpfilename": parameters.UNKNOWN})
        try:
            async for part in await request.multipart():
                await self._part(part, call)
        except BaseException:
            if call.upload is not None:
                call.upload.unlink(missing_ok=True)
            raise

    async def _part(self, part: Any, call: Call) -> None:
        """Take one part of a form: a field, or the file."""
        if part.filename is None:
            text = bytearray()
            while chunk := await part.read_chunk():
                text += chunk
                if len(text) > BODY_LIMIT:
                    raise _Refused(501, "for data too large")
            call.values |= parameters.combine(call.values, {str(part.name): text.decode(errors="replace")})
            return
        if call.upload is not None:
            raise ClusterError("upload of more than one file is not supported", status=400)
        call.values.setdefault("filename", part.filename)
        folder = self.node.disk / "upload"
        folder.mkdir(parents=True, exist_ok=True)
        call.upload = folder / f"pveupload-{secrets.token_hex(16)}"
        with call.upload.open("xb") as file:
            written = 0
            while chunk := await part.read_chunk(CHUNK):
                written += len(chunk)
                if written > self.node.settings.upload_limit_bytes:
                    raise _Refused(501, "for data too large")
                file.write(chunk)


def _split(path: str) -> tuple[str, str]:
    """Return the form of the answer and the path below it.

    Raises:
        _Refused: it is no path of the API.
    """
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] != "api2" or len(parts) == 1:
        raise _Refused(501, "no such uri")
    if parts[1] not in FORMS:
        raise _Refused(501, "no formatter for uri")
    return parts[1], "/" + "/".join(parts[2:])


async def _body(request: web.BaseRequest) -> bytes | None:
    """Read a request's body.

    Raises:
        _Refused: it must not have one, or it is too large.
    """
    if not request.can_read_body:
        return None
    if request.method not in ("POST", "PUT"):
        raise _Refused(501, f"Unexpected content for method '{request.method}'")
    if (request.content_length or 0) > BODY_LIMIT:
        raise _Refused(501, "for data too large")
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise _Refused(501, "for data too large")
    return bytes(body)


def _given(request: web.BaseRequest, body: bytes | None) -> dict[str, Any]:
    """Return the parameters that were sent with a request."""
    query = request.raw_path.partition("?")[2]
    given = _gather(parse_qsl(query, keep_blank_values=True)) if query else {}
    if body:
        given |= _form(body, request.headers.get("Content-Type", ""))
    return given


def _form(body: bytes, kind: str) -> dict[str, Any]:
    """Return the parameters in a body.

    Raises:
        _Refused: it is of a kind that nobody reads.
        ClusterError: it cannot be read.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/json":
        with contextlib.suppress(ValueError):
            found = json.loads(body)
            if isinstance(found, dict):
                return {name: value for name, value in found.items() if value is not None}
        raise ClusterError("unable to parse request body", status=400)
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise _Refused(506, f"upload 'Content-Type '{kind}' not implemented")
    return _gather(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _gather(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return parameters by name; one that came several times is a list."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            found[name] = value
    return found
