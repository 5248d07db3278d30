"""A server of buckets on this machine, and a bucket of its own for each test."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.bucket import Bucket
from tlseg_jax.remote.entry import Buckets
from tlseg_jax.runtime.elsewhere import using

KEY, SECRET = "KEY-nobody-may-see", "SECRET-nobody-may-see"


@pytest.fixture(autouse=True)
def buckets() -> Iterator[None]:
    """As within every command."""
    with using(Buckets()):
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that speaks S3's protocol."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # Silent on purpose: a pipe that nobody reads would fill up.
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; the environment is that of a machine with credentials for it and no copies yet."""
    for name in [n for n in os.environ if n.startswith("AWS_") and n != "AWS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    on_machine(monkeypatch, tmp_path / "machine")
    made = Bucket(server, f"test-{uuid.uuid4().hex[:12]}")
    made.create()
    return made


def on_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on this is another machine: one with its copies in `folder`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
