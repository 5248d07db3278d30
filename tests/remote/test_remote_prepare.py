"""Data sets prepared into a bucket: by one machine, by shards on two, and by one that goes on after another."""

from pathlib import Path

import numpy as np
import pytest

from tests.preprocess.test_prepare import SETTINGS, SPEC, prepared_by, run, write_source
from tests.remote.bucket import Bucket
from tests.remote.conftest import on_machine
from tlseg_jax.preprocess.prepare import Volumes
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.shards import Shard
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.remote.entry import read_folder, work_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def root(bucket: Bucket) -> Path:
    return work_folder(f"{bucket}/data")


def from_bucket(bucket: Bucket) -> Store:
    store = open_any_store(read_folder(f"{bucket}/data") / SPEC.name)
    assert isinstance(store, Store)
    return store


def assert_same(found: Store, expected: Store) -> None:
    def lasting(manifest: dict[str, object]) -> dict[str, object]:
        subjects = manifest["subjects"]
        assert isinstance(subjects, dict)
        kept = {s: {k: v for k, v in r.items() if k != "seconds"} for s, r in subjects.items()}
        return {k: v for k, v in manifest.items() if k != "written"} | {"subjects": kept}

    assert lasting(found.manifest) == lasting(expected.manifest)
    for s in expected.subjects():
        np.testing.assert_array_equal(found.image(s), expected.image(s))
        np.testing.assert_array_equal(found.label(s), expected.label(s))


def test_another_machine_reuses_what_is_there(
    bucket: Bucket, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(source, tmp_path / "local")
    _, lines = run(source, root(bucket))
    assert prepared_by(lines) == "0 reused, 4 prepared, 0 excluded."
    assert_same(from_bucket(bucket), expected)
    # As a machine leaves it that dies before its last subject is there.
    bucket.delete(f"data/{SPEC.name}/manifest.json")
    bucket.delete(f"data/{SPEC.name}/subjects/sub-2.json")
    on_machine(monkeypatch, tmp_path / "second")
    _, lines = run(source, root(bucket))
    assert prepared_by(lines) == "3 reused, 1 prepared, 0 excluded."
    assert_same(from_bucket(bucket), expected)


def test_shards_on_two_machines_fill_one_bucket(
    bucket: Bucket, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    expected, _ = run(source, tmp_path / "local")
    merged = []
    for i in (1, 0):
        on_machine(monkeypatch, tmp_path / f"machine{i}")
        whole = Volumes(SPEC, source, root(bucket), SETTINGS)
        merged.append(whole.prepare(shard=Shard(i, 2), workers=1, progress=False))
    assert merged == [False, True], said
    assert_same(from_bucket(bucket), expected)


def test_data_sets_of_one_group_keep_their_sides_on_another_machine(
    bucket: Bucket, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    first, _ = run(source, root(bucket), split_seed=3)
    on_machine(monkeypatch, tmp_path / "second")
    other, _ = run(source, root(bucket), SPEC.changed(name="other"), split_seed=0)
    assert other.subjects("test") == first.subjects("test")
    # Without the first data set this seed has others: the sides above came from the bucket.
    alone, _ = run(source, tmp_path / "alone", SPEC.changed(name="other"), split_seed=0)
    assert alone.subjects("test") != first.subjects("test")
