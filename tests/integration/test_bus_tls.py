"""NATS over TLS: a worker delivers through it; a server without it, or a stranger, gets no word."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickmill import bus
from stack.embedded import nats as embedded_nats
from tests.support.fix_worker import Worker, counts
from tests.support.ports import free_port
from tests.support.raw import ask

REACHED_S = 10.0
"""A slow machine may take long for what comes in the end."""
REFUSED_S = 1.5
"""Nothing comes: this is only waited out."""
PASSWORD = "the-password-of-nats"
CONFIG = """\
listen: 127.0.0.1:{port}
authorization {{ user: clickmill, password: "{password}" }}
jetstream {{ store_dir: "{home}/store", max_file_store: 256MB }}
tls {{ cert_file: "{home}/server.crt", key_file: "{home}/server.key" }}
"""


def make_certificates(home: Path) -> Path:
    """An authority of our own and a server's certificate by it; the authority's file.

    With the extensions that Python 3.13 and newer ask for: SECURITY.md lists them.
    """
    if shutil.which("openssl") is None:
        pytest.fail("openssl is missing: `scripts/os-packages test` gets it")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    extensions = home / "extensions"
    extensions.write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    )
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj",
         "/CN=clickmill test authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=nats"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
         "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", "server.crt"],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True)
    return home / "ca.crt"


class Secured:
    """A nats-server that wants TLS and a password."""

    def __init__(self, home: Path) -> None:
        self.authority = make_certificates(home)
        self.port = free_port()
        config = home / "nats.conf"
        config.write_text(CONFIG.format(port=self.port, password=PASSWORD, home=home))
        self.address = f"tls://clickmill:{PASSWORD}@127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [str(embedded_nats.binary()), "-c", str(config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return self.address

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    server = Secured(tmp_path)
    yield server
    server.stop()


async def reaches(url: str, within: float = REACHED_S) -> bool:
    """Whether a connection stands within so many seconds."""
    try:
        client = await asyncio.wait_for(bus.connect(url, "test"), within)
    except TimeoutError:
        return False
    await bus.close(client)
    return True


def test_a_worker_delivers_over_tls(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority))
    home = tmp_path / "worker"
    home.mkdir()
    worker = Worker(secured, home, {})
    worker.start()
    try:
        with counts(worker, {1: 1}):
            assert ask(worker.port, "POST", "/counter/1").status == 200
    finally:
        worker.close()
    assert PASSWORD not in worker.text


def test_the_certificates_pass_the_strict_checks_of_newer_pythons(tmp_path: Path) -> None:
    """Python 3.13 made them the default; here they are switched on in every version."""
    client = ssl.create_default_context(cafile=make_certificates(tmp_path))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in [*ends, *ends]:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    assert ends[0].getpeercert(), "the handshake did not come to its end"


def test_an_unknown_authority_is_refused(secured: Secured) -> None:
    assert not asyncio.run(reaches(secured.url, REFUSED_S))


def test_a_wrong_password_is_refused(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority))
    assert asyncio.run(reaches(secured.url))
    assert not asyncio.run(reaches(secured.url.replace(PASSWORD, "another"), REFUSED_S))


def test_a_server_without_tls_never_receives_the_password(tmp_path: Path) -> None:
    """As somebody in between would do it: the greeting of a server that wants no TLS."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.5)
                connection.sendall(
                    b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,'
                    b'"auth_required":true,"headers":true,"proto":1}\r\n'
                )
                try:
                    while data := connection.recv(4096):
                        heard.append(data)
                        connection.sendall(b"PONG\r\n" * data.count(b"PING\r\n"))
                except OSError:
                    continue

    thread = threading.Thread(target=greet)
    thread.start()
    port = listener.getsockname()[1]
    try:
        unsafe = f"tls://clickmill:{PASSWORD}@127.0.0.1:{port}"
        assert not asyncio.run(reaches(unsafe, REFUSED_S))
        assert not heard, heard
        assert asyncio.run(reaches(f"nats://clickmill:{PASSWORD}@127.0.0.1:{port}"))
        assert PASSWORD.encode() in b"".join(heard), "the test itself hears nothing"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
