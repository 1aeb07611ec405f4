"""A service that stands in for a cluster: a TLS server with a certificate of its own, and one that speaks plainly."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from course.check.outside import Offer, service


@service
@contextlib.contextmanager
def standin(word: str = "hello", ended: str = "") -> Iterator[Offer]:
    """Say a word, and everything that was heard, over TLS at the first address and plainly at the second.

    Args:
        word: what it says.
        ended: a file that it makes when it ends in good order.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certificate = _certificate(Path(folder))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        heard: list[bytes] = []
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        for server, wrap in zip(servers, (context, None), strict=True):
            threading.Thread(target=_serve, args=(server, wrap, word.encode(), heard), daemon=True).start()
        yield Offer(
            [server.getsockname() for server in servers],
            told={"certificate": certificate.read_bytes(), "word": word},
            questions={"heard": lambda: list(heard), "who": lambda: [os.getuid(), os.getpid()], "fail": lambda: 1 / 0},
        )
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)
    if ended:
        Path(ended).write_text(word)


@service
@contextlib.contextmanager
def broken() -> Iterator[Offer]:
    """Fail to start."""
    raise OSError("no room on the shelf")
    yield


@contextlib.contextmanager
def undeclared() -> Iterator[Offer]:
    """Be no service."""
    yield Offer([])


def say(address: tuple[str, int], text: bytes, certificate: bytes = b"") -> bytes:
    """Say something to the stand-in, over TLS when its certificate is given; return all that it says."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(address, timeout=120))
        if certificate:
            context = ssl.create_default_context(cadata=certificate.decode())
            client = stack.enter_context(context.wrap_socket(client, server_hostname="127.0.0.1"))
        client.sendall(text + b"\n")
        with client.makefile("rb") as answer:
            return answer.readline()


def _certificate(folder: Path) -> Path:
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=standin"
    command = ["openssl", "req", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem"


def _serve(server: socket.socket, context: ssl.SSLContext | None, word: bytes, heard: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            threading.Thread(target=_meet, args=(client, context, word, heard), daemon=True).start()


def _meet(client: socket.socket, context: ssl.SSLContext | None, word: bytes, heard: list[bytes]) -> None:
    with client, contextlib.suppress(OSError):
        plain = context.wrap_socket(client, server_side=True) if context else client
        with plain, plain.makefile("rb") as lines:
            for line in lines:
                heard.append(line.rstrip(b"\n"))
                plain.sendall(word + b" " + line)
