"""Training on several structures: which half is which survives mirrors and turns; what is not marked stays out."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import SIDE, he_variables
from tests.many_structures import lateral, write_halves
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.input.augment import Augmentation, augment, augmentation_for
from tlseg_jax.input.device_cache import cache_patches
from tlseg_jax.input.feature_cache import cache_features
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.models.networks import get_network
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.train.usual import network_for

pytestmark = pytest.mark.usefixtures("quick_compile")


def asymmetric() -> tuple[np.ndarray, np.ndarray]:
    """An image that tells its three axes apart, of two halves that touch: chirality can be read off it."""
    codes = np.zeros((12, 12, 12), np.uint8)
    codes[1:5, 3:5, 4:9], codes[5:9, 3:5, 4:9] = 1, 2
    front, top = np.zeros_like(codes, np.float32), np.zeros_like(codes, np.float32)
    front[4:6, 10, 6], top[4:6, 4, 11] = 1, 2
    return (front + top + 4 * (codes > 0)).astype(np.float32), codes


def hand(image: np.ndarray, codes: np.ndarray) -> float:
    """The sign of (right - left) x (front - middle) . (top - middle)."""
    at = [np.argwhere(codes == 1).mean(0), np.argwhere(codes == 2).mean(0)]
    front, top = (np.argwhere(image == v).mean(0) for v in (1, 2))
    middle = (at[0] + at[1]) / 2
    return float(np.sign(np.linalg.det(np.stack([at[1] - at[0], front - middle, top - middle]))))


@pytest.mark.parametrize("turned", [False, True])
def test_left_stays_left_in_mirrors_and_turns(turned: bool) -> None:
    image, codes = asymmetric()
    spec = lateral(get_spec("hdt_c"), random_rotations=turned)
    augmentation = augmentation_for(spec, intensity=False, affine=False)
    assert augmentation.mirror_codes[:4] == (0, 2, 1, 3)
    change = jax.jit(lambda key: augment(key, jnp.asarray(image), jnp.asarray(codes), augmentation))
    hands, moved = [], 0
    for key in jax.random.split(jax.random.key(0), 48 if turned else 8):
        new_image, new_codes = (np.asarray(v) for v in change(key))
        hands.append(hand(new_image, new_codes))
        moved += not np.array_equal(new_codes, codes)
    assert set(hands) == {hand(image, codes)} and moved


@pytest.mark.parametrize("turned", [False, True])
def test_a_map_of_one_side_marks_the_other_in_a_mirror(turned: bool) -> None:
    image, codes = asymmetric()
    spec = lateral(get_spec("hdt_c"), random_rotations=turned)
    inputs = jax.jit(batch_inputs(augmentation_for(spec, intensity=False, affine=True)))
    batch = {
        "image": np.stack([image] * 6),
        "label": np.stack([np.where(codes == 1, 1, 0).astype(np.uint8)] * 6),
        "marked": np.array([[1, 0]] * 6, np.uint8),
    }
    seen = set()
    for step in range(4):
        _, target = inputs(batch, step, 3)
        for label, marked in zip(np.asarray(target["label"]), np.asarray(target["marked"]), strict=True):
            assert marked.tolist() == [(label == code).any() for code in (1, 2)]
            seen.add(tuple(marked.tolist()))
    assert seen == {(1, 0), (0, 1)}


def test_kept_features_of_a_map_of_one_side_are_marked_as_it_is(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s", marked={s: ["half_left"] for s in ("sub-1", "sub-2")})
    config = dataclasses.replace(get_network("switch8x2"), outputs=store.spec.outputs)
    changes = augmentation_for(store.spec, intensity=False, affine=False)
    subjects, box = store.subjects("train"), store.patch_box
    assert box is not None and changes.flip_left_right
    kept = cache_features(store, subjects, box, config, he_variables(config), 1, changes, 10**9).arrays["marked"]
    own = [[1, int(s not in ("sub-1", "sub-2"))] for s in subjects]
    np.testing.assert_array_equal(kept, [m for o in own for m in (o, o[::-1])])


def test_a_mirror_of_what_has_no_sides_changes_no_code() -> None:
    image, codes = asymmetric()
    plain = augmentation_for(get_spec("hdt_c"), intensity=False, affine=False)
    assert plain.mirror_codes == () and plain.one_structure
    mirrored = [
        np.asarray(augment(k, jnp.asarray(image), jnp.asarray(codes), plain)[1])
        for k in jax.random.split(jax.random.key(0), 6)
    ]
    assert {tuple(np.unique(m)) for m in mirrored} == {(0, 1, 2)}


def test_warping_makes_no_code_that_was_not_there() -> None:
    image, codes = asymmetric()
    codes = np.where(codes == 2, 7, codes).astype(np.uint8)
    change = jax.jit(
        lambda key: augment(
            key, jnp.asarray(image), jnp.asarray(codes), Augmentation(affine=True, one_structure=False)
        )[1]
    )
    for key in jax.random.split(jax.random.key(1), 5):
        assert set(np.unique(change(key))) == {0, 1, 7}


def job(**network: object) -> JobSettings:
    config = dataclasses.replace(get_network("switch8x2"), **network)  # type: ignore[arg-type]
    return JobSettings(config, get_recipe("paper").override(batch_size=2), 4)


def test_a_network_has_an_output_a_structure(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s")
    config = network_for(store.spec, "switch8x2", "float32")
    assert config.outputs == ("background", "half_left", "half_right")
    TaskData(store, job(outputs=config.outputs))
    with pytest.raises(InputError, match=r"shows half_left, half_right and .* outputs background, structure"):
        TaskData(store, job())


def test_marks_come_with_every_patch_streamed_or_kept(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s", marked={"sub-1": ["half_left"]})
    assert store.partial and not write_halves(tmp_path / "whole").partial
    data = TaskData(store, job(outputs=store.spec.outputs))
    assert data.batch_shapes()["marked"].shape == (2, 2)
    subjects, settings = store.subjects("train"), InputSettings(2)
    streamed = make_batches(store, subjects, data.sampler.box, settings)
    places = make_batches(store, subjects, data.sampler.box, settings, read=False)
    cache = cache_patches(store, subjects, data.sampler.box, 10**9)
    for _ in range(4):
        batch, kept = next(streamed), cache.gather(cache.arrays, next(places))
        expected = [[1, subjects[i] != "sub-1"] for i in batch["index"]]
        np.testing.assert_array_equal(batch["marked"], expected)
        for name in ("image", "label", "marked"):
            np.testing.assert_array_equal(kept[name], batch[name])
    assert data.sampler.box is not None and data.sampler.box.size == (SIDE,) * 3
