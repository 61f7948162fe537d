"""Where a server may lead a client, and what the client tells it about its user."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving
from serving import Server

from zoo.collection.download import Patience, _is_here, get_small
from zoo.errors import UserError

PATIENT = Patience(attempts=1)
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def own_address() -> str:
    """Of this machine, as others see it; of the loopback if it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Over http."""
    root = tmp_path / "www"
    root.mkdir()
    (root / "file").write_bytes(b"here")
    with serving.serving(root) as running:
        yield running


@pytest.fixture
def secure(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The same files over https, by a certificate that this process trusts."""
    names = f"subjectAltName=IP:127.0.0.1,IP:{own_address()}"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout key.pem"
    subprocess.run(
        ["openssl", *words.split(), "-out", "cert.pem", "-addext", names],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    with serving.serving(server.root, context) as running:
        yield running


def https(server: Server, host: str) -> str:
    return f"https://{host}:{server.server_port}"


@openssl
def test_from_https_to_http_is_refused(server: Server, secure: Server) -> None:
    secure.faults["there"] = serving.redirect(f"{server.url}/file")
    with pytest.raises(UserError, match="which is refused"):
        get_small(f"{https(secure, '127.0.0.1')}/there", 100, PATIENT)
    assert server.requests == []


@openssl
def test_from_http_here_to_https_is_followed(server: Server, secure: Server) -> None:
    server.faults["there"] = serving.redirect(f"{https(secure, '127.0.0.1')}/file")
    assert get_small(f"{server.url}/there", 100, PATIENT) == b"here"


@openssl
@pytest.mark.skipif(own_address() == "127.0.0.1", reason="this machine is alone")
@pytest.mark.parametrize("here", ["127.0.0.1", "127.1", "localhost", "[::1]"])
def test_from_another_machine_to_this_one_is_refused(secure: Server, here: str) -> None:
    other = https(secure, own_address())
    assert get_small(f"{other}/file", 100, PATIENT) == b"here"
    secure.faults["there"] = serving.redirect(f"{https(secure, here)}/file")
    secure.requests.clear()
    with pytest.raises(UserError, match="which is refused"):
        get_small(f"{other}/there", 100, PATIENT)
    assert [path for path, _ in secure.requests] == ["there"]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.9.9.9", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "::1"),
        *("::", "::ffff:127.0.0.1", "localhost", "LocalHost.", "a.localhost"),
    ],
)
def test_all_ways_to_write_this_machine(host: str) -> None:
    assert _is_here(host)


@pytest.mark.parametrize("host", ["host", "10.0.0.1", "::2", "localhost.org", "", None])
def test_others(host: str | None) -> None:
    assert not _is_here(host)


def test_no_password_of_netrc_is_sent(server: Server, tmp_path: Path) -> None:
    """By a command, with a .netrc that other clients would use."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    home = {**os.environ, "HOME": str(tmp_path), "NETRC": str(netrc)}
    usual = "import requests, sys; requests.get(sys.argv[1])"
    zoo = ["-m", "zoo", "list", "--source", server.url]
    for words in (["-c", usual, f"{server.url}/file"], zoo):
        subprocess.run([sys.executable, *words], env=home, check=False)
    usual_client, ours = server.names
    assert usual_client is not None
    assert ours is None
