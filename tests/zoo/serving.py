"""A web server on this machine that misbehaves on demand."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Behaviour = Callable[["Handler", bytes], None]
"""Answers a request for a file with this content."""


class Handler(BaseHTTPRequestHandler):
    """Serves the files of a folder; what it should do wrong is in `server.faults`."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.server.requests.append((path, self.headers.get("Range", "")))
        self.server.names.append(self.headers.get("Authorization"))
        file = self.server.root / path
        fault = self.server.faults.get(path)
        if fault is not None:
            fault(self, file.read_bytes() if file.is_file() else b"")
        elif file.is_file():
            ranged(self, file.read_bytes())
        else:
            status(404)(self, b"")

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def begin(self, code: int, length: int, **headers: str) -> None:
        """Status line and headers."""
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    """The server with its files, its faults and what it was asked."""

    daemon_threads = True

    def __init__(self, root: Path, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Handler)
        self.root = root
        self.faults: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, str]] = []
        self.names: list[str | None] = []
        """As whom each request came."""

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what the tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(root: Path, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Runs a server over `root` in a thread, with `tls` for https on all addresses."""
    server = Server(root, "0.0.0.0" if tls else "127.0.0.1")
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ranged(handler: Handler, content: bytes) -> None:
    """Serves well, parts included."""
    wanted = handler.headers.get("Range", "")
    if not wanted:
        handler.begin(200, len(content))
        handler.wfile.write(content)
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(206, len(content) - start, Content_Range=span)
    handler.wfile.write(content[start:])


def whole(handler: Handler, content: bytes) -> None:
    """Ignores Range."""
    handler.begin(200, len(content))
    handler.wfile.write(content)


def cut(share: float) -> Behaviour:
    """Announces everything, ends after a share of what was asked for."""

    def answer(handler: Handler, content: bytes) -> None:
        wanted = handler.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        rest = content[start:]
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.begin(206 if start else 200, len(rest), Content_Range=span)
        handler.wfile.write(rest[: int(len(rest) * share)])
        handler.close_connection = True

    return answer


def status(code: int) -> Behaviour:
    """Answers with an error."""

    def answer(handler: Handler, _: bytes) -> None:
        handler.begin(code, 0)

    return answer


def after(count: int, before: Behaviour, then: Behaviour = ranged) -> Behaviour:
    """Behaves one way `count` times, then another."""
    seen = iter(range(count))

    def answer(handler: Handler, content: bytes) -> None:
        (before if next(seen, None) is not None else then)(handler, content)

    return answer


def instead(change: Callable[[bytes], bytes]) -> Behaviour:
    """Serves other content, of its own length."""

    def answer(handler: Handler, content: bytes) -> None:
        whole(handler, change(content))

    return answer


def endless(handler: Handler, content: bytes) -> None:
    """Announces no length and does not stop by itself."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(content or b"x" * 1024)
    except OSError:
        return


def redirect(target: str) -> Behaviour:
    """Sends the client elsewhere."""

    def answer(handler: Handler, _: bytes) -> None:
        handler.begin(302, 0, Location=target)

    return answer


def silent(handler: Handler, content: bytes) -> None:
    """Answers, then sends nothing until the other side hangs up."""
    handler.begin(200, len(content))
    handler.connection.recv(1)


def trickling(handler: Handler, content: bytes) -> None:
    """Sends one byte now and then."""
    handler.begin(200, len(content))
    try:
        for at in range(len(content)):
            handler.wfile.write(content[at : at + 1])
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        return
