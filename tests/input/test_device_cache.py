"""A cached batch is, bit for bit, the batch that the stream would have read."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import MakeStore, blob
from tests.train.slice_runs import small_store
from tlseg_jax.geometry import Box
from tlseg_jax.input.device_cache import DeviceCache, cache_patches, cache_slices
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.slices import make_slice_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.errors import InputError

AMPLE = 1 << 30


@pytest.fixture
def mixed(make_store: MakeStore) -> Store:
    """Volumes of 16 voxels a side but for one; patches longer than all on y, and than one of them on z."""
    store = make_store(spec={"random_patch": True, "patch_size": [8, 24, 16]})
    write_subject(store.folder / "subjects" / "sub-1.zarr", *(v[:13, :15, 1:] for v in blob(1)))
    store.manifest["subjects"]["sub-1"]["shape"] = [13, 15, 15]
    return store


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return small_store(tmp_path_factory.mktemp("slices") / "store", train=3, test=1, samples=(0, 1, 4, 6))


def assert_same_stream(cache: DeviceCache, places: Any, batches: Any, count: int = 9) -> None:
    gather = jax.jit(cache.gather)
    for _ in range(count):
        place, expected = next(places), next(batches)
        np.testing.assert_array_equal(place["index"], expected.pop("index"))
        found = gather(cache.arrays, place)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("box", [None, Box((2, 0, -3), (8, 16, 16))])
def test_patches(box: Box | None, mixed: Store) -> None:
    subjects, settings = mixed.subjects("train"), InputSettings(3, seed=2)
    cache = cache_patches(mixed, subjects, box, AMPLE)
    size = box.size if box else (16, 24, 16)  # whole volumes are continued to the patch's sides
    assert cache.arrays["image"].shape == cache.arrays["label"].shape == (4, *size)
    assert cache.nbytes == 4 * np.prod(size) * 3 + cache.arrays["first"].nbytes
    assert_same_stream(
        cache, make_batches(mixed, subjects, box, settings, read=False), make_batches(mixed, subjects, box, settings)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_slices(channels: int, sampling: Any, slices: SliceStore) -> None:
    subjects, settings = slices.subjects("train"), InputSettings(5, 1, channels, sampling)
    regions = {s: slices.volume_image(s)[..., 0] > 0.2 for s in subjects} if channels == 3 else None
    cache = cache_slices(slices, subjects, channels, regions, AMPLE)
    assert cache.arrays["image"].shape == (12, *slices.spec.planes.pixels, channels)
    assert_same_stream(
        cache,
        make_slice_batches(slices, subjects, settings, regions, read=False),
        make_slice_batches(slices, subjects, settings, regions),
    )


def test_either_stream_goes_on_where_the_other_was(mixed: Store) -> None:
    subjects, settings = mixed.subjects("train"), InputSettings(2, seed=5)
    streams = [make_batches(mixed, subjects, None, settings, read=read) for read in (True, False, True)]
    expected = [next(streams[0])["index"].tolist() for _ in range(9)]
    found: list[list[int]] = []
    for i in (0, 1, 2):
        if i:
            streams[i].set_state(json.loads(json.dumps(streams[i - 1].get_state())))
        else:
            streams[i] = make_batches(mixed, subjects, None, settings)
        found += [next(streams[i])["index"].tolist() for _ in range(3)]
    assert found == expected


def test_no_subject_is_read_for_its_places(mixed: Store) -> None:
    for name in mixed.subjects():
        (mixed.folder / "subjects" / f"{name}.zarr" / "image" / "zarr.json").unlink()
    places = next(make_batches(mixed, mixed.subjects("train"), None, InputSettings(2), read=False))
    assert {k: v.shape for k, v in places.items()} == {"index": (2,), "start": (2, 3)}


def test_what_does_not_fit_is_refused_before_it_is_read(mixed: Store) -> None:
    subjects = mixed.subjects("train")
    needed = 4 * 16 * 24 * 16 * 3
    for name in subjects:
        (mixed.folder / "subjects" / f"{name}.zarr" / "image" / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"^`cache=device` would hold 7.37e-05 GB of 4 scans of [^\n]*`n`\)\.$"):
        cache_patches(mixed, subjects, None, needed - 1)
    with pytest.raises(InputError, match=r"sub-\d\.zarr is missing or damaged"):
        cache_patches(mixed, subjects, None, needed)
