"""The same with gs://: a data set read there, a folder held there, and one owner at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.remote.conftest import on_machine
from tests.remote.gcs_server import GcsServer
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.remote import held as module
from tlseg_jax.remote.entry import read_folder, work_folder
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsServer]:
    """tensorstore reads the server's address once a process, so that there is one for all tests."""
    with pytest.MonkeyPatch.context() as patch, GcsServer() as server:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "TOKEN-nobody-may-see")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFE", 10.0)
    monkeypatch.setattr(module, "RENEW", 0.3)
    on_machine(monkeypatch, tmp_path / "machine")


def test_a_data_set_is_read_there(gcs: GcsServer, tiny_store: Store) -> None:
    assert isinstance(tiny_store.folder, Path)
    files = [p for p in tiny_store.folder.rglob("*") if p.is_file()]
    gcs.buckets["data"] = {
        f"stores/tiny/{p.relative_to(tiny_store.folder)}": (i + 1, p.read_bytes()) for i, p in enumerate(files)
    }
    store = open_any_store(read_folder("gs://data/stores") / "tiny")
    assert isinstance(store, Store)
    np.testing.assert_array_equal(store.image("sub-0"), tiny_store.image("sub-0"))
    assert gcs.seen == {"Bearer TOKEN-nobody-may-see"}
    # tensorstore takes a bucket that is not there for an empty one until it is written to.
    with pytest.raises(InputError, match="There is no prepared data set in gs://nowhere/stores/tiny"):
        open_any_store(read_folder("gs://nowhere/stores") / "tiny")
    with pytest.raises(InputError, match="There is no bucket gs://nowhere"):
        lock_folder(work_folder("gs://nowhere/runs") / "a").__enter__()


def test_a_folder_is_held_there(gcs: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcs.buckets["work"] = {}
    first = work_folder("gs://work/runs") / "a"
    with lock_folder(first):
        (first / "checkpoints" / "2").mkdir(parents=True)
        (first / "checkpoints" / "2" / "state").write_text("two")
        (first / "history").write_text("1")
    gcs.buckets["work"]["runs/a/checkpoints/4/state"] = (1, b"half of it")
    on_machine(monkeypatch, tmp_path / "second")
    second = work_folder("gs://work/runs") / "a"
    with lock_folder(second):
        assert (second / "checkpoints" / "2" / "state").read_text() == "two"
        assert not (second / "checkpoints" / "4").exists()
        (second / "history").unlink()
        on_machine(monkeypatch, tmp_path / "machine")
        monkeypatch.setattr(module, "_held", set())  # what another process knows of ours
        with pytest.raises(InputError, match="gs://work/runs/a is in use by"), lock_folder(first):
            pass
        on_machine(monkeypatch, tmp_path / "second")
    assert "runs/a/history" not in gcs.buckets["work"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"TOKEN-nobody-may-see" not in path.read_bytes()
