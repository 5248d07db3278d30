"""Augmentation: replayable by key, image and label moved together, Table 1's choice a data set."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.input.augment import Augmentation, augment, augment_batch, augmentation_for, linear, sample_key

pytestmark = pytest.mark.usefixtures("quick_compile")

CUBE = (6, 6, 6)
ALL = Augmentation(random_rotations=True, intensity=True, affine=True)


def distinct(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).astype(np.float32).reshape(shape)


@functools.cache
def jitted(augmentation: Augmentation) -> Any:
    """Many keys at once: (keys, image, label) -> images, labels."""
    return jax.jit(jax.vmap(lambda k, i, t: augment(k, i, t, augmentation), in_axes=(0, None, None)))


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def symmetries(shape: tuple[int, ...], v: NDArray[Any]) -> set[bytes]:
    """Every permutation that keeps the shape, followed by every set of flips."""
    out = set()
    for p in itertools.permutations(range(3)):
        if tuple(shape[i] for i in p) == shape:
            for r in range(4):
                for axes in itertools.combinations(range(3), r):
                    out.add(np.ascontiguousarray(np.flip(v.transpose(p), axes)).tobytes())
    return out


@pytest.mark.parametrize(("shape", "count"), [(CUBE, 48), ((4, 6, 6), 16), ((4, 6, 8), 8)])
def test_rotations_reach_exactly_the_symmetries_of_the_patch(shape: tuple[int, ...], count: int) -> None:
    v = distinct(shape)
    images, labels = jitted(Augmentation(random_rotations=True))(keys(600), v, v.astype(np.int32))
    expected = symmetries(shape, v)
    assert len(expected) == count
    assert {np.ascontiguousarray(i).tobytes() for i in np.asarray(images)} == expected
    np.testing.assert_array_equal(images, labels)


def test_flips_are_left_right_and_undo_themselves() -> None:
    v = distinct((4, 5, 6))
    images, labels = jitted(Augmentation(flip_left_right=True))(keys(64), v, v.astype(np.int32))
    flipped = [np.array_equal(i, v[::-1]) for i in images]
    assert all(f or np.array_equal(i, v) for f, i in zip(flipped, images, strict=True))
    assert 16 < sum(flipped) < 48
    np.testing.assert_array_equal(images, labels)
    for k in keys(8):
        one = functools.partial(augment, k, augmentation=Augmentation(flip_left_right=True))
        np.testing.assert_array_equal(one(*one(jnp.asarray(v), jnp.asarray(v, jnp.int32)))[0], v)


def test_nothing_asked_changes_nothing() -> None:
    v = distinct(CUBE)
    images, labels = jitted(Augmentation())(keys(2), v, v.astype(np.uint8))
    np.testing.assert_array_equal(images, [v, v])
    assert labels.dtype == np.uint8


def test_the_affine_moves_the_label_with_the_image() -> None:
    """A bright ball in the image and its mask stay together, near the same size, and the mask binary."""
    shape = (20, 24, 22)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    mask = (((at - np.array([7, 14, 12])) ** 2).sum(-1) < 20).astype(np.uint8)
    images, labels = jitted(Augmentation(affine=True))(keys(16), mask.astype(np.float32), mask)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    np.testing.assert_array_equal(np.asarray(images) > 0.5, np.asarray(labels) == 1)
    sizes = np.asarray(labels).sum((1, 2, 3)) / mask.sum()
    assert np.all((sizes > 0.6) & (sizes < 1.6))  # up to 10% an axis
    centres = np.array([np.argwhere(t).mean(0) for t in np.asarray(labels)])
    moved = np.linalg.norm(centres - [7, 14, 12], axis=1)
    assert np.ptp(moved) > 0.1
    assert moved.max() < 5


@pytest.mark.parametrize("elastic", [0.5, 2.0])
def test_elastic_displacements_are_smooth_keep_means_and_grow_with_what_is_asked(elastic: float) -> None:
    """A ramp along each axis shows where every voxel came from."""
    shape = (30, 36, 28)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(np.float32)
    change = Augmentation(elastic=elastic, one_structure=False)
    whole = np.zeros(shape, np.uint8)
    found = np.stack([np.asarray(jitted(change)(keys(24), axis, whole)[0]) for axis in grid], 1)
    inside = (slice(None), slice(None), *(slice(6, -6),) * 3)  # where nothing came from beyond the faces
    moved = (found - grid)[inside]
    by_sample = moved.std((1, 2, 3, 4))
    # The strength is uniform up to what is asked; interpolation between knots takes some of it.
    assert 0.2 * elastic < by_sample.mean() < 0.6 * elastic and by_sample.max() < 1.5 * elastic
    assert np.abs(moved.mean()) < 0.2 * elastic
    for axis in range(3):  # a step between neighbours is a small part of what they move: no folding
        assert np.abs(np.diff(moved, axis=axis + 2)).max() < elastic


def test_elastic_displacements_move_the_label_with_the_image() -> None:
    at = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 24, 22)], indexing="ij"), -1)
    mask = (((at - np.array([9, 12, 11])) ** 2).sum(-1) < 36).astype(np.uint8)
    images, labels = jitted(Augmentation(elastic=2.0))(keys(8), mask.astype(np.float32), mask)
    np.testing.assert_array_equal(np.asarray(images) > 0.5, np.asarray(labels) == 1)
    assert sum((t != mask).any() for t in np.asarray(labels)) >= 4  # some are drawn too weak to move a voxel


def test_a_stronger_affine_goes_further() -> None:
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32)[:, None, None], (24, 24, 24))
    once, twice = (
        np.asarray(jitted(Augmentation(affine=k, one_structure=False))(keys(32), ramp, ramp.astype(np.uint8))[0])
        for k in (1.0, 2.0)
    )
    assert (
        1.5 < np.abs(twice - ramp)[:, 8:16, 8:16, 8:16].mean() / np.abs(once - ramp)[:, 8:16, 8:16, 8:16].mean() < 2.5
    )


def test_linear_interpolation_is_scipy_s_and_the_nearest_voxel_s_value_beyond_the_faces() -> None:
    rng = np.random.default_rng(4)
    volume, at = rng.normal(size=(5, 7, 6)), rng.uniform(-3, 9, (3, 400))
    expected = scipy.ndimage.map_coordinates(volume, at, order=1, mode="nearest")
    found = jax.jit(linear)(jnp.asarray(volume, jnp.float32), jnp.asarray(at, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_mirrored_affine_is_the_affine_of_the_mirror_image() -> None:
    """With the partners' codes, for the keys whose coin says so; the others are as without the mirror."""
    v, label = distinct((8, 6, 4)), np.arange(8 * 6 * 4).reshape(8, 6, 4) % 3
    codes = (0, 2, 1)
    both = Augmentation(flip_left_right=True, affine=True, mirror_codes=codes, one_structure=False)
    images, labels = jitted(both)(keys(16), v, label)
    warp = jitted(dataclasses.replace(both, flip_left_right=False))
    plain, turned = warp(keys(16), v, label), warp(keys(16), v[::-1], np.array(codes)[label[::-1]])
    mirrored = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(jax.random.split(k, 4)[0]))(keys(16)))
    assert 3 < mirrored.sum() < 13
    for i, turn in enumerate(mirrored):
        expected = turned if turn else plain
        np.testing.assert_allclose(images[i], expected[0][i], atol=0.05)  # of values to 191
        assert np.mean(labels[i] == expected[1][i]) > 0.97  # a half is rounded either way


