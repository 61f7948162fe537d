"""Getting one file over HTTP: resumed, bounded in size and patience, checked, atomic.

pooch compares the checksum and moves the finished file into place; this file adds what
it lacks: going on where a cut connection stopped, a limit on size, a limit on waiting,
and a lock, so that two processes share one download.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import pooch
import requests
import urllib3
from filelock import FileLock, Timeout

from zoo._version import __version__
from zoo.collection.index import FileRecord
from zoo.errors import RobrepError, UserError
from zoo.files import naming
from zoo.plain_text import without_secrets

Report = Callable[[int], None]
"""Told how many bytes are there so far."""

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
"""Names of this machine by which a zoo is read over http."""
BLOCK = 1 << 16
GONE = {401, 403, 404, 410}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server, seconds unless said otherwise."""

    connect: float = 10.0
    read: float = 30.0
    """For the next byte."""
    attempts: int = 5
    pause: float = 1.0
    """Before the second attempt; doubles with each further one."""
    slowest: float = 512.0
    """Bytes per second below which a server is given up..."""
    window: float = 30.0
    """...measured over so long."""
    lock: float = 3600.0
    """For another process that downloads the same file."""


class _InterruptedError(Exception):
    """Worth another attempt."""


def check_url(url: str) -> None:
    """Raises `UserError` unless the address is https, or http on this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UserError(f"'{without_secrets(url)}' is no address: {error}") from None
    safe = parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in LOOPBACK
    )
    if not safe or not parts.hostname or parts.username:
        raise UserError(
            f"'{without_secrets(url)}' is refused: a zoo is read over https only, "
            "without a user's name"
        )


def download(
    url: str,
    target: Path,
    file: FileRecord,
    *,
    patience: Patience | None = None,
    report: Report | None = None,
) -> Path:
    """Brings `url` to `target`, which then is the file that `file` describes.

    A part that an earlier call left is completed. Whatever fails, nothing wrong lies
    at `target` afterwards.

    Raises:
        UserError: not on the server, or not the file that the index describes.
        RobrepError: the server cannot be reached, fails, or is too slow.
    """
    check_url(url)
    patience = patience or Patience()
    target.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.ERROR)
    fetcher = _Resuming(file, target, patience, report)
    with _lock(target, patience):
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{file.sha256}",
                fname=target.name,
                path=target.parent,
                downloader=fetcher,
            )
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{url} does not have the SHA-256 that the index states; it was "
                "altered or damaged on the server, and nothing was kept"
            ) from None
    return target


@contextmanager
def _lock(target: Path, patience: Patience) -> Iterator[None]:
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    try:
        with lock.acquire(timeout=patience.lock):
            yield
    except Timeout:
        raise RobrepError(
            f"another process has been downloading {target} for more than "
            f"{patience.lock:g} s; if none is, delete {lock.lock_file}"
        ) from None


class _Resuming:
    """A downloader for pooch: `fetcher(url, output_file, pooch)`."""

    def __init__(
        self,
        file: FileRecord,
        target: Path,
        patience: Patience,
        report: Report | None,
    ) -> None:
        self.file = file
        self.part = target.with_name(f"{target.name}.part")
        self.patience = patience
        self.report = report or (lambda _: None)

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        persist(url, self.patience, lambda: self._go_on(url))
        self.part.replace(output_file)

    def _go_on(self, url: str) -> None:
        """Fetches what is missing; returns when the part has its full size."""
        start = self.part.stat().st_size if self.part.exists() else 0
        if start == self.file.size and start:
            return
        if start > self.file.size:
            self.part.unlink()
            start = 0
        with _request(url, self.patience, start=start) as response:
            if response.status_code == 206 and not _begins_at(response, start):
                raise RobrepError(
                    f"{url}: the server sent another range than asked for"
                )
            if response.status_code != 206:
                start = 0  # it does not resume: the whole file comes
            self._check_announced(url, response, start)
            mode = "ab" if start else "wb"
            with naming(self.part), self.part.open(mode) as stream:
                have = start
                for block in _blocks(response, self.patience):
                    have += len(block)
                    if have > self.file.size:
                        break
                    stream.write(block)
                    self.report(have)
        if have > self.file.size:
            raise self._too_large(url)
        if have < self.file.size:
            raise _InterruptedError(
                f"the connection ended after {have} of {self.file.size} bytes"
            )

    def _check_announced(
        self, url: str, response: requests.Response, start: int
    ) -> None:
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and start + int(announced) > self.file.size:
            raise self._too_large(url)

    def _too_large(self, url: str) -> UserError:
        self.part.unlink(missing_ok=True)
        return UserError(
            f"{url} is larger than the {self.file.size} bytes that the index states; "
            "nothing was kept"
        )


def get_small(url: str, limit: int, patience: Patience | None = None) -> bytes:
    """The content of a small file without a known checksum, such as an index.

    Raises:
        UserError: not there, or larger than `limit` bytes.
        RobrepError: the server cannot be reached, fails, or is too slow.
    """
    check_url(url)
    chosen = patience or Patience()
    return persist(url, chosen, lambda: _read_small(url, limit, chosen))


def _read_small(url: str, limit: int, patience: Patience) -> bytes:
    content = bytearray()
    with _request(url, patience) as response:
        for block in _blocks(response, patience):
            content += block
            if len(content) > limit:
                raise UserError(f"{url} is larger than {limit} bytes")
        announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and len(content) < int(announced):
        raise _InterruptedError(f"it ended after {len(content)} of {announced} bytes")
    return bytes(content)


def persist(url: str, patience: Patience, action: Callable[[], T]) -> T:
    """Repeats `action` after interruptions, a few times and ever more slowly."""
    reason = ""
    for count in range(patience.attempts):
        if count:
            time.sleep(patience.pause * 2 ** (count - 1))
        try:
            return action()
        except _InterruptedError as error:
            reason = str(error)
    raise RobrepError(
        f"{url} could not be downloaded in {patience.attempts} attempts: {reason}. "
        "The same command again goes on from here"
    )


@contextmanager
def _request(
    url: str, patience: Patience, *, start: int = 0
) -> Iterator[requests.Response]:
    """An answer to read from; failures become an interruption or a clear error."""
    headers = {"User-Agent": f"robrep/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with (
            _Anonymous() as session,
            session.get(
                url,
                auth=_nobody,
                headers=headers,
                stream=True,
                timeout=(patience.connect, patience.read),
                hooks={"response": _check_redirect},
            ) as response,
        ):
            _check_status(url, response)
            yield response
    except requests.TooManyRedirects:
        raise RobrepError(f"{url}: the server redirects in a circle") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _InterruptedError(
            f"the server sent nothing for {patience.read:g} s"
        ) from None
    except requests.exceptions.SSLError as error:
        raise RobrepError(f"{url}: no secure connection ({error})") from None
    except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
        raise _InterruptedError(f"the connection failed ({_cause(error)})") from None


def _check_redirect(response: requests.Response, **_: Any) -> None:
    """Refuses to be led to an address that `check_url` refuses, or to a lesser one.

    Lesser: http where https was, and this machine where another one was.
    """
    if not response.is_redirect:
        return
    target = urljoin(response.url, response.headers["Location"])
    check_url(target)
    before, after = urlsplit(response.url), urlsplit(target)
    inward = _is_here(after.hostname) and not _is_here(before.hostname)
    if inward or (before.scheme, after.scheme) == ("https", "http"):
        raise UserError(
            f"{without_secrets(response.url)} leads to '{without_secrets(target)}', "
            "which is refused: a server may lead to https addresses of other servers"
        )


def _is_here(host: str | None) -> bool:
    """Whether a host is this machine, in any of the ways to write that."""
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        packed = socket.inet_aton(name)  # 127.1 and 0x7f000001 too
    except (OSError, UnicodeError):
        packed = None
    try:
        address = ipaddress.ip_address(packed if packed else name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


class _Anonymous(requests.Session):
    """Sends nobody's name: passwords in the user's .netrc are not for a zoo."""

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        prepared_request.headers.pop("Authorization", None)


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _cause(error: BaseException) -> str:
    """The innermost reason, without the objects that libraries print around it."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    inner = getattr(error, "reason", None)
    text = _cause(inner) if isinstance(inner, BaseException) else str(error)
    return text.rsplit(": ", 1)[-1]


def _check_status(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in GONE:
        raise UserError(f"{url} is not there (the server answered {code})")
    if code == 429 or code >= 500:
        raise _InterruptedError(f"the server answered {code}")
    raise RobrepError(f"{url}: the server answered {code} {response.reason}")


def _begins_at(response: requests.Response, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _blocks(response: requests.Response, patience: Patience) -> Iterator[bytes]:
    """The body as it arrives; gives up on a server that trickles."""
    since, counted = time.monotonic(), 0
    while block := response.raw.read1(BLOCK):
        yield block
        counted += len(block)
        waited = time.monotonic() - since
        if waited >= patience.window:
            if counted < patience.slowest * waited:
                raise RobrepError(
                    f"{response.url}: the server is too slow ({counted} bytes in "
                    f"{waited:.0f} s). The same command again goes on from here"
                )
            since, counted = time.monotonic(), 0
