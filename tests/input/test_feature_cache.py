"""Kept features are those of the patches and slices that each step would have seen, mirrored when those were."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import he_variables
from tests.train.slice_runs import small_store
from tlseg_jax.geometry import Box
from tlseg_jax.input import feature_cache
from tlseg_jax.input.augment import Augmentation, augment_batch
from tlseg_jax.input.device_cache import DeviceCache
from tlseg_jax.input.feature_cache import (
    cache_features,
    cache_slice_features,
    feature_bytes,
    feature_shapes,
    why_no_features,
)
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.slices import make_slice_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")

AMPLE = 1 << 30
BOX = Box((2, 0, -3), (9, 16, 12))  # reaches outside; the first side is odd and padded


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return small_store(tmp_path_factory.mktemp("slices") / "store", train=3, test=1, samples=(0, 1, 4, 6))


FLIPS = Augmentation(flip_left_right=True)


@pytest.fixture(scope="module")
def mirrored(tiny_store: Store, tiny_network: UNetConfig) -> DeviceCache:
    variables = he_variables(tiny_network)
    return cache_features(tiny_store, tiny_store.subjects("train"), BOX, tiny_network, variables, 3, FLIPS, AMPLE)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_batch_is_the_features_of_the_augmented_patches(
    seed: int, mirrored: DeviceCache, tiny_store: Store, tiny_network: UNetConfig
) -> None:
    subjects, settings = tiny_store.subjects("train"), InputSettings(2, seed=seed)
    places = make_batches(tiny_store, subjects, BOX, settings, read=False)
    batches = make_batches(tiny_store, subjects, BOX, settings)
    variables, gather, flips = he_variables(tiny_network), jax.jit(mirrored.gather), Augmentation(flip_left_right=True)

    @jax.jit
    def expect(image: Any, label: Any, step: Any) -> Any:
        image, label = augment_batch(jnp.float32(image), label, seed, step, flips)
        return tiny_network.module().apply(variables, image[..., None], part="features", levels=3), label

    for step in range(4):
        batch = next(batches)
        features, label = expect(batch["image"], batch["label"], step)
        found = gather(mirrored.arrays, next(places), jnp.int32(seed), jnp.int32(step))
        np.testing.assert_array_equal(found["label"], label)
        assert set(found["features"]) == set(features)
        for name, value in features.items():
            assert found["features"][name].dtype == value.dtype
            np.testing.assert_allclose(found["features"][name], value, atol=1e-5)


def test_some_samples_are_mirrored_and_some_are_not(mirrored: DeviceCache) -> None:
    first = np.asarray(mirrored.arrays["label"])
    assert not np.array_equal(first[::2], first[1::2]) and np.array_equal(first[::2], first[1::2, ::-1])
    places = {"index": np.arange(4, dtype=np.int32)}
    found = mirrored.gather(mirrored.arrays, places, 3, jnp.int32(1))["label"]
    plain = [np.array_equal(a, b) for a, b in zip(found, first[::2], strict=True)]
    assert 0 < sum(plain) < 4


def test_several_runs_gather_at_once(mirrored: DeviceCache) -> None:
    index = np.array([[1, 3], [0, 0]], np.int32)
    seeds, steps = jnp.array([5, 6]), jnp.array([2, 2])
    both = jax.vmap(mirrored.gather, (None, 0, 0, 0))(mirrored.arrays, {"index": index}, seeds, steps)
    for run in range(2):
        alone = mirrored.gather(mirrored.arrays, {"index": index[run]}, seeds[run], steps[run])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(both), strict=True):
            np.testing.assert_array_equal(b[run], a)


def test_data_that_are_not_mirrored_are_held_once(tiny_store: Store, tiny_network: UNetConfig) -> None:
    subjects, variables = tiny_store.subjects("train"), he_variables(tiny_network)
    made = [
        cache_features(tiny_store, subjects, BOX, tiny_network, variables, 1, Augmentation(), AMPLE) for _ in range(2)
    ]
    assert made[0].arrays["label"].shape == (len(subjects), *BOX.size)
    assert made[0].gather == made[1].gather  # so that a program is compiled once for both
    found = made[0].gather(made[0].arrays, {"index": np.array([2, 0])}, 0, jnp.int32(0))
    for name, value in found["features"].items():
        np.testing.assert_array_equal(value, made[1].arrays["features"][name][jnp.array([2, 0])])
    np.testing.assert_array_equal(found["label"], [tiny_store.label(subjects[i], BOX) for i in (2, 0)])


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_slices(sampling: Any, slices: SliceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SLICES", 5)  # 12 slices: the last batch is not full
    config = UNetConfig.residual("tiny2d", (4, 4, 4), channels=3)
    variables, subjects = he_variables(config), slices.subjects("train")
    regions = {s: slices.volume_image(s)[..., 0] > 0.2 for s in subjects}
    cache = cache_slice_features(slices, subjects, config, variables, 2, regions, AMPLE)
    assert cache.nbytes == feature_bytes(config, 2, slices.spec.planes.pixels, 12, region=True)
    settings = InputSettings(5, 1, 3, sampling)
    places = make_slice_batches(slices, subjects, settings, regions, read=False)
    batches = make_slice_batches(slices, subjects, settings, regions)
    features = jax.jit(lambda x: config.module().apply(variables, jnp.float32(x), part="features", levels=2))
    for _ in range(3):
        batch, place = next(batches), next(places)
        found = cache.gather(cache.arrays, place, 0, jnp.int32(0))
        assert set(found) == {"features", "label", "region"}
        for name in ("label", "region"):
            np.testing.assert_array_equal(found[name], batch[name])
        for name, value in features(batch["image"]).items():
            np.testing.assert_allclose(found["features"][name], value, atol=1e-5)


def test_bytes_are_told_before_and_what_does_not_fit_is_refused_before_it_is_read(
    mirrored: DeviceCache, tiny_store: Store, tiny_network: UNetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = feature_shapes(tiny_network, 3, BOX.size, 8)
    assert {k: (v.shape, v.dtype) for k, v in mirrored.arrays["features"].items()} == {
        k: (v.shape, v.dtype) for k, v in shapes.items()
    }
    wanted = feature_bytes(tiny_network, 3, BOX.size, 8)
    # Two levels of 4 channels with their switches, a bottleneck, and a label; sides are padded to 12 x 16 x 12.
    assert wanted == mirrored.nbytes == 8 * (2304 * (16 + 2 + 0.5 + 1 / 16 + 0.25) + 9 * 16 * 12)

    def read(*_: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Store, "image", read)
    with pytest.raises(InputError, match=r"^`cache=features` would hold [^\n]* of 4 scans of [^\n]*`n`\)\.$"):
        cache_features(tiny_store, tiny_store.subjects("train"), BOX, tiny_network, {}, 3, FLIPS, wanted - 1)


def test_why_features_cannot_be_kept() -> None:
    flips = Augmentation(flip_left_right=True)
    assert why_no_features(4, "running", augmentation=flips) is None and why_no_features(1, "running") is None
    reasons = [
        why_no_features(0, "batch"),
        why_no_features(0, "running"),
        why_no_features(4, "running", random_patch=True),
        *(
            why_no_features(4, "running", augmentation=Augmentation(**{f.name: True}))
            for f in dataclasses.fields(Augmentation)
            if f.type is bool and f.name not in ("flip_left_right", "one_structure")
        ),
    ]
    assert all(r is not None and r.startswith("Features cannot be kept, as ") and r.endswith(".") for r in reasons)
    assert len(set(reasons)) == len(reasons)