def test_intensity_leaves_the_label_and_the_order_of_tissues() -> None:
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    images, labels = jitted(Augmentation(intensity=True))(keys(16), mask * 3.0, mask)
    np.testing.assert_array_equal(labels, np.broadcast_to(mask, labels.shape))
    inside, outside = (np.asarray(images)[:, mask == v].mean(1) for v in (1, 0))
    assert np.all(inside - outside > 1.5)
    assert np.std(inside) > 0.05
    assert np.isfinite(images).all()


RANDOMISED = Augmentation(flip_left_right=True, affine=True, randomise=True)


def test_randomisation_takes_the_place_of_intensity_and_leaves_the_rest_alone() -> None:
    """The label goes where it goes without, and the image is that of the patch turned first and redrawn then."""
    image = distinct((8, 10, 6)) / 240 - 1
    label = (image > 0).astype(np.uint8)
    plain = dataclasses.replace(RANDOMISED, randomise=False)
    images, labels = jitted(RANDOMISED)(keys(8), image, label)
    moved, expected = jitted(plain)(keys(8), image, label)
    np.testing.assert_array_equal(labels, expected)
    assert not np.any(np.all(np.isclose(images, moved, atol=0.01), axis=(1, 2, 3)))
    both, _ = jitted(dataclasses.replace(RANDOMISED, intensity=True))(keys(8), image, label)
    np.testing.assert_array_equal(both, images)


@pytest.mark.parametrize("augmentation", [ALL, RANDOMISED, Augmentation(flip_left_right=True)])
def test_a_sample_is_replayed_from_seed_step_and_place(augmentation: Augmentation) -> None:
    image = np.random.default_rng(1).normal(size=(3, 8, 8, 8)).astype(np.float32)
    label = (image > 1).astype(np.uint8)
    run = jax.jit(augment_batch, static_argnums=4)  # the seed is data there
    images, labels = run(image, label, jnp.uint32(7), jnp.int32(11), augmentation)
    again = run(image, label, jnp.uint32(7), jnp.int32(11), augmentation)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    alone = jax.jit(lambda k, i, t: augment(k, i, t, augmentation))
    for i in range(3):
        one, mask = alone(sample_key(7, 11, i), image[i], label[i])
        np.testing.assert_allclose(one, images[i], atol=1e-5)
        np.testing.assert_array_equal(mask, labels[i])


def test_keys_differ_by_seed_step_and_sample() -> None:
    data = [
        tuple(np.asarray(jax.random.key_data(sample_key(*k)))) for k in itertools.product((0, 1), (0, 1, 5), (0, 1, 5))
    ]
    assert len(set(data)) == 18


def test_table_1() -> None:
    asked = {n: augmentation_for(s, intensity=False, affine=False) for n, s in PAPERS.items()}
    flips = Augmentation(flip_left_right=True)
    assert asked["hdt_c"] == asked["hdt_v"] == asked["mal_c"] == flips
    assert asked["oas_c"] == Augmentation()
    assert asked["hdt_wb"].random_rotations
    assert not any(a.intensity or a.affine for a in asked.values())
    ours = augmentation_for(get_spec("hdt_c"), intensity=True, affine=True)
    assert ours == Augmentation(flip_left_right=True, intensity=True, affine=True)
    wider = augmentation_for(get_spec("hdt_c"), intensity=True, affine=True, randomise=True)
    assert wider == dataclasses.replace(ours, randomise=True)
