"""The store of slices: read by another library, neighbours against a plain loop, damaged and mistaken on purpose."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.conftest import MakeStore
from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.preprocess.store.slice_store import Sample, SliceStore, write_slices
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

SPEC = DatasetSpec(
    "few", ("liver", "tumour"), PlaneGrid("MR", (20, 16), neighbours=1), "few", ((1, 2), (2,)), exclusive=False
)
RNG = np.random.default_rng(0)
IMAGE, LABEL = RNG.normal(size=(7, 20, 16)).astype(np.float16), RNG.integers(0, 4, (7, 20, 16)).astype(np.uint8)
PLANES, SAMPLES, DEPTH = [0, 1, 2, 5, 6, 7, 9], [0, 1, 4, 6], 10
"""Slices 0, 1, 6 and 9 of a volume of 10 are samples (the neighbour 8 of 9 was left out)."""


@pytest.fixture
def store(tmp_path: Path) -> SliceStore:
    folder = tmp_path / "few"
    write_slices(folder / "subjects" / "a.zarr", IMAGE, LABEL)
    record: dict[str, Any] = {
        "split": "train",
        "person": "p",
        "planes": PLANES,
        "samples": SAMPLES,
        "bits": [1, 3, 0, 2],
        "scan_shape": [DEPTH, 30, 25],
        "scan_affine": [[0, 0, -1, 0], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]],
        "affine": [[-1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]],
    }
    manifest = {"format": 1, "kind": "slices", "spec": SPEC.to_dict(), "subjects": {"a": record}}
    write_json(folder / "manifest.json", manifest)
    return SliceStore(folder)


def test_another_zarr_reader_reads_the_same_a_chunk_a_plane(store: SliceStore) -> None:
    group = zarr.open_group(store.folder / "subjects" / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["image"][:], IMAGE)
    np.testing.assert_array_equal(group["label"][:], LABEL)
    assert group["image"].chunks == (1, 20, 16) and group["image"].metadata.dimension_names == ("z", "x", "y")


def test_samples_and_what_they_hold(store: SliceStore) -> None:
    assert store.spec == SPEC
    assert store.samples(["a"]) == (Sample("a", 0, 1), Sample("a", 1, 3), Sample("a", 4, 0), Sample("a", 6, 2))
    assert store.spacing("a") == (1, 2, 3)
    assert not store.contiguous("a")
    store.record("a")["samples"] = [0, 1, 2]
    assert store.contiguous("a")
    np.testing.assert_array_equal(store.label("a", 5), LABEL[5])
    np.testing.assert_array_equal(store.image("a", 5)[..., 0], IMAGE[5])


def test_neighbours_are_by_slice_and_the_last_slice_repeats(store: SliceStore) -> None:
    store.record("a")["samples"] = [0, 1, 4]
    np.testing.assert_array_equal(store.image("a", 0, 3), np.stack([IMAGE[0], IMAGE[0], IMAGE[1]], -1))
    np.testing.assert_array_equal(store.image("a", 4, 3), np.stack([IMAGE[3], IMAGE[4], IMAGE[5]], -1))
    whole = store.volume_image("a", 3)
    assert whole.shape == (3, 20, 16, 3)
    for n, position in enumerate([0, 1, 4]):
        np.testing.assert_array_equal(whole[n], store.image("a", position, 3))
    np.testing.assert_array_equal(store.codes("a"), LABEL[[0, 1, 4]])


def test_neighbours_that_were_not_stored_say_what_to_do(store: SliceStore) -> None:
    with pytest.raises(InputError, match=r"5 channels need 2: prepare it with `neighbours=2`"):
        store.image("a", 4, 5)
    with pytest.raises(InputError, match=r"`neighbours=1`"):
        store.volume_image("a", 3)  # slice 8 beside the sample 9
    with pytest.raises(InputError, match="odd"):
        store.image("a", 0, 2)


def test_the_kinds_of_store_refuse_each_other(store: SliceStore, make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="data set of slices and volumes are needed"):
        Store(store.folder)
    with pytest.raises(InputError, match="data set of volumes and slices are needed"):
        SliceStore(make_store(train=1, test=0).folder)


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_damaged_plane_is_one_sentence(store: SliceStore, name: str) -> None:
    chunk = store.folder / "subjects" / "a.zarr" / name / "c" / "1" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))
    read = store.image if name == "image" else store.label
    read("a", 0)
    with pytest.raises(InputError, match=r"a\.zarr is missing or damaged.*run prepare again"):
        read("a", 1)
