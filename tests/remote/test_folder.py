"""A prepared data set read straight from a bucket: the same voxels, and each fault in a sentence."""

import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.remote.bucket import Bucket
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.store import Store, is_prepared
from tlseg_jax.remote import kv
from tlseg_jax.remote.entry import read_folder
from tlseg_jax.runtime.elsewhere import Elsewhere, using
from tlseg_jax.runtime.errors import InputError


@pytest.fixture
def stores(bucket: Bucket, tiny_store: Store) -> str:
    """The tiny store, copied to the bucket by somebody else."""
    assert isinstance(tiny_store.folder, Path)
    for path in tiny_store.folder.rglob("*"):
        if path.is_file():
            bucket.put(f"stores/tiny/{path.relative_to(tiny_store.folder)}", path.read_bytes())
    return f"{bucket}/stores"


def open_tiny(stores: str) -> Store:
    folder = read_folder(stores) / "tiny"
    assert is_prepared(folder)
    store = open_any_store(folder)
    assert isinstance(store, Store)
    return store


def test_the_same_voxels_as_on_the_disk(stores: str, tiny_store: Store, tmp_path: Path) -> None:
    store = open_tiny(stores)
    assert store.manifest == tiny_store.manifest
    assert store.where == f"{stores}/tiny"
    box = Box((2, -1, 5), (8, 8, 8))
    for s in store.subjects():
        np.testing.assert_array_equal(store.image(s), tiny_store.image(s))
        np.testing.assert_array_equal(store.label(s, box), tiny_store.label(s, box))
    assert not list(tmp_path.rglob("*.zarr"))  # nothing was copied


def test_another_process_reads_there_too(stores: str, tiny_store: Store) -> None:
    """Workers that read batches get the store pickled, and know nothing of how the command was started."""
    pickled = pickle.dumps(open_tiny(stores))
    with using(Elsewhere()):
        store = pickle.loads(pickled)
        np.testing.assert_array_equal(store.image("sub-0"), tiny_store.image("sub-0"))


def test_a_chunk_that_is_missing_or_damaged_is_named(stores: str, bucket: Bucket) -> None:
    lost, flipped = (f"stores/tiny/subjects/sub-{i}.zarr/image/c/0/0/0" for i in (1, 2))
    bucket.delete(lost)
    content = bytearray(bucket.get(flipped))
    content[-1] ^= 1  # of the checksum itself: nothing else would notice
    bucket.put(flipped, bytes(content))
    store = open_tiny(stores)
    for subject in ("sub-1", "sub-2"):
        with pytest.raises(InputError, match="missing or damaged") as e:
            store.image(subject)
        assert f"{stores}/tiny/subjects/{subject}.zarr" in str(e.value) and "\n" not in str(e.value)
    assert store.image("sub-0").shape == (16, 16, 16)


def test_no_data_set_and_no_bucket(stores: str) -> None:
    assert not is_prepared(read_folder(stores) / "other")
    with pytest.raises(InputError, match=r"There is no prepared data set in s3://.*/stores/other"):
        open_any_store(read_folder(stores) / "other")
    with pytest.raises(InputError, match="There is no bucket s3://no-such-bucket: "):
        read_folder("s3://no-such-bucket/stores")


class _Refuses(BaseHTTPRequestHandler):
    """A server that repeats who asked, as real ones do."""

    def do_GET(self) -> None:
        body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message>"
        body += b"<AWSAccessKeyId>KEY-nobody-may-see</AWSAccessKeyId></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_ours(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    with pytest.raises(InputError, match="s3://our-bucket/x is not open to these credentials") as e:
        read_folder("s3://our-bucket/x")
    assert "nobody-may-see" not in str(e.value) and "\n" not in str(e.value)


def test_a_server_that_is_away(stores: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_tiny(stores)
    # Retries with their pauses are tensorstore's; one attempt shows the sentence.
    monkeypatch.setattr(kv, "FEW", 1)
    monkeypatch.setattr(kv, "PATIENCE", 1)
    monkeypatch.setattr(kv, "endpoint", lambda: "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be reached at http://127.0.0.1:9 .*check the network"):
        read_folder(stores)
    with pytest.raises(InputError, match="cannot be reached") as e:
        store.image("sub-0")
    assert "prepare" not in str(e.value)
